package httpserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/internal/ready/readytest"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// loopServer is a server on loopback, and its listener.
type loopServer struct {
	*Server
	listener *listen.Listener
}

func startLoopServer(t *testing.T, set func(*Server), more ...api.Served) *loopServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startLoopServerOn(t, ln, set, more...)
}

func startLoopServerOn(t *testing.T, ln net.Listener, set func(*Server), more ...api.Served) *loopServer {
	t.Helper()
	s := newServer(t, more...)
	s.loops = ready.NewLoopsOf(1) // also where there is one processor
	if set != nil {
		set(s)
	}
	bounded := listen.New(ln, listen.Config{MaxConns: 100, Waits: true})
	served := make(chan error, 1)
	go func() { served <- s.Serve(bounded) }()
	t.Cleanup(func() {
		_ = bounded.Close() // its error adds nothing
		<-served
		bounded.CloseConns()
	})
	return &loopServer{s, bounded}
}

func (s *loopServer) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial(s.listener.Addr().Network(), s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// oneHit is a request that memory answers.
var oneHit = get("/v1/blobs/a")

// warm reads a key so often that the loop takes the connection, if the server has one.
func (s *loopServer) warm(t *testing.T, c net.Conn) *bufio.Reader {
	t.Helper()
	before, r := s.loops.Len(), bufio.NewReader(c)
	for range ready.HitsInARow + 1 {
		hit(t, c, r)
	}
	await(t, "the loop has the connection", func() bool { return s.loops == nil || s.loops.Len() > before })
	return r
}

func hit(t *testing.T, c net.Conn, r *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(c, oneHit); err != nil {
		t.Fatal(err)
	}
	readHit(t, r, "1")
}

func readHit(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
		t.Fatalf("%.100q, %v", body, err)
	}
}

func newDataset(t *testing.T, name string, from origin.Origin) *cache.Dataset {
	t.Helper()
	d, err := cache.New(cache.Config{Name: name, Policy: kv.DefaultPolicy(), MaxBytes: 1 << 20, Origin: from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// changing are the parts of a response that depend on the time.
var changing = regexp.MustCompile(`(?m)^(Date|Age|Cache-Control|Cache-Status|Content-Length): .*$|("age"|"maxAge"):\d+`)

// A client must not notice whether the loop or a goroutine serves it, whatever it sends, and in which pieces.
func TestLoopAnswersLikeAGoroutine(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		var sent []string
		for range 1 + random.IntN(12) {
			sent = append(sent, randomRequest(random))
		}
		pieces := readytest.Cut(random, strings.Join(sent, "")+get("/v1/blobs/a", "Connection: close"))
		var answers [2]string
		for i, set := range []func(*Server){nil, func(s *Server) { s.loops = nil }} {
			s := startLoopServer(t, set)
			c := s.dial(t)
			r := s.warm(t, c)
			go func() {
				for _, piece := range pieces {
					if _, err := io.WriteString(c, piece); err != nil {
						return // the server has refused a request
					}
				}
			}()
			answer, err := io.ReadAll(r)
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			answers[i] = changing.ReplaceAllString(string(answer), "$1$2")
			await(t, "the connection is gone", func() bool { return s.listener.Stats().Open.Load() == 0 && s.loops.Len() == 0 })
		}
		if answers[0] != answers[1] {
			t.Fatalf("seed %d: %q\nthe loop answers\n%s\na goroutine answers\n%s", seed, pieces, answers[0], answers[1])
		}
	}
}

func randomRequest(random *rand.Rand) string {
	switch random.IntN(12) {
	default:
		return oneHit
	case 0:
		return get(fmt.Sprintf("/v1/blobs/none-%d", random.IntN(3)))
	case 1:
		return strings.Replace(oneHit, "GET", "HEAD", 1)
	case 2:
		return get("/v1/blobs/a", "If-None-Match: *")
	case 3:
		return get("/v1/unknown/a")
	case 4:
		return get("/v1/blobs/a", "Cache-Control: no-cache", "Padding: "+strings.Repeat("x", random.IntN(3000)))
	case 5:
		return post(`{"keys":["a","x/y"]}`)
	case 6:
		return []string{"GET /v1/blobs/a\r\n\r\n", "\r\n", get("/v1/blobs/a", "Padding: "+strings.Repeat("x", 6000)),
			get("/v1/blobs/%zz"), get("/v1/blobs/a", "Content-Length: 3") + "\r\n\r\nabc"}[random.IntN(5)]
	}
}

// A client that does not read gets the attention of a goroutine, and all its responses.
func TestLoopDoesNotWaitForAClient(t *testing.T) {
	t.Parallel()
	const requests = 5000
	value := strings.Repeat("v", httpapi.MaxFromMemory)
	s := startLoopServer(t, nil, api.Served{Dataset: newDataset(t, "large", origintest.New(map[string]string{"a": value}))})
	greedy, other := s.dial(t), s.dial(t)
	if _, err := io.WriteString(other, get("/v1/large/a")); err != nil {
		t.Fatal(err)
	}
	readHit(t, bufio.NewReader(other), value) // it is in memory now
	answers, r := s.warm(t, greedy), s.warm(t, other)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(greedy, strings.Repeat(get("/v1/large/a"), requests))
		sent <- err
	}()
	await(t, "the loop has given the client a goroutine", func() bool { return s.loops.Len() == 1 })
	for range 100 {
		hit(t, other, r)
	}
	if s.loops.Len() != 1 {
		t.Errorf("%d connections wait in the loop, want that of the client that reads", s.loops.Len())
	}
	for range requests {
		readHit(t, answers, value)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// gated is a dataset whose reads pass a gate.
type gated struct {
	api.Dataset
	gate *readytest.Gate
}

// Cached implements api.Dataset.
func (g gated) Cached(key string, o kv.ReadOptions) (kv.Answer, bool) {
	g.gate.Read()
	return g.Dataset.Cached(key, o)
}

// Get implements api.Dataset.
func (g gated) Get(ctx context.Context, key string, o kv.ReadOptions) (kv.Answer, error) {
	g.gate.Read()
	return g.Dataset.Get(ctx, key, o)
}

// A client that sends more than the loop reads at once gets a goroutine. All requests are in the socket, of a kind without
// windows, before the loop reads the second one.
func TestLoopDoesNotWaitForAClientWithoutAPause(t *testing.T) {
	t.Parallel()
	const requests, headerBytes, later = 48, 2000, 40 // 64 KiB are 33 requests
	gate := readytest.NewGate(later)
	d := newDataset(t, "gated", origintest.New(map[string]string{"a": "2"}))
	if _, err := d.Get(t.Context(), "a", kv.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	s := startLoopServerOn(t, ln, nil, api.Served{Dataset: gated{d, gate}})
	defer gate.Later()
	defer gate.First()
	greedy, other := s.dial(t), s.dial(t)
	answers, r := s.warm(t, greedy), s.warm(t, other)
	one := get("/v1/gated/a", "Padding: "+strings.Repeat("x", headerBytes))
	if _, err := io.WriteString(greedy, one); err != nil {
		t.Fatal(err)
	}
	await(t, "the loop reads the first key", func() bool { return gate.Reads() == 1 })
	if _, err := io.WriteString(greedy, strings.Repeat(one, requests-1)); err != nil {
		t.Fatal(err)
	}
	gate.First()
	await(t, "the goroutine waits", func() bool { return gate.Reads() == later })
	hit(t, other, r)
	gate.Later()
	for range requests {
		readHit(t, answers, "2")
	}
}

// A request that the database has to answer does not hold up the others.
func TestLoopDoesNotWaitForALoad(t *testing.T) {
	t.Parallel()
	fake := origintest.New(map[string]string{"a": "1"})
	s := startLoopServer(t, nil, api.Served{Dataset: newDataset(t, "slow", fake)})
	loading, other := s.dial(t), s.dial(t)
	answers, r := s.warm(t, loading), s.warm(t, other)
	release := fake.Block()
	defer release()
	if _, err := io.WriteString(loading, get("/v1/slow/a")+oneHit); err != nil {
		t.Fatal(err)
	}
	await(t, "the loop has given the client a goroutine", func() bool { return s.loops.Len() == 1 })
	for range 10 {
		hit(t, other, r)
	}
	release()
	readHit(t, answers, "1")
	readHit(t, answers, "1")
}

// Whatever ends a connection that has a goroutine ends one in the loop.
func TestLoopConnectionsEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, s *loopServer){
		"the client is idle": func(*testing.T, *loopServer) {},
		"another needs the place": func(t *testing.T, s *loopServer) {
			if !s.listener.CloseLongestWaiting() {
				t.Error("no connection waits")
			}
		},
		"the listener closes its connections": func(_ *testing.T, s *loopServer) { s.listener.CloseConns() },
		"shutdown": func(t *testing.T, s *loopServer) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startLoopServer(t, func(s *Server) {
				if name == "the client is idle" {
					s.config.IdleTimeout = 100 * time.Millisecond
				}
			})
			r := s.warm(t, s.dial(t))
			end(t, s)
			if n, err := r.Read(make([]byte, 1)); n > 0 || err != io.EOF {
				t.Errorf("read %d bytes, %v; want the end", n, err)
			}
			await(t, "nothing is left", func() bool { return s.listener.Stats().Open.Load() == 0 && s.loops.Len() == 0 })
		})
	}
}
