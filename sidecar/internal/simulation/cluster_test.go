package simulation

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/config"
)

const (
	// defaultMembers and leaseTTL are the defaults of the configuration.
	defaultMembers = 256
	leaseTTL       = 5 * time.Second
	// meanTrip is the mean time that a request and its answer take on their way.
	meanTrip = time.Millisecond
	// overhead is what TCP/IP, HTTP/2 and gRPC add to the payload of a message, in bytes.
	overhead = 120
	// firstResponse, http2Ping and http2Timeout are those of packages peer and h2/client: how long a stream may bring nothing at
	// first, and after which time it finds that the other end is silent.
	firstResponse, http2Ping, http2Timeout = 5 * time.Second / 2, 30 * time.Second, 10 * time.Second
)

var zones = []string{"a", "b", "c"}

// cluster is the pods and their etcd.
type cluster struct {
	t          *testing.T
	maxMembers int
	etcd       *etcdServer
	pods       map[int]*pod // that run, by number; of the goroutine of the test only

	mu        sync.RWMutex // guards the rest
	addresses map[string]*pod
	counts    []*counts // by number
	runs      int
}

func newCluster(t *testing.T, maxMembers int) *cluster {
	return &cluster{t: t, maxMembers: maxMembers, etcd: newEtcdServer(), pods: map[int]*pod{}, addresses: map[string]*pod{}}
}

func (c *cluster) fail(err error) { c.t.Error(err) }

func (c *cluster) countsOf(number int) *counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.counts) <= number {
		c.counts = append(c.counts, new(counts))
	}
	return c.counts[number]
}

// at returns the pod at an address; nil if there is none.
func (c *cluster) at(addr string) *pod {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.addresses[addr]
}

// travel waits for the time that a message takes.
func (c *cluster) travel(ctx context.Context) error { return c.wait(ctx, rand.N(2*meanTrip)) }

func (c *cluster) wait(ctx context.Context, d time.Duration) error {
	if !backoff.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// start starts pods, spread evenly over a time.
func (c *cluster) start(numbers []int, over time.Duration) {
	c.mu.Lock()
	c.runs++
	run := c.runs
	c.mu.Unlock()
	for _, n := range numbers {
		p := newPod(c, n, run)
		c.pods[n] = p
		c.mu.Lock()
		c.addresses[p.self.Addr] = p
		c.mu.Unlock()
		context.AfterFunc(p.gone, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.addresses, p.self.Addr)
		})
		go p.run()
		if over > 0 {
			time.Sleep(over / time.Duration(len(numbers)))
		}
	}
}

// shutDown stops pods at once, in an orderly way, and returns when they have ended.
func (c *cluster) shutDown(numbers []int) {
	var all sync.WaitGroup
	for _, n := range numbers {
		p := c.pods[n]
		delete(c.pods, n)
		all.Go(p.shutDown)
	}
	all.Wait()
}

// kill ends pods at once.
func (c *cluster) kill(numbers []int) {
	for _, n := range numbers {
		c.pods[n].kill()
		delete(c.pods, n)
	}
}

// numbers returns those of the pods for which is returns true, in order.
func (c *cluster) numbers(is func(*pod) bool) (list []int) {
	for _, n := range slices.Sorted(maps.Keys(c.pods)) {
		if is(c.pods[n]) {
			list = append(list, n)
		}
	}
	return list
}

func all(*pod) bool { return true }

func isMember(p *pod) bool { return p.members.Role() == config.RoleMember }

// check returns what is wrong with the rings: all pods must have the same one, and on it exactly the members.
func (c *cluster) check() error {
	members := map[string]bool{}
	for _, n := range c.numbers(isMember) {
		members[c.pods[n].self.ID] = true
	}
	if want := min(len(c.pods), c.maxMembers); len(members) < want {
		return fmt.Errorf("%d members; want %d", len(members), want)
	}
	var id uint64
	for _, n := range c.numbers(all) {
		r := c.pods[n].members.Ring()
		switch {
		case r.Len() != len(members):
			return fmt.Errorf("the ring of pod %d has %d members; want %d", n, r.Len(), len(members))
		case id == 0:
			id = r.ID()
			for _, m := range r.Members() {
				if !members[m.ID] {
					return fmt.Errorf("%s is on the ring and not a member", m.ID)
				}
			}
		case id != r.ID():
			return fmt.Errorf("the ring of pod %d is not that of the others", n)
		}
	}
	return nil
}

// settle waits until the rings are right.
func (c *cluster) settle(limit time.Duration) {
	c.t.Helper()
	began, err := time.Now(), c.check()
	for ; err != nil && time.Since(began) < limit; err = c.check() {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		c.t.Fatalf("after %v: %v", limit, err)
	}
}

// simulate runs a cluster in virtual time, and ends it.
func simulate(t *testing.T, maxMembers int, run func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, maxMembers)
		defer func() {
			c.kill(c.numbers(all))
			time.Sleep(time.Minute)
		}()
		run(c)
	})
}
