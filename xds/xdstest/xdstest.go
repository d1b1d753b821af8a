//go:build !noxds

// Package xdstest has the members that the tests of the packages of xds publish, and a server of the publisher.
package xdstest

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/ring"
)

// Members returns n members, m0 to m(n-1), with different addresses; n is at most 64 000.
func Members(n int) []ring.Member {
	list := make([]ring.Member, n)
	for i := range list {
		list[i] = ring.Member{ID: fmt.Sprint("m", i), Addr: fmt.Sprintf("10.0.%d.%d:7072", i/250, i%250)}
	}
	return list
}

// Three returns members that differ in everything that is published, not in the order of their ids.
func Three() []ring.Member {
	return []ring.Member{
		{ID: "c", Addr: "10.0.0.7:7072", Leaving: true},
		{ID: "a", Addr: "10.0.0.5:7072"},
		{ID: "b", Addr: "[fd00::6]:7072", HashKey: "cache-b", Zone: "z1", Version: "1.2"},
	}
}

// Service is a publisher.
type Service interface {
	Register(grpc.ServiceRegistrar)
	Stop()
}

// Serve serves p on ln with a grpc.Server until stop is called or the test ends. Connections have no limits, unlike those of a
// sidecar.
func Serve(t testing.TB, ln net.Listener, p Service, options ...grpc.ServerOption) (stop func()) {
	server := grpc.NewServer(options...)
	p.Register(server)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // a test that is skipped stops it at once
			t.Errorf("serve xDS: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		p.Stop()
		server.Stop()
		serving.Wait()
	})
	t.Cleanup(stop)
	return stop
}
