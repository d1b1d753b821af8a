package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
)

// ports of one sidecar, all on loopback.
type ports struct{ http, grpc, peer, metrics, admin int }

func portsFrom(base int) ports {
	return ports{http: base, grpc: base + 1, peer: base + 2, metrics: base + 3, admin: base + 5}
}

func (p *ports) all() []*int { return []*int{&p.http, &p.grpc, &p.peer, &p.metrics, &p.admin} }

// choosePorts returns the ports from base on, with free ones in the place of those that are taken, and says so.
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
		fmt.Fprintf(out, "Port %d is taken; %s uses %d in its place.\n", wanted, id, free)
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

func freePort() (int, error) {
	l, err := net.Listen("tcp", loopback(0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
