package respserver_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/respserver"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// tracker is a server in memory of a dataset "d" and one client that tracks keys.
type tracker struct {
	*client
	origin  *origintest.Fake
	dataset *cache.Dataset
	backend *api.Backend
}

// track runs a test with a client that has sent HELLO 3 and CLIENT TRACKING with options.
func track(t *testing.T, b *budget.Budget, options []string, test func(*tracker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &tracker{origin: origintest.New(map[string]string{"a": "1", "b": "1", "c": "1"})}
		policy := kv.DefaultPolicy()
		policy.TTL, policy.NegativeTTL, policy.TTLJitter = time.Minute, time.Minute, 0
		var err error
		x.dataset, err = cache.New(cache.Config{Name: "d", Origin: x.origin, Writer: x.origin, MaxBytes: 1 << 20, Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		defer x.dataset.Close()
		ctx, cancel := context.WithCancel(context.Background())
		x.backend = api.NewBackend(ctx, api.Config{Budget: b}, api.NewCatalog(api.Served{Dataset: x.dataset}))
		s := respserver.New(ctx, x.backend, watch.NewEngine(x.backend), &x.backend.Stats().Redis)
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() { s.ServeConn(far); close(served) }()
		x.client = newClient(t, near)
		if got := x.do("HELLO", "3"); !strings.HasPrefix(got, "{") {
			t.Fatal(got)
		}
		x.check("+OK", append([]string{"CLIENT", "TRACKING", "ON"}, options...)...)
		test(x)
		_ = near.Close()
		<-served
		if n := x.backend.Stats().Watches.Load(); n != 0 {
			t.Errorf("%d watches are counted after the end, want 0", n)
		}
		for _, u := range b.Stats() {
			if u.Used != 0 {
				t.Errorf("%d bytes of %s are taken after the end, want 0", u.Used, u.Use)
			}
		}
		cancel()
	})
}

func (x *tracker) write(key, value string) {
	x.t.Helper()
	if _, err := x.dataset.Write(x.t.Context(), kv.Change{Key: key, Value: []byte(value)}); err != nil {
		x.t.Fatal(err)
	}
}

// quiet fails if the client gets anything for a time.
func (x *tracker) quiet(d time.Duration) {
	x.t.Helper()
	if err := x.SetReadDeadline(time.Now().Add(d)); err != nil {
		x.t.Fatal(err)
	}
	if b, err := x.in.Peek(1); err == nil {
		x.t.Errorf("got %q, want nothing", b)
	}
	if err := x.SetReadDeadline(time.Time{}); err != nil {
		x.t.Fatal(err)
	}
}

// expect wants replies, each within two minutes: longer than all ttls and timeouts.
func (x *tracker) expect(want ...string) {
	x.t.Helper()
	for _, w := range want {
		_ = x.SetReadDeadline(time.Now().Add(2 * time.Minute)) // it fails only after the end of the connection
		if got := x.reply(); got != w {
			x.t.Fatalf("got %s, want %s", got, w)
		}
	}
	_ = x.SetReadDeadline(time.Time{})
}

func TestChangesOfTrackedKeysAreSentOnce(t *testing.T) {
	track(t, budget.New(16<<20), nil, func(x *tracker) {
		x.check(`"1"`, "GET", "d:a")
		x.check(`["1" null]`, "MGET", "d:b", "d:none")
		x.expect(`>"invalidate" ["d:none"]`) // it was loaded: whether that was a change is not known
		x.check("null", "GET", "d:none")
		x.write("c", "2") // has not been read
		x.quiet(time.Second)
		x.write("a", "2")
		x.expect(`>"invalidate" ["d:a"]`)
		x.write("a", "3") // the client knows that it has no valid copy
		x.quiet(time.Second)
		x.check(`"3"`, "GET", "d:a")
		x.write("none", "2")
		x.expect(`>"invalidate" ["d:none"]`)
		if _, err := x.dataset.Invalidate(x.t.Context(), kv.Scope{}); err != nil {
			x.t.Fatal(err)
		}
		got := []string{x.reply(), x.reply()}
		slices.Sort(got)
		if want := []string{`>"invalidate" ["d:a"]`, `>"invalidate" ["d:b"]`}; !slices.Equal(got, want) {
			x.t.Errorf("got %v, want %v", got, want)
		}
		x.check("+OK", "CLIENT", "TRACKING", "OFF")
		x.check(`"3"`, "GET", "d:a")
		x.write("a", "4")
		x.quiet(time.Second)
	})
}

func TestOwnWritesAreSent(t *testing.T) {
	track(t, nil, []string{"NOLOOP"}, func(x *tracker) {
		x.check(`"1"`, "GET", "d:a")
		x.check("+OK", "SET", "d:a", "2")
		x.expect(`>"invalidate" ["d:a"]`)
	})
}

func TestReplyIsInvalidAfterItsTTL(t *testing.T) {
	track(t, nil, nil, func(x *tracker) {
		x.check(`"1"`, "GET", "d:a")
		x.quiet(30 * time.Second)
		x.check(`"1"`, "GET", "d:b")
		began := time.Now()
		x.expect(`>"invalidate" ["d:a"]`)
		if after := time.Since(began); after > 30*time.Second+100*time.Millisecond {
			x.t.Errorf("the first key is invalid after %s, want 30s", after)
		}
		x.expect(`>"invalidate" ["d:b"]`)
		x.quiet(10 * time.Minute)
	})
}

func TestStaleReplyIsInvalidAtOnce(t *testing.T) {
	track(t, nil, nil, func(x *tracker) {
		x.check(`"1"`, "GET", "d:a")
		x.origin.Fail(fmt.Errorf("the database is down"))
		x.expect(`>"invalidate" ["d:a"]`)
		x.check(`"1"`, "GET", "d:a")
		x.expect(`>"invalidate" ["d:a"]`)
		x.send(pack("MULTI") + pack("GET", "d:a") + pack("PTTL", "d:a") + pack("EXEC"))
		x.expect("+OK", "+QUEUED", "+QUEUED", `["1" :0]`, `>"invalidate" ["d:a"]`, `>"invalidate" ["d:a"]`)
	})
}

func TestOptIn(t *testing.T) {
	track(t, nil, []string{"OPTIN"}, func(x *tracker) {
		x.check(`"1"`, "GET", "d:a")
		x.check("+OK", "CLIENT", "CACHING", "YES")
		x.check(`"1"`, "GET", "d:b")
		x.check(`"1"`, "GET", "d:c")
		for _, key := range []string{"a", "b", "c"} {
			x.write(key, "2")
		}
		x.expect(`>"invalidate" ["d:b"]`)
		x.send(pack("CLIENT", "CACHING", "YES") + pack("MULTI") + pack("PTTL", "d:a") + pack("GET", "d:a") + pack("EXEC") + pack("GET", "d:c"))
		x.expect("+OK", "+OK", "+QUEUED", "+QUEUED")
		if got := x.reply(); !strings.HasPrefix(got, "[:") || !strings.HasSuffix(got, ` "2"]`) {
			x.t.Errorf("got %s, want a time and the value", got)
		}
		x.expect(`"2"`)
		x.write("c", "3")
		x.write("a", "3")
		x.expect(`>"invalidate" ["d:a"]`)
		x.check("-ERR syntax error…", "CLIENT", "CACHING", "NO")
	})
	track(t, nil, []string{"OPTOUT"}, func(x *tracker) {
		x.check("+OK", "CLIENT", "CACHING", "NO")
		x.check(`"1"`, "GET", "d:b")
		x.check(`"1"`, "GET", "d:a")
		x.write("b", "2")
		x.write("a", "2")
		x.expect(`>"invalidate" ["d:a"]`)
	})
}

// The origin reads a row, the row changes, and then the reply arrives: the client must not keep it.
func TestChangeDuringTheReadIsSent(t *testing.T) {
	track(t, nil, nil, func(x *tracker) {
		release := x.origin.Block()
		x.send(pack("GET", "d:a"))
		synctest.Wait()
		x.dataset.ApplyInvalidation(kv.Invalidation{Key: "a"})
		release()
		x.expect(`"1"`, `>"invalidate" ["d:a"]`)
	})
}

func TestReplacedDatasetInvalidatesItsKeys(t *testing.T) {
	track(t, nil, nil, func(x *tracker) {
		x.check(`"1"`, "GET", "d:a")
		began := time.Now()
		x.dataset.EndWatches()
		x.expect(`>"invalidate" ["d:a"]`)
		if after := time.Since(began); after >= time.Second { // its ttl would end it as well
			x.t.Errorf("the key is invalid after %s, want less than 1s", after)
		}
	})
}

func TestTrackingIsBounded(t *testing.T) {
	b := budget.New(1 << 20)
	track(t, b, nil, func(x *tracker) {
		others := int64(0)
		for b.Take(budget.Watches, 1<<10) {
			others += 1 << 10
		}
		b.Return(budget.Watches, 16<<10)
		go x.send(strings.Repeat(pack("GET", "d:a")+pack("GET", "d:b"), 10))
		for range 20 { // these fit
			x.expect(`"1"`)
		}
		read, evicted := 0, 0
		go func() {
			for i := range 200 {
				x.send(pack("GET", fmt.Sprint("d:", i)))
			}
			x.send(pack("PING"))
		}()
		for got := x.reply(); got != "+PONG"; got = x.reply() {
			if got == "null" {
				read++
			} else {
				evicted++
			}
		}
		if read != 200 || evicted < 150 {
			x.t.Errorf("%d keys are read and %d invalid for lack of memory, want 200 and most of them", read, evicted)
		}
		b.Return(budget.Watches, others-16<<10)
	})
}

func TestWhatTrackingDoesNotSupport(t *testing.T) {
	track(t, nil, nil, func(x *tracker) {
		x.check("-ERR BCAST is not supported…", "CLIENT", "TRACKING", "ON", "BCAST")
		x.check("-ERR REDIRECT is not supported…", "CLIENT", "TRACKING", "ON", "REDIRECT", "1")
		x.check("-ERR OPTIN and OPTOUT exclude each other", "CLIENT", "TRACKING", "ON", "OPTIN", "OPTOUT")
		x.check("-ERR CLIENT CACHING can be called only…", "CLIENT", "CACHING", "YES")
		x.check(":0", "CLIENT", "GETREDIR")
	})
}

func TestCommandHasToArriveInTime(t *testing.T) {
	track(t, nil, nil, func(x *tracker) {
		x.quiet(time.Hour) // the wait for a command has no limit
		x.send("*1\r\n$4\r\nPI")
		x.expect("-ERR Protocol error: the command did not arrive in time", "EOF")
	})
}
