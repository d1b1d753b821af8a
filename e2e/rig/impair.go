package rig

import (
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// impairment is a device of the router through which all packets between hosts go, and which delays and drops them. Not every kernel has
// tc-netem; a TUN device does the same with whole IP packets, so that TCP sees real loss.
type impairment struct {
	device *os.File
	loss   float64
	delay  time.Duration
	all    sync.WaitGroup
}

// waiting is a packet that is delayed.
type waiting struct {
	packet []byte
	due    time.Time
}

const (
	// impairedPrio is that of the rule that sends packets through the device; those before it make exceptions.
	impairedPrio = "23"

	maxPacket  = 64 << 10
	maxWaiting = 10_000 // packets; a router drops more, too
)

// Impair drops a share of the packets between hosts, from 0 to 1, and delays the others, in each direction. Packets of the test itself
// pass. It lasts until Repair; call it once.
func (n *Network) Impair(loss float64, delay time.Duration) {
	n.t.Helper()
	const name, table = "impair", "100"
	device, err := openTun(n.name, name)
	if err != nil {
		n.t.Fatalf("rig: open a TUN device in %s: %v", n.name, err)
	}
	i := &impairment{device: device, loss: loss, delay: delay}
	n.t.Cleanup(func() {
		_ = i.device.Close() // ends the reader
		i.all.Wait()
	})
	n.ip("netns", "exec", n.name, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/"+name+"/rp_filter")
	n.ip("-n", n.name, "link", "set", name, "up")
	n.ip("-n", n.name, "route", "add", "default", "dev", name, "table", table)
	for _, rule := range []string{
		"20 iif " + name + " lookup main", "21 from " + n.address(hostPart) + " lookup main", "22 to " + n.address(hostPart) + " lookup main",
		impairedPrio + " from " + n.prefix + "0/24 lookup " + table,
	} {
		n.ip(append([]string{"-n", n.name, "rule", "add", "prio"}, strings.Fields(rule)...)...)
	}
	packets := make(chan waiting, maxWaiting)
	i.all.Go(func() { i.read(packets) })
	i.all.Go(func() { i.write(n.t, packets) })
}

// Repair ends an impairment.
func (n *Network) Repair() {
	n.t.Helper()
	n.ip("-n", n.name, "rule", "del", "prio", impairedPrio)
}

// read receives packets until the device is closed.
func (i *impairment) read(packets chan<- waiting) {
	defer close(packets)
	buffer := make([]byte, maxPacket)
	for {
		size, err := i.device.Read(buffer)
		if err != nil {
			return
		}
		if rand.Float64() < i.loss {
			continue
		}
		select {
		case packets <- waiting{append([]byte(nil), buffer[:size]...), time.Now().Add(i.delay)}:
		default:
		}
	}
}

// write sends packets on when they are due. They stay in order.
func (i *impairment) write(t testing.TB, packets <-chan waiting) {
	for p := range packets {
		time.Sleep(time.Until(p.due))
		if _, err := i.device.Write(p.packet); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Logf("rig: a packet is lost: %v", err)
		}
	}
}

// openTun creates a TUN device in a network namespace.
func openTun(namespace, name string) (device *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		own, e := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if e != nil {
			err = e
			return
		}
		defer unix.Close(own)
		device, err = openTunHere(namespace, name)
		// The thread must not end with the goroutine: processes that it has started would be killed (Pdeathsig).
		if e := unix.Setns(own, unix.CLONE_NEWNET); e == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return device, err
}

func openTunHere(namespace, name string) (*os.File, error) {
	ns, err := unix.Open("/run/netns/"+namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(tun, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(tun)
		return nil, err
	}
	return os.NewFile(uintptr(tun), "tun"), nil
}
