package rig

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Network is a network of Linux network namespaces, one for each process, with a router between them that drops and delays what a test
// wants dropped and delayed. The test reaches all processes. It needs root and ip (iproute2); the namespaces end with the test.
type Network struct {
	t      testing.TB
	name   string
	prefix string // of the addresses
	next   int
}

// Networks use 198.18.0.0/15, which RFC 2544 reserves for tests.
const hostPart, routerPart, firstPart = 1, 2, 10

// NewNetwork creates a network with a router.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	NeedServers(t)
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	part := FreePort(t) // no other test has it
	n := &Network{t: t, name: fmt.Sprintf("rs%d", part), prefix: fmt.Sprintf("198.%d.%d.", 18+part/256%2, part%256), next: firstPart}
	host := n.name + "h"
	n.ip("netns", "add", n.name)
	t.Cleanup(func() { n.ip("netns", "del", n.name) })
	n.ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", n.name)
	n.ip("addr", "add", n.address(hostPart)+"/32", "dev", host)
	n.ip("link", "set", host, "up")
	n.ip("route", "add", n.prefix+"0/24", "via", n.address(routerPart), "dev", host, "onlink")
	n.ip("-n", n.name, "addr", "add", n.address(routerPart)+"/32", "dev", "eth0")
	n.ip("-n", n.name, "link", "set", "eth0", "up")
	n.ip("-n", n.name, "link", "set", "lo", "up")
	n.ip("-n", n.name, "route", "add", n.address(hostPart)+"/32", "dev", "eth0")
	n.ip("netns", "exec", n.name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	return n
}

func (n *Network) address(part int) string { return fmt.Sprint(n.prefix, part) }

func (n *Network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("rig: ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// host adds a namespace, and returns its name and its address.
func (n *Network) host() (name, address string) {
	n.t.Helper()
	name, address = fmt.Sprintf("%s-%d", n.name, n.next), n.address(n.next)
	link := fmt.Sprint("m", n.next)
	n.next++
	n.ip("netns", "add", name)
	n.t.Cleanup(func() { n.ip("netns", "del", name) })
	n.ip("-n", n.name, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
	n.ip("-n", n.name, "link", "set", link, "up")
	n.ip("-n", n.name, "route", "add", address+"/32", "dev", link)
	n.ip("-n", name, "addr", "add", address+"/32", "dev", "eth0")
	n.ip("-n", name, "link", "set", "lo", "up")
	n.ip("-n", name, "link", "set", "eth0", "up")
	n.ip("-n", name, "route", "add", "default", "via", n.address(routerPart), "dev", "eth0", "onlink")
	return name, address
}

// in makes a process that has not been started run in a namespace.
func (p *process) in(namespace string) {
	p.args = append([]string{"netns", "exec", namespace, p.path}, p.args...)
	p.path = "ip"
}

// Sidecar prepares a sidecar in a namespace of its own, which listens at its address there.
func (n *Network) Sidecar(id, config string) *Sidecar {
	n.t.Helper()
	name, address := n.host()
	s := NewSidecar(n.t, id, config)
	for _, addr := range []*string{&s.HTTP, &s.GRPC, &s.Redis, &s.OTLP, &s.Peer, &s.Metrics, &s.Admin} {
		moved := strings.Replace(*addr, "127.0.0.1", address, 1)
		text, err := os.ReadFile(s.ConfigFile())
		if err == nil {
			err = os.WriteFile(s.ConfigFile(), []byte(strings.ReplaceAll(string(text), *addr, moved)), 0o600)
		}
		if err != nil {
			n.t.Fatalf("rig: %v", err)
		}
		*addr = moved
	}
	s.in(name)
	return s
}

// Etcd starts an etcd in a namespace of its own.
func (n *Network) Etcd() *EtcdServer {
	n.t.Helper()
	name, address := n.host()
	e := newEtcd(n.t, address)
	e.in(name)
	e.Start()
	return e
}

// Forward forwards connections of the hosts to a host:port that only the test reaches, and returns the address for them.
func (n *Network) Forward(to string) (addr string) {
	n.t.Helper()
	l, err := net.Listen("tcp", n.address(hostPart)+":0")
	if err != nil {
		n.t.Fatalf("rig: %v", err)
	}
	n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go forward(from, to)
		}
	}()
	return l.Addr().String()
}

// forward copies both directions until either ends.
func forward(from net.Conn, addr string) {
	defer from.Close()
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		defer from.Close()
		_, _ = io.Copy(from, to)
	}()
	_, _ = io.Copy(to, from)
}

// Cut drops all packets between the hosts of two lists of addresses, in both directions.
func (n *Network) Cut(some, others []string) {
	n.t.Helper()
	for _, a := range some {
		for _, b := range others {
			n.drop("from", Host(a), "to", Host(b))
			n.drop("from", Host(b), "to", Host(a))
		}
	}
}

// Refuse drops the packets of connections from hosts to a host and port, and lets those in the other direction pass.
func (n *Network) Refuse(from []string, to string) {
	n.t.Helper()
	_, port, _ := strings.Cut(to, ":")
	for _, a := range from {
		n.drop("from", Host(a), "to", Host(to), "ipproto", "tcp", "dport", port)
	}
}

func (n *Network) drop(what ...string) {
	n.t.Helper()
	n.ip(append(slices.Concat([]string{"-n", n.name, "rule", "add", "prio", "10"}, what), "blackhole")...)
}

// Heal lets all packets pass again.
func (n *Network) Heal() {
	n.t.Helper()
	for exec.Command("ip", "-n", n.name, "rule", "del", "prio", "10").Run() == nil { // one rule each time
	}
}

// Host returns the host of a host:port, with or without a scheme.
func Host(addr string) string {
	addr = addr[strings.LastIndexByte(addr, '/')+1:]
	host, _, _ := strings.Cut(addr, ":")
	return host
}
