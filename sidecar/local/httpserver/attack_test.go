package httpserver_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// perConn is how much a connection of an attack and its server may hold beside the budget, in this process: two goroutines
// with their stacks, buffers, and the client.
const perConn = 32 << 10

// target is a server under attack.
type target struct {
	*localtest.Server
	t      *testing.T
	budget *budget.Budget
	before int64 // bytes of the heap
	routed string
}

// largeValues is how many values of 1 MiB the dataset "raw" has: big0, big1, …
const largeValues = 4

func newTarget(t *testing.T, config local.Config) *target {
	rows := map[string]string{"a": "1"}
	for i := range largeValues {
		rows[fmt.Sprint("big", i)] = strings.Repeat(fmt.Sprint(i), kv.MaxValueBytes)
	}
	config.Budget = budget.New(32 << 20) // that of a container of 128 MiB
	config.ConnShare = 0.2
	raw := localtest.NewWritable(t, "raw", origintest.New(rows))
	s := localtest.Start(t, config, local.Served{Dataset: raw})
	x := &target{Server: s, t: t, budget: config.Budget}
	x.routed = s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	for key := range rows {
		if _, err := raw.Get(t.Context(), key, kv.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	x.before = localtest.LiveBytes()
	return x
}

// listeners are those with HTTP, as network and address.
func (x *target) listeners() map[string][2]string {
	return map[string][2]string{"http": {"tcp", x.HTTP}, "unix": {"unix", x.Unix}, "routed": {"tcp", x.routed}}
}

// check fails unless the attack is within its limits and a client with small requests is served.
func (x *target) check(conns int) {
	x.t.Helper()
	localtest.CheckBudget(x.t, x.budget)
	most := x.budget.Total() + int64(conns)*perConn
	localtest.Await(x.t, fmt.Sprintf("the heap has grown by at most %d bytes", most), func() bool {
		return localtest.LiveBytes()-x.before <= most // what requests allocate during a collection counts as live
	})
	for name, l := range x.listeners() {
		c := localtest.Dial(x.t, l[0], l[1])
		for _, request := range []string{
			localtest.Get("/v1/raw/a"), localtest.Put("/v1/raw/a", "1"), localtest.Post("/v1/raw:batchGet", `{"keys":["a"]}`),
			localtest.Get("/openapi.json"),
		} {
			c.Send(request)
			if resp, body := c.Response("GET"); resp.StatusCode != 200 {
				x.t.Errorf("%s: %.30q during the attack: %d %s", name, request, resp.StatusCode, body)
			}
		}
		_ = c.Close()
	}
}

// end ends attacks and waits until their bytes are back.
func (x *target) end(attacks ...*localtest.Attack) {
	x.t.Helper()
	for _, a := range attacks {
		a.End()
	}
	localtest.AwaitReturn(x.t, x.budget, budget.Requests, budget.Responses)
	localtest.Await(x.t, "all connections have ended", func() bool {
		s := x.Stats()
		return s.HTTP.Conns.Open.Load()+s.Unix.Conns.Open.Load()+s.Routed.Conns.Open.Load() == 0
	})
}

// repeated returns the same bytes for each connection.
func repeated(s string) func(int) []byte {
	b := []byte(s)
	return func(int) []byte { return b }
}

func countStatus(answers []string, status int) (n int) {
	for _, a := range answers {
		if strings.HasPrefix(a, fmt.Sprintf("HTTP/1.1 %d ", status)) {
			n++
		}
	}
	return n
}

// 130 of these requests killed a container of 128 MiB: what was announced was allocated, before any check.
func TestAnnouncedContentCostsNothing(t *testing.T) {
	x := newTarget(t, local.Config{ReadTimeout: time.Minute})
	const n = 130
	for name, l := range x.listeners() {
		for _, c := range []struct {
			head   string
			status int // 0 if the server waits for the content
		}{
			{"GET /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n", 400},
			{"DELETE /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n", 400},
			{"HEAD /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
			{"PUT /v1/none/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n", 404},
			{"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n", 405},
			{"PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nContent-Length: 1048576\r\n\r\n", 403},
			{"PUT /v1/raw/a HTTP/1.1\r\nHost: evil\r\nContent-Length: 1048576\r\n\r\n", 421},
			{"PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nIf-Match: x\r\nContent-Length: 1048576\r\n\r\n", 400},
			{"PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: br\r\nContent-Length: 1048576\r\n\r\n", 415},
			{"PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n", 413},
			{"PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n", 0},
			{"PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n", 0},
		} {
			if c.status == 421 && name != "http" {
				c.status = 0 // the other listeners accept any Host
			}
			a := localtest.NewAttack(t, l[0], l[1], n, repeated(c.head))
			a.Sent()
			if used := x.budget.Stats()[budget.Requests].Used; used != 0 {
				t.Errorf("%s: %q: %d bytes are taken although nothing has arrived", name, c.head, used)
			}
			if c.status != 0 {
				if got := countStatus(a.Answers(), c.status); got != n {
					t.Errorf("%s: %q: %d of %d connections got %d", name, c.head, got, n, c.status)
				}
			}
			x.check(n)
			x.end(a)
		}
	}
}

func TestSlowContentIsLimitedByTheBudget(t *testing.T) {
	x := newTarget(t, local.Config{ReadTimeout: time.Minute})
	const n = 200
	value := strings.Repeat("x", kv.MaxValueBytes)
	for name, l := range x.listeners() {
		for form, request := range map[string]string{
			"length":   localtest.Put("/v1/raw/a", value),
			"chunks":   "PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n" + value + "\r\n0\r\n\r\n",
			"continue": strings.Replace(localtest.Put("/v1/raw/a", value), "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1),
		} {
			refused := x.budget.Stats()[budget.Requests].Refused
			bytes := []byte(request)
			a := localtest.NewAttack(t, l[0], l[1], n, func(i int) []byte { return bytes[:len(bytes)-1-i] })
			localtest.Await(t, "the budget is empty", func() bool { return x.budget.Stats()[budget.Requests].Refused > refused })
			x.check(n)
			a.Sent()
			x.check(n)
			x.end(a)
			t.Logf("%s, %s: done", name, form)
		}
	}
}

// A refused request gets 429 although the client is still sending, and the connection is closed.
func TestContentWithoutBudgetIsOverloaded(t *testing.T) {
	x := newTarget(t, local.Config{})
	free := x.budget.Loan(budget.Requests)
	for free.Grow(1 << 10) {
	}
	for name, l := range x.listeners() {
		for range 5 { // a reset overtakes the response only sometimes
			c := localtest.Dial(t, l[0], l[1])
			c.Send(localtest.Put("/v1/raw/a", strings.Repeat("x", 200_000)) + localtest.Get("/v1/raw/a"))
			resp, body := c.Response("PUT")
			if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || !resp.Close {
				t.Fatalf("%s: got %d, %v, want 429", name, resp.StatusCode, resp.Header)
			}
			localtest.CheckProblem(t, resp, body, "overloaded")
			c.ExpectClosed()
		}
	}
	large := localtest.Dial(t, "tcp", x.HTTP)
	large.Send(localtest.Get("/v1/raw/a", "X: "+strings.Repeat("x", 10_000)))
	if resp, body := large.Response("GET"); resp.StatusCode != 429 {
		t.Errorf("a large header: got %d %s, want 429", resp.StatusCode, body)
	}
	free.Close()
	c := localtest.Dial(t, "tcp", x.HTTP)
	c.Send(localtest.Put("/v1/raw/b", strings.Repeat("x", 200_000)))
	if resp, body := c.Response("PUT"); resp.StatusCode != 200 {
		t.Errorf("after the attack: got %d %.200s, want 200", resp.StatusCode, body)
	}
	localtest.AwaitReturn(t, x.budget, budget.Requests, budget.Responses)
}

func TestSlowReadersAreLimitedByTheBudget(t *testing.T) {
	x := newTarget(t, local.Config{WriteTimeout: time.Minute})
	const n = 32
	keys := make([]string, largeValues)
	for i := range keys {
		keys[i] = fmt.Sprintf("%q", fmt.Sprint("big", i))
	}
	batch := localtest.Post("/v1/raw:batchGet", `{"keys":[`+strings.Join(keys, ",")+`]}`)
	for name, l := range x.listeners() {
		for _, request := range []string{batch, localtest.Get("/v1/raw/big0"), localtest.Get("/v1/raw/big1") + localtest.Get("/v1/raw/big2")} {
			refused := x.budget.Stats()[budget.Responses].Refused
			// Several requests fill the buffers of the kernel.
			a := localtest.NewAttack(t, l[0], l[1], n, repeated(strings.Repeat(request, 40)))
			localtest.Await(t, "the budget is empty", func() bool { return x.budget.Stats()[budget.Responses].Refused > refused })
			x.check(n)
			x.end(a)
			t.Logf("%s, %.40q: done", name, request)
		}
	}
}

// The limit of the values of a batch is what the budget grants.
func TestBatchHasTheValuesThatTheBudgetGrants(t *testing.T) {
	x := newTarget(t, local.Config{})
	taken := x.budget.Loan(budget.Responses)
	taken.Grow(x.budget.Limit(budget.Responses) - 100_000)
	batch := localtest.Post("/v1/raw:batchGet", `{"keys":["a","big0","big1","a"]}`)
	for name, l := range x.listeners() {
		c := localtest.Dial(t, l[0], l[1])
		c.Send(batch)
		resp, body := c.Response("POST")
		if resp.StatusCode != 200 || strings.Count(body, `"valueBase64":"MQ=="`) != 2 || strings.Count(body, "/batch-too-large") != 2 {
			t.Errorf("%s: got %d %.1000s, want the values of a, and batch-too-large for the others", name, resp.StatusCode, body)
		}
		c.Send(localtest.Post("/v1/raw:batchGet", `{"keys":["a","none","a"]}`))
		if resp, body := c.Response("POST"); resp.StatusCode != 200 || strings.Count(body, `"valueBase64":"MQ=="`) != 2 {
			t.Errorf("%s: got %d %s, want two values", name, resp.StatusCode, body)
		}
	}
	taken.Close()
	localtest.AwaitReturn(t, x.budget, budget.Requests, budget.Responses)
}

// A value that does not fit into the budget is refused; nothing was written, or the write was reported.
func TestLargeValuesWithoutBudget(t *testing.T) {
	x := newTarget(t, local.Config{})
	free := x.budget.Loan(budget.Responses)
	for free.Grow(1 << 10) {
	}
	for name, l := range x.listeners() {
		c := localtest.Dial(t, l[0], l[1])
		for _, one := range []struct {
			request, method string
			status          int
		}{
			{localtest.Get("/v1/raw/big0"), "GET", 429},
			{strings.Replace(localtest.Get("/v1/raw/big0"), "GET", "HEAD", 1), "HEAD", 200},
			{localtest.Get("/v1/raw/big0", `If-None-Match: *`), "GET", 304},
			{localtest.Put("/v1/raw/c", strings.Repeat("x", 20_000)), "PUT", 429},
			{localtest.Get("/v1/raw/c"), "GET", 404},
			{localtest.Get("/v1/raw/a"), "GET", 200},
		} {
			c.Send(one.request)
			if resp, body := c.Response(one.method); resp.StatusCode != one.status {
				t.Errorf("%s: %.40q: got %d %.200s, want %d", name, one.request, resp.StatusCode, body, one.status)
			}
		}
	}
	free.Close()
	localtest.AwaitReturn(t, x.budget, budget.Requests, budget.Responses)
}

func TestLargeHeadersAreLimitedByTheBudget(t *testing.T) {
	x := newTarget(t, local.Config{ReadTimeout: time.Minute})
	const n = 200
	taken := x.budget.Loan(budget.Requests)
	taken.Grow(x.budget.Limit(budget.Requests) - 1<<20)
	head := localtest.Get("/v1/raw/a", "X: "+strings.Repeat("x", 15_000))
	a := localtest.NewAttack(t, "tcp", x.HTTP, n, repeated(head[:len(head)-1]))
	localtest.Await(t, "the budget is empty", func() bool { return x.budget.Stats()[budget.Requests].Refused > 0 })
	x.check(n)
	taken.Close()
	x.end(a)
}

func TestEventOfAWatchTakesItsBytesFromTheBudget(t *testing.T) {
	x := newTarget(t, local.Config{})
	free := x.budget.Loan(budget.Responses)
	for free.Grow(1 << 10) {
	}
	w := localtest.OpenWatch(t, "tcp", x.HTTP, "/v1/raw:watch?key=big0")
	if e, err := w.Events.Event(); err != nil || e.Name != "end" || !strings.Contains(e.Data, "/overloaded") {
		t.Errorf("got event %s, %v without budget, want the end of the watch", e.Name, err)
	}
	small := localtest.OpenWatch(t, "tcp", x.HTTP, "/v1/raw:watch?key=a")
	small.Expect("a=1", "current")
	free.Close()
	localtest.AwaitReturn(t, x.budget, budget.Responses)
}

// Attackers hold every place, each kind in its own way. A client that connects is served: the connection that has waited
// longest makes room.
func TestNewClientIsServedWhileAttackersHoldEveryPlace(t *testing.T) {
	const places = 20
	x := newTarget(t, local.Config{ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxConns: places,
		MaxRoutedConns: places})
	for name, l := range x.listeners() {
		for kind, request := range map[string]string{
			"silent": "", "slow header": "GET / HTTP/1.1\r\nHost: ", "slow content": strings.TrimSuffix(localtest.Put("/v1/raw/a", "xy"), "y"),
			"slow reader": strings.Repeat(localtest.Get("/v1/raw/big0"), 20),
		} {
			a := localtest.NewAttack(t, l[0], l[1], places, repeated(request))
			x.check(places)
			a.End()
			t.Logf("%s, %s: done", name, kind)
		}
	}
}
