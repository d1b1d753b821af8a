package rig

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Tests choose ports below the range from which Linux takes the local ports of connections (32768 and above), so that no
// connection can take a port between the choice and the start of its server. Each test program reserves whole blocks by
// listening on the last port of the block until it exits, so that programs that run at the same time never choose the same
// port. hashicorp/consul/sdk/freeport does the same.
const (
	firstPort  = 10000
	lastPort   = 30000
	blockPorts = 200
)

// reserved are the blocks of this test program.
var reserved struct {
	mu    sync.Mutex // guards what follows
	next  int        // the next port of the newest block
	end   int        // the port that reserves the newest block; 0 before the first
	locks []net.Listener
}

// FreePort returns a TCP port of 127.0.0.1 that this test program alone may use, and that it has not used before.
func FreePort(t testing.TB) int {
	t.Helper()
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	for {
		if reserved.next == reserved.end {
			reserved.next, reserved.end = reserveBlock(t)
		}
		port := reserved.next
		reserved.next++
		if PortFree(port) {
			return port
		}
	}
}

// FreeAddress returns the host:port of a FreePort. A server that is stopped and started again in a test needs one: the kernel
// may give the port of "127.0.0.1:0" to a connection in between.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return loopback(FreePort(t))
}

// FreePorts returns the first of 100 consecutive free ports. It is a multiple of 100.
func FreePorts(t testing.TB) (base int) {
	t.Helper()
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	for range 100 {
		base, _ = reserveBlock(t)
		if allFree(base, base+100) {
			return base
		}
	}
	t.Fatal("rig: found no 100 consecutive free ports")
	return 0
}

func allFree(from, to int) bool {
	for port := from; port < to; port++ {
		if !PortFree(port) {
			return false
		}
	}
	return true
}

// reserveBlock returns the first port of a block and the port that reserves it. reserved.mu is held.
func reserveBlock(t testing.TB) (first, lock int) {
	t.Helper()
	const blocks = (lastPort - firstPort) / blockPorts
	for _, block := range rand.Perm(blocks) {
		first = firstPort + block*blockPorts
		lock = first + blockPorts - 1
		if l, err := net.Listen("tcp", loopback(lock)); err == nil {
			reserved.locks = append(reserved.locks, l)
			return first, lock
		}
	}
	t.Fatalf("rig: all %d blocks of ports between %d and %d are reserved", blocks, firstPort, lastPort)
	return 0, 0
}

// PortFree reports whether nothing listens on a TCP port of 127.0.0.1.
func PortFree(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	return err == nil && l.Close() == nil
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
