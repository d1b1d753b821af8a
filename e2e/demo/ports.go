package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
)

// ports are the ports of one sidecar, all on the loopback interface.
type ports struct{ http, grpc, peer, metrics, admin int }

func portsFrom(base int) ports {
	return ports{http: base, grpc: base + 1, peer: base + 2, metrics: base + 3, admin: base + 5}
}

func (p *ports) all() []*int { return []*int{&p.http, &p.grpc, &p.peer, &p.metrics, &p.admin} }

// choosePorts returns the ports from base on. It replaces a port that is in use by a free one and prints both.
func choosePorts(out io.Writer, id string, base int) (ports, error) {
	p := portsFrom(base)
	for _, port := range p.all() {
		wanted := *port
		if bindable(wanted) {
			continue
		}
		free, err := freePort()
		if err != nil {
			return p, fmt.Errorf("find a free port for %s: %w", id, err)
		}
		*port = free
		fmt.Fprintf(out, "Port %d is in use; %s uses port %d instead.\n", wanted, id, free)
	}
	return p, nil
}

func bindable(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// freePort returns a port below the range from which Linux takes the local ports of connections (32768 and above), so that no
// connection can take it before the server listens.
func freePort() (int, error) {
	for range 1000 {
		if port := 20000 + rand.IntN(12000); bindable(port) {
			return port, nil
		}
	}
	return 0, errors.New("found no free port between 20000 and 32000")
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
