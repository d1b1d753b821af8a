package dns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
)

// world is the DNS and the members of a test. It implements resolver and Peers.
type world struct {
	mu        sync.Mutex // guards the rest
	ips       map[string][]netip.Addr
	srv       []*net.SRV
	err       error
	lookups   int
	members   map[string]ring.Member // :: address at which it answers → what it says
	asked     map[string]int         // :: address → questions
	verified  map[string]string      // :: advertised address → id of the certificate of the member there
	clients   map[string]bool        // :: address → a client of the ring is there
	announced []string               // ids of the members that got an announcement
}

const name = "ringside.apps.svc"

func newWorld() *world {
	return &world{
		ips: map[string][]netip.Addr{}, members: map[string]ring.Member{}, asked: map[string]int{}, verified: map[string]string{},
	}
}

// member is the n-th member, at 10.0.0.N.
func member(n int) ring.Member {
	addr := fmt.Sprintf("10.0.0.%d:7072", n)
	return ring.Member{
		ID: fmt.Sprintf("pod-%d", n), HashKey: addr, Addr: addr, Zone: "z", Started: time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC),
	}
}

// run puts members into DNS and starts them.
func (w *world) run(members ...ring.Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range members {
		w.members[m.Addr], w.verified[m.Addr] = m, m.ID
		w.ips[name] = append(w.ips[name], netip.MustParseAddrPort(m.Addr).Addr())
	}
}

func (w *world) change(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups++
	if w.err != nil {
		return nil, w.err
	}
	if len(w.ips[host]) == 0 {
		return nil, &net.DNSError{Name: host, IsNotFound: true, Err: "no such host"}
	}
	return slices.Clone(w.ips[host]), nil
}

func (w *world) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return "", w.srv, w.err
}

func (w *world) Describe(_ context.Context, addr string) (string, []byte, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[addr]++
	m, ok := w.members[addr]
	if !ok {
		return "", nil, false, errors.New("connection refused")
	}
	if w.clients[addr] {
		return m.ID, nil, false, nil
	}
	leaving := m.Leaving
	m.Leaving = false
	text, _, err := record.Encode(m)
	if err != nil {
		text = `{"id":"` + m.ID + `"}`
	}
	return m.ID, []byte(text), leaving, nil
}

func (w *world) Ping(_ context.Context, m ring.Member) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.verified[m.Addr] != m.ID {
		return errors.New("the certificate has another id")
	}
	return nil
}

func (w *world) Announce(_ context.Context, to ring.Member, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.announced = append(w.announced, to.ID)
	return nil
}

// resolved is a Directory whose Resolve runs, and what it has applied.
type resolved struct {
	*Directory
	mu    sync.Mutex
	lists [][]ring.Member
	event []string
}

// resolve runs the directory of the first member until the test ends.
func resolve(t *testing.T, w *world, lookupName string) *resolved {
	r := &resolved{}
	r.Directory = New(Config{Name: lookupName, Self: member(1), Peers: w, resolver: w, OnEvent: func(what string, err error) {
		r.event = append(r.event, what)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Resolve(ctx, func(list []ring.Member) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lists = append(r.lists, list)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Resolve: %v", err)
		}
	})
	synctest.Wait()
	return r
}

// want checks the latest list.
func (r *resolved) want(t *testing.T, when string, want ...ring.Member) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lists) == 0 {
		t.Fatalf("%s: applied no list, want %v", when, want)
	}
	if got := r.lists[len(r.lists)-1]; !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", when, got, want)
	}
}

func TestMembersDescribeThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(member(1), member(2), member(3))
		r := resolve(t, w, name)
		r.want(t, "at the start", member(1), member(2), member(3))
		w.change(func() { w.ips[name] = w.ips[name][:2] })
		time.Sleep(2 * refresh)
		r.want(t, "without an address", member(1), member(2))
		w.run(member(4))
		time.Sleep(2 * refresh)
		r.want(t, "with another one", member(1), member(2), member(4))
		if s := r.Stats(); !s.Connected || !s.Listed || s.Members != 3 || s.Addresses != 3 || s.ContactAge > 2*refresh {
			t.Errorf("got %+v", s)
		}
	})
}

func TestOutageOfDNSKeepsTheList(t *testing.T) {
	for what, fault := range map[string]func(w *world){
		"server fails": func(w *world) { w.err = &net.DNSError{Err: "server misbehaving", IsTemporary: true} },
		"no such name": func(w *world) { w.ips[name] = nil },
		"nothing valid": func(w *world) {
			w.ips[name] = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("127.0.0.1")}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.run(member(1), member(2))
				r := resolve(t, w, name)
				w.change(func() { fault(w) })
				time.Sleep(time.Hour)
				r.want(t, "after an hour", member(1), member(2))
				if s := r.Stats(); s.Connected || s.Failures < 100 || s.LastError == "" || s.ContactAge < 59*time.Minute {
					t.Errorf("got %+v", s)
				}
				if want := []string{"found addresses of members", "no addresses of members; the last ones stay in use"}; !slices.Equal(r.event, want) {
					t.Errorf("got events %q, want %q", r.event, want)
				}
				w.change(func() { w.err, w.ips[name] = nil, nil })
				w.run(member(2), member(3))
				time.Sleep(2 * refresh)
				r.want(t, "after the outage", member(2), member(3))
			})
		})
	}
}

// The first member of a cluster need not wait for others.
func TestNameWithoutAddressesIsAnEmptyListAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		resolve(t, w, name).want(t, "at the start")
		w = newWorld()
		w.err = errors.New("server misbehaving")
		if r := resolve(t, w, name); len(r.lists) != 0 {
			t.Errorf("applied %v although DNS has not answered", r.lists)
		}
	})
}

func TestSilentMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(member(1), member(2), member(3))
		w.change(func() { delete(w.members, member(3).Addr) })
		r := resolve(t, w, name)
		r.want(t, "never described", member(1), member(2))
		w.change(func() { delete(w.members, member(2).Addr) })
		time.Sleep(describedFor + refresh)
		r.want(t, "silent for a moment", member(1), member(2))
		time.Sleep((maxFailures + 1) * 2 * refresh)
		r.want(t, "silent", member(1))
		w.change(func() { w.members[member(2).Addr] = member(2) })
		time.Sleep(2 * refresh)
		r.want(t, "back", member(1), member(2))
		if s := r.Stats(); s.Rejected[silent] == 0 {
			t.Errorf("got %v", s.Rejected)
		}
	})
}

func TestAnnouncedChangesDoNotWaitForDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(member(1), member(2))
		r := resolve(t, w, name)
		leaving := member(2)
		leaving.Leaving = true
		w.change(func() { w.members[leaving.Addr] = leaving; w.err = errors.New("server misbehaving") })
		r.Changed(leaving.Addr)
		time.Sleep(minRound)
		r.want(t, "leaving while DNS is down", member(1), leaving)
		w.change(func() { w.err = nil })
		w.run(member(3))
		r.Changed(member(3).Addr)
		time.Sleep(minRound)
		r.want(t, "joined", member(1), leaving, member(3))
		synctest.Wait()
		before := w.lookups
		for range 1000 {
			r.Changed("10.9.9.9:1")
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := w.lookups - before; n > 25 { // 10 s
			t.Errorf("got %d lookups in 10 s of announcements, want at most 20 and the regular ones", n)
		}
		if n := w.asked["10.9.9.9:1"]; n != 0 {
			t.Errorf("asked an address %d times that is not in DNS", n)
		}
	})
}

func TestRegisterAnnouncesJoinAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(member(1), member(2), member(3))
		r := resolve(t, w, name)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Register(ctx, member(1)) }()
		synctest.Wait()
		slices.Sort(w.announced)
		if want := []string{"pod-2", "pod-3"}; !slices.Equal(w.announced, want) {
			t.Errorf("announced the join to %q, want %q", w.announced, want)
		}
		cancel()
		if err := <-done; err != nil || len(w.announced) != 4 {
			t.Errorf("got %v and announcements to %q; want the leave announced to both", err, w.announced)
		}
	})
}

// Only the first member is honest: the directory lists no others.
func TestFalseDescriptionsAreRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		thief, loopback, garbage, other := member(2), member(3), member(4), member(5)
		thief.ID = "pod-9" // its certificate says pod-2
		loopback.Addr = "127.0.0.1:5432"
		garbage.ID = "a/b"
		w := newWorld()
		w.run(member(1), member(2), member(3), member(4))
		w.change(func() {
			w.members["10.0.0.2:7072"], w.members["10.0.0.3:7072"], w.members["10.0.0.4:7072"] = thief, loopback, garbage
			w.verified["127.0.0.1:5432"] = loopback.ID
			other.Leaving = true // it has never been a member
		})
		w.run(other)
		r := resolve(t, w, name)
		time.Sleep(time.Minute)
		r.want(t, "false descriptions", member(1))
		if s := r.Stats(); s.Rejected[invalid] == 0 || s.Rejected[silent] == 0 {
			t.Errorf("got %v", s.Rejected)
		}
	})
}

func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		old, renamed := member(2), member(3)
		w.run(member(1), old, renamed)
		second := netip.MustParseAddr("2001:db8::2")
		w.change(func() {
			w.ips[name] = append(w.ips[name], second, w.ips[name][1], netip.MustParseAddr("::ffff:10.0.0.2"))
			w.members["[2001:db8::2]:7072"] = old // two stacks
			renamed.ID = old.ID                   // a copied configuration
			w.members[renamed.Addr], w.verified[renamed.Addr] = renamed, renamed.ID
		})
		r := resolve(t, w, name)
		r.want(t, "two members with one id: the later one", member(1), renamed)
		if s := r.Stats(); s.Rejected[duplicate] == 0 || s.Addresses != 4 {
			t.Errorf("got %+v", s)
		}
		w.change(func() { delete(w.members, renamed.Addr) })
		time.Sleep(describedFor + 5*2*refresh)
		r.want(t, "one member with two addresses", member(1), old)
	})
}

func TestOwnAddressIsAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(member(2))
		r := resolve(t, w, name)
		r.want(t, "without this member", member(2))
		if r.Stats().Listed {
			t.Error("this member counts as listed")
		}
	})
}

func TestServiceRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, b := member(2), member(3)
		a.Addr, a.HashKey = "10.0.0.2:1001", "10.0.0.2:1001"
		b.Addr, b.HashKey = "10.0.0.2:1002", "10.0.0.2:1002"
		w.run(a, b)
		w.change(func() {
			w.ips = map[string][]netip.Addr{"a.apps.svc.": {netip.MustParseAddr("10.0.0.2")}}
			w.srv = []*net.SRV{{Target: "a.apps.svc.", Port: 1001}, {Target: "a.apps.svc.", Port: 1002}, {Target: "gone.apps.svc.", Port: 1003}}
		})
		r := resolve(t, w, "_peer._tcp."+name)
		r.want(t, "two ports of one host, and a target without addresses", a, b)
		w.change(func() { w.ips = nil })
		time.Sleep(time.Minute)
		r.want(t, "no target has addresses", a, b)
		w.change(func() { w.srv = nil })
		time.Sleep(time.Minute)
		r.want(t, "no records", a, b)
	})
}

func TestAddressesAreLimited(t *testing.T) {
	w := newWorld()
	for i := range maxAddresses + 10 {
		w.ips[name] = append(w.ips[name], netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	d := New(Config{Name: name, Self: member(1), Peers: w, resolver: w})
	if !d.lookup(t.Context()) || d.Stats().Addresses != maxAddresses || d.Stats().Rejected[tooMany] != 10 {
		t.Errorf("got %d addresses and rejected %v", d.Stats().Addresses, d.Stats().Rejected)
	}
}

// Members are asked again at a rate that does not grow with their number.
func TestQuestionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for n := 1; n <= 200; n++ {
			w.run(member(n))
		}
		for n := 201; n <= 1000; n++ {
			m := member(1)
			m.ID, m.Addr = fmt.Sprint("pod-", n), fmt.Sprintf("10.1.%d.%d:7072", n>>8, n&255)
			m.HashKey = m.Addr
			w.run(m)
		}
		resolve(t, w, name)
		clear(w.asked)
		time.Sleep(3 * time.Minute)
		total := 0
		for n := range maps.Values(w.asked) {
			total += n
		}
		if limit := 10 * 60 * 3; total > limit || total < limit/2 {
			t.Errorf("asked %d times in 3 minutes, want about and at most %d", total, limit)
		}
	})
}

func TestCheck(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0") // it never answers
	if err != nil {
		t.Fatal(err)
	}
	at := conn.LocalAddr().String()
	conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Check(ctx, "ringside.example.", at); err == nil || !strings.Contains(err.Error(), "ringside.example") {
		t.Errorf("got %v, want an error about the name", err)
	}
}

// The Service of all pods has the addresses of clients, too.
func TestClientsAreNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.run(member(1), member(2), member(3))
		w.clients = map[string]bool{member(3).Addr: true}
		d := resolve(t, w, name)
		d.want(t, "a client in DNS", member(1), member(2))
		time.Sleep(25 * time.Second)
		if s := d.Stats(); s.Rejected[invalid] != 0 || w.asked[member(3).Addr] != 1 {
			t.Errorf("got %v rejected, and the client was asked %d times; want none and once", s.Rejected, w.asked[member(3).Addr])
		}
		w.change(func() { w.clients = nil })
		d.Changed(member(3).Addr) // it announces that it is a member
		time.Sleep(time.Second)
		d.want(t, "the client became a member", member(1), member(2), member(3))
		addrs, err := d.Addresses(t.Context())
		if err != nil || len(addrs) != 3 {
			t.Errorf("got the addresses %q, %v; want three", addrs, err)
		}
	})
}
