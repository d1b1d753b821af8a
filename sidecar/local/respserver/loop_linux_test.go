package respserver_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/internal/ready/readytest"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// loopServer is a server whose connections wait in its loops.
type loopServer struct {
	*localtest.Server
	loops  *ready.Loops
	budget *budget.Budget
}

// startLoop starts a server with n loops, a dataset "d" of small values, and another one.
func startLoop(t *testing.T, n int, other local.Served) *loopServer {
	t.Helper()
	loops, b := ready.NewLoopsOf(n), budget.New(64<<20)
	d := localtest.NewWritable(t, "d", origintest.New(map[string]string{"a": "1", "b": strings.Repeat("v", 900)}))
	return &loopServer{localtest.Start(t, local.Config{Loops: loops, Budget: b, ConnShare: 0.5}, local.Served{Dataset: d}, other), loops, b}
}

// warm reads the keys so often that a loop takes the connection, if there is one.
func (s *loopServer) warm(t *testing.T, n int) *client {
	t.Helper()
	return s.warmOn(t, n, "tcp", s.Redis)
}

func (s *loopServer) warmOn(t *testing.T, n int, network, address string) *client {
	t.Helper()
	before, c := s.loops.Len(), dial(t, network, address)
	c.do("GET", "d:b")
	for range ready.HitsInARow + 1 {
		c.check(`"1"`, "GET", "d:a")
	}
	if n > 0 {
		localtest.Await(t, "the loop has the connection", func() bool { return s.loops.Len() > before })
	}
	return c
}

// A client must not notice whether a loop or a goroutine serves it, whatever it sends, and in which pieces.
func TestLoopRepliesLikeAGoroutine(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		random := rand.New(rand.NewPCG(seed, 2))
		var sent strings.Builder
		for range 1 + random.IntN(30) {
			sent.WriteString(randomCommand(random))
		}
		pieces := readytest.Cut(random, sent.String()+pack("QUIT"))
		var replies [2]string
		shortest := math.MaxInt
		for n := range replies {
			s := startLoop(t, n, local.Served{Dataset: localtest.NewDataset(t, "other", origintest.New(map[string]string{"a": "A"}))})
			c := s.warm(t, n)
			go func() {
				for _, piece := range pieces {
					if _, err := io.WriteString(c, piece); err != nil {
						return // the server has ended the connection
					}
				}
			}()
			all, err := io.ReadAll(c.in)
			if err != nil && len(all) == 0 {
				t.Errorf("seed %d: %v", seed, err)
			}
			if err != nil { // the server has closed the connection before it had read everything: TCP drops what it has not sent
				shortest = min(shortest, len(all))
			}
			replies[n] = string(all)
			localtest.Await(t, "the connection is gone", func() bool { return s.Stats().Redis.Conns.Open.Load() == 0 && s.loops.Len() == 0 })
		}
		for n, all := range replies {
			replies[n] = all[:min(len(all), shortest)]
		}
		if replies[0] != replies[1] {
			t.Fatalf("seed %d: %q\nthe loop replies\n%q\na goroutine replies\n%q", seed, pieces, replies[1], replies[0])
		}
	}
}

func randomCommand(random *rand.Rand) string {
	switch random.IntN(24) {
	default:
		return pack("GET", "d:a")
	case 0:
		return pack("get", "d:b")
	case 1:
		return pack("GET", fmt.Sprintf("d:none-%d", random.IntN(3)))
	case 2:
		return pack("MGET", "d:a", "d:b", "d:a")
	case 3:
		return pack("MGET", "d:a", "d:none", "other:a")
	case 4:
		return pack("EXISTS", "d:a", "d:b", "d:a") + pack("EXISTS", "d:a", "d:none")
	case 5:
		return pack("STRLEN", "d:b") + pack("PING") + "PING\r\n" + pack("PING", "hello")
	case 6:
		return pack("SET", "d:a", "1") + pack("GET", "d:a")
	case 7:
		return []string{pack("GET"), pack("GET", "a"), pack("GET", "no:a"), pack("NOPE"), pack("GET", "d:"), "\r\n", "*0\r\n"}[random.IntN(7)]
	case 8:
		return pack("MULTI") + pack("GET", "d:a") + pack("MGET", "d:a", "d:b") + pack("EXEC")
	case 9:
		return pack("ECHO", strings.Repeat("x", random.IntN(9000)))
	case 10:
		return strings.Repeat(pack("GET", "d:b"), random.IntN(200))
	case 11:
		return pack(strings.Split("MGET "+strings.Repeat("d:b ", 1+random.IntN(20))+"d:a", " ")...)
	case 12:
		if random.IntN(4) == 0 {
			return []string{"*1\r\n$-1\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nabc\r\n", "Host: x\r\n"}[random.IntN(3)]
		}
		return pack("HELLO", "3")
	}
}

// A client that does not read gets a goroutine, and all its replies.
func TestRedisLoopDoesNotWaitForAClient(t *testing.T) {
	t.Parallel()
	const commands = 10_000
	value := strings.Repeat("v", 2000)
	s := startLoop(t, 1, local.Served{Dataset: localtest.NewDataset(t, "large", origintest.New(map[string]string{"a": value}))})
	greedy, other := s.warm(t, 1), s.warm(t, 1)
	other.check(fmt.Sprintf("%q", value), "GET", "large:a")
	localtest.Await(t, "the loop has given the client a goroutine", func() bool { return s.loops.Len() == 1 })
	for range ready.HitsInARow + 1 {
		other.check(`"1"`, "GET", "d:a")
	}
	localtest.Await(t, "the loop has both", func() bool { return s.loops.Len() == 2 })
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(greedy, strings.Repeat(pack("GET", "large:a"), commands))
		sent <- err
	}()
	localtest.Await(t, "the loop has given the client a goroutine", func() bool { return s.loops.Len() == 1 })
	for range 100 {
		other.check(`"1"`, "GET", "d:a")
	}
	if s.loops.Len() != 1 {
		t.Errorf("%d connections wait in the loop, want that of the client that reads", s.loops.Len())
	}
	for range commands {
		if got := greedy.reply(); len(got) != len(value)+2 {
			t.Fatalf("got %.100s", got)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	localtest.AwaitReturn(t, s.budget, budget.Requests, budget.Responses)
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

// A client that sends more than the loop reads at once gets a goroutine. All commands are in the socket, of a kind without
// windows, before the loop reads the second one.
func TestRedisLoopDoesNotWaitForAClientWithoutAPause(t *testing.T) {
	t.Parallel()
	one := pack("STRLEN", "gated:a")
	commands := 100 << 10 / len(one)
	gate := readytest.NewGate(int64(80 << 10 / len(one))) // the loop reads 64 KiB
	d := localtest.NewDataset(t, "gated", origintest.New(map[string]string{"a": "2"}))
	if _, err := d.Get(t.Context(), "a", kv.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	s := startLoop(t, 1, local.Served{Dataset: gated{d, gate}})
	defer gate.Later()
	defer gate.First()
	address := s.Listen(t, "unix", s.ServeRedis)
	greedy, other := s.warmOn(t, 1, "unix", address), s.warm(t, 1)
	greedy.send(one)
	localtest.Await(t, "the loop reads the first key", func() bool { return gate.Reads() == 1 })
	greedy.send(strings.Repeat(one, commands-1))
	gate.First()
	localtest.Await(t, "the goroutine waits", func() bool { return gate.Reads() == int64(80<<10/len(one)) })
	other.check(`"1"`, "GET", "d:a")
	gate.Later()
	for range commands {
		if got := greedy.reply(); got != ":1" {
			t.Fatalf("got %s, want the length", got)
		}
	}
}

// A load that does not end holds up nobody.
func TestRedisLoopDoesNotWaitForALoad(t *testing.T) {
	t.Parallel()
	fake := origintest.New(map[string]string{"a": "A"})
	s := startLoop(t, 1, local.Served{Dataset: localtest.NewDataset(t, "slow", fake)})
	loading, other := s.warm(t, 1), s.warm(t, 1)
	release := fake.Block()
	defer release()
	loading.send(pack("GET", "d:a") + pack("GET", "slow:a") + pack("GET", "d:a"))
	localtest.Await(t, "the loop has given the client a goroutine", func() bool { return s.loops.Len() == 1 })
	for range 10 {
		other.check(`"1"`, "GET", "d:a")
	}
	release()
	if got := loading.replies(3); got != `"1" "A" "1"` {
		t.Errorf("got %s", got)
	}
}

// What ends a connection that has a goroutine ends one in the loop, and a connection that only waits stays.
func TestRedisLoopConnectionsEnd(t *testing.T) {
	t.Parallel()
	s := startLoop(t, 1, local.Served{Dataset: localtest.Failing()})
	c, client := s.warm(t, 1), s.warm(t, 1)
	_ = client.Close()
	localtest.Await(t, "the connection of the client is gone", func() bool { return s.loops.Len() == 1 && s.Stats().Redis.Conns.Open.Load() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if got := c.reply(); got != "EOF" {
		t.Errorf("got %s, want the end", got)
	}
	localtest.Await(t, "nothing is left", func() bool { return s.Stats().Redis.Conns.Open.Load() == 0 && s.loops.Len() == 0 })
}

// Tracking sends messages at any time, so that the connection has a goroutine.
func TestTrackingConnectionsDoNotWaitInTheLoop(t *testing.T) {
	t.Parallel()
	s := startLoop(t, 1, local.Served{Dataset: localtest.Failing()})
	c := s.warm(t, 1)
	c.check("{…", "HELLO", "3")
	c.check("+OK", "CLIENT", "TRACKING", "ON")
	for range 2 * ready.HitsInARow {
		c.check(`"1"`, "GET", "d:a")
	}
	if n := s.loops.Len(); n != 0 {
		t.Errorf("%d connections wait in the loop, want none", n)
	}
	if got := dial(t, "tcp", s.Redis).do("SET", "d:a", "2"); got != "+OK" {
		t.Fatal(got)
	}
	if got := c.reply(); got != `>"invalidate" ["d:a"]` {
		t.Errorf("got %s, want an invalidation", got)
	}
}

// panicking is a dataset whose memory has a defect.
type panicking struct{ api.Dataset }

// Cached implements api.Dataset.
func (p panicking) Cached(key string, o kv.ReadOptions) (kv.Answer, bool) {
	if key == "panic" {
		panic("canary")
	}
	return p.Dataset.Cached(key, o)
}

func TestPanicInTheRedisLoopEndsOnlyThatConnection(t *testing.T) {
	t.Parallel()
	s := startLoop(t, 1, local.Served{Dataset: panicking{localtest.Failing()}})
	c, other := s.warm(t, 1), s.warm(t, 1)
	c.send(pack("GET", "d:a") + pack("GET", "failing:panic") + pack("GET", "d:a"))
	if got := c.replies(3); !strings.HasPrefix(got, `"1" -INTERNAL the sidecar has a defect`) || !strings.HasSuffix(got, " EOF") {
		t.Errorf("got %s, want a value, an error, and the end", got)
	}
	other.check(`"1"`, "GET", "d:a")
}
