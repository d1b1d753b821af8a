package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// newDataset returns a real dataset over a real (in-memory) origin.
func newDataset(tb testing.TB, name string, from origin.Origin) *cache.Dataset {
	tb.Helper()
	policy := cache.DefaultPolicy()
	policy.TTL, policy.TTLJitter = time.Hour, 0
	d, err := cache.New(cache.Config{Name: name, Policy: policy, Origin: from, MaxBytes: 16 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return d
}

// rows is what the tests' origin holds.
func rows() map[string]string {
	return map[string]string{
		"a": `{"cnf_id":"a"}`, "b": `{"cnf_id":"b"}`, "empty": "",
		"x/y": "slash", "x//../y": "dots", "50% é?#": "odd", strings.Repeat("k", 1024): "long",
	}
}

// scripted answers as it is told: it stands for states that a real dataset reaches only by failure.
type scripted struct {
	name       string
	get        func(ctx context.Context, key string, o cache.ReadOptions) (cache.Answer, error)
	write      func(ctx context.Context, c cache.Change) (cache.Answer, error)
	invalidate func(ctx context.Context, s cache.Scope) (cache.InvalidateResult, error)
	watch      func(keys []string) *cache.Watch
}

func (s scripted) Name() string { return s.name }

func (s scripted) GetMany(ctx context.Context, keys []string, o cache.ReadOptions) []cache.Result {
	results := make([]cache.Result, len(keys))
	for i, key := range keys {
		func() {
			defer func() { // as the flights of a Dataset do
				if p := recover(); p != nil {
					results[i].Err = fmt.Errorf("panic: %v", p)
				}
			}()
			results[i].Answer, results[i].Err = s.get(ctx, key, o)
		}()
	}
	return results
}

func (s scripted) Get(ctx context.Context, key string, o cache.ReadOptions) (cache.Answer, error) {
	return s.get(ctx, key, o)
}

func (s scripted) Write(ctx context.Context, c cache.Change) (cache.Answer, error) {
	return s.write(ctx, c)
}

func (s scripted) Invalidate(ctx context.Context, scope cache.Scope) (cache.InvalidateResult, error) {
	return s.invalidate(ctx, scope)
}

func (s scripted) Watch(keys []string) *cache.Watch { return s.watch(keys) }

// failing returns a dataset whose key names the kind of its failure.
func failing() Dataset {
	return scripted{name: "failing", get: func(ctx context.Context, key string, _ cache.ReadOptions) (cache.Answer, error) {
		switch key {
		case "overloaded":
			return cache.Answer{}, &cache.Error{Kind: cache.KindOverloaded, RetryAfter: 1500 * time.Millisecond,
				Err: errors.New("10000 loads are under way")}
		case "unavailable":
			return cache.Answer{}, &cache.Error{Kind: cache.KindUnavailable, Err: errors.New("the origin refused")}
		case "invalid":
			return cache.Answer{}, &cache.Error{Kind: cache.KindInvalidKey, Err: errors.New("not a number")}
		case "canceled":
			return cache.Answer{}, &cache.Error{Kind: cache.KindCanceled, Err: context.Canceled}
		case "internal":
			return cache.Answer{}, errors.New("dsn postgres://canary-secret")
		case "panic":
			panic("canary-secret")
		case "stale":
			return cache.Answer{Value: []byte(key), Stale: true, Detail: "origin-error", Source: cache.SourceHit}, nil
		case "wait":
			<-ctx.Done()
			return cache.Answer{}, ctx.Err()
		}
		return cache.Answer{Value: []byte(key), Source: cache.SourceHit, Fresh: time.Second}, nil
	}}
}

// started is a Server that serves on loopback, and is stopped when the test ends.
type started struct {
	*Server
	http, grpc, unix string // addresses
}

func start(tb testing.TB, config Config, datasets ...Served) *started {
	tb.Helper()
	if datasets == nil {
		datasets = []Served{
			{Dataset: newDataset(tb, "cnf-metrics", origintest.New(rows())), JSON: true},
			{Dataset: newDataset(tb, "blobs", origintest.New(rows())), ReadOnly: true},
			{Dataset: failing()},
		}
	}
	s := &started{Server: New(config, NewCatalog(datasets...))}
	s.SetServing(true)
	s.http = s.listen(tb, "tcp", s.ServeHTTP)
	s.grpc = s.listen(tb, "tcp", s.ServeGRPC)
	s.unix = s.listen(tb, "unix", s.ServeUnix)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// Tests leave connections open on purpose: being cut off is no failure.
		_ = s.Shutdown(ctx)
	})
	return s
}

func (s *started) listen(tb testing.TB, network string, serve func(net.Listener) error) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if network == "unix" {
		ln, err = ListenUnix(tb.TempDir() + "/s")
	}
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		if err := serve(ln); err != nil {
			tb.Errorf("serve %s: %v", network, err)
		}
	}()
	return ln.Addr().String()
}

// rawConn is a connection on which a test writes HTTP byte by byte.
type rawConn struct {
	net.Conn
	r  *bufio.Reader
	tb testing.TB
}

func dial(tb testing.TB, network, address string) *rawConn {
	tb.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	return &rawConn{c, bufio.NewReader(c), tb}
}

func (c *rawConn) send(s string) {
	c.tb.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.tb.Fatal(err)
	}
}

// answer reads one answer to a request of the given method, and its body.
func (c *rawConn) answer(method string) (*http.Response, string) {
	c.tb.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.tb.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return resp, string(body)
}

// closed fails unless the server has closed the connection and said nothing more.
func (c *rawConn) closed() {
	c.tb.Helper()
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.tb.Errorf("the connection is not closed: %q, %v", rest, err)
	}
}
