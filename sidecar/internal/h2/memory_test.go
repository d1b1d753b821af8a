package h2

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/body"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// One connection with 200 messages of 1 MiB that each lack their last byte.
func TestIncompleteMessagesStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(8 << 20)
		s := serving(Config{Budget: b})
		c, other := connect(t, s), connect(t, s)
		message := framed(make([]byte, 1<<20))
		var ids []uint32
		for range 200 {
			id := c.call("/s/m")
			c.send(id, message[:len(message)-1], false)
			ids = append(ids, id)
		}
		c.settle()
		if n := used(b, budget.Requests); n < 1<<20 || n > b.Limit(budget.Requests) {
			t.Errorf("%d bytes are charged, want at least one message and at most %d", n, b.Limit(budget.Requests))
		}
		refused := 0
		for _, id := range ids {
			if a := c.response(id); a.ended {
				refused++
				c.expectStatus(id, "8")
				c.expectReset(id, http2.ErrCodeNo)
			}
		}
		if refused < 190 || int64(refused) != s.Stats().Refused.Load() {
			t.Errorf("%d were refused, %d counted; want nearly all", refused, s.Stats().Refused.Load())
		}
		for _, one := range []*client{c, other} {
			one.expectStatus(one.unary("/s/m", []byte("small")), "0")
		}
		time.Sleep(7 * time.Second)
		for _, id := range ids {
			if a := c.response(id); !a.ended || a.trailer["grpc-status"] != "8" && a.trailer["grpc-status"] != "4" {
				t.Errorf("stream %d: got %+v, want that it was refused or took too long", id, a)
			}
		}
		if n := used(b, budget.Requests); n != 0 {
			t.Errorf("%d bytes are charged after all ended", n)
		}
	})
}

// A message that is announced, but does not come, costs one piece of it.
func TestAnnouncedMessagesCostWhatArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(64 << 20)
		c := connect(t, serving(Config{Budget: b}))
		for range 200 {
			c.send(c.call("/s/m"), framed(make([]byte, 1<<20))[:6], false)
		}
		c.settle()
		if n, most := used(b, budget.Requests), int64(200*(body.ChunkBytes+2*streamBytes)); n < 200*body.ChunkBytes-prepaidBytes || n > most {
			t.Errorf("%d bytes are charged, want at most %d", n, most)
		}
	})
}

// Responses that nobody reads are charged, and end after WriteTimeout.
func TestUnreadResponsesStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(8 << 20)
		s := serving(Config{Budget: b, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 1<<20))
		})})
		c := connect(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		var ids []uint32
		for range 200 {
			ids = append(ids, c.get("/"))
		}
		c.settle()
		if n := used(b, budget.Responses); n < 1<<20 || n > b.Limit(budget.Responses) {
			t.Errorf("%d bytes of responses are charged, want at most %d", n, b.Limit(budget.Responses))
		}
		time.Sleep(13 * time.Second)
		calm := 0
		for _, id := range ids {
			switch a := c.response(id); {
			case a.header[":status"] == "429":
				calm++
			case a.reset == nil:
				t.Errorf("stream %d: was not reset", id)
			case *a.reset == http2.ErrCodeEnhanceYourCalm:
				calm++
			case *a.reset != http2.ErrCodeCancel && *a.reset != http2.ErrCodeNo:
				t.Errorf("stream %d: got reset %v", id, *a.reset)
			}
		}
		if calm == 0 || s.Stats().WriteTimeouts.Load() == 0 {
			t.Errorf("%d were refused, %d took too long; want some of both", calm, s.Stats().WriteTimeouts.Load())
		}
		if n := used(b, budget.Responses) + used(b, budget.Requests); n != 0 {
			t.Errorf("%d bytes are charged after all ended", n)
		}
	})
}

// A client that reads nothing at all is disconnected, and holds no more than the buffers of its connection.
func TestClientThatReadsNothingIsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(8 << 20)
		s := serving(Config{Budget: b, MessageTimeout: time.Minute})
		stuck := make(chan struct{})
		c := start(t, s, func(c *client) { c.stuck = stuck })
		go c.write([]byte(http2.ClientPreface))
		time.Sleep(30 * time.Second)
		close(stuck)
		c.settle()
		if !c.isEnded() || used(b, budget.Requests) != 0 {
			t.Errorf("ended %v, %d bytes are charged", c.isEnded(), used(b, budget.Requests))
		}
	})
}

// While others have used up the budget, the requests of a connection run one after the other.
func TestSmallRequestsNeedNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1 << 20)
		for b.Take(budget.Requests, 1<<10) {
		}
		running, most := make(chan int, 100), 0
		running <- 0
		s := serving(Config{Budget: b, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n := <-running + 1
			most = max(most, n)
			running <- n
			time.Sleep(time.Millisecond)
			running <- <-running - 1
			grpcHandler(w, r)
		})})
		c := connect(t, s)
		var ids []uint32
		for range 10 {
			ids = append(ids, c.unary("/s/m", []byte("small")))
		}
		time.Sleep(time.Second)
		for _, id := range ids {
			c.expectStatus(id, "0")
		}
		if most != 1 {
			t.Errorf("%d handlers ran at once, want 1", most)
		}
		if s.Stats().Refused.Load() != 0 {
			t.Errorf("%d were refused", s.Stats().Refused.Load())
		}
		large := c.call("/s/m")
		c.send(large, framed(make([]byte, 100<<10)), true)
		c.expectStatus(large, "8")
	})
}

func TestRequestThatWaitsTooLongForMemoryIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1 << 20)
		for b.Take(budget.Requests, 1<<10) {
		}
		release := make(chan struct{})
		c := connect(t, serving(Config{Budget: b, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })}))
		c.unary("/s/m", nil)
		waiting := c.unary("/s/m", nil)
		if a := c.response(waiting); a.ended {
			t.Fatalf("got %+v, want that it waits", a)
		}
		time.Sleep(8 * time.Second)
		c.expectStatus(waiting, "8")
		close(release)
	})
}

// 1 KiB of gzip can become 1 MiB.
func TestCompressedMessageIsChargedForWhatItCanBecome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(64 << 20)
		release := make(chan struct{})
		c := connect(t, serving(Config{Budget: b, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })}))
		for _, size := range []int{1 << 10, 64 << 10} {
			before := used(b, budget.Requests)
			message := framed(make([]byte, size))
			message[0] = 1
			c.send(c.call("/s/m", "grpc-encoding", "gzip"), message, true)
			c.settle()
			if n := used(b, budget.Requests) - before; n < 1<<20-prepaidBytes || n > 1<<20+200<<10 {
				t.Errorf("%d bytes are charged for %d compressed ones, want about the largest message", n, size)
			}
		}
		close(release)
		c.settle()
		if n := used(b, budget.Requests); n > 2*wideBytes+wideBytes {
			t.Errorf("%d bytes are charged after all ended", n)
		}
	})
}

// A body that is not gRPC waits for its handler: within the window of its stream.
func TestBodyThatIsNotReadIsLimitedByItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, release := budget.New(64<<20), make(chan struct{})
		c := connect(t, serving(Config{Budget: b, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			grpcHandler(w, r)
		})}))
		content := make([]byte, 300<<10)
		id := c.post("/")
		sent := c.send(id, content, false)
		if sent != frame.InitialWindow || used(b, budget.Requests) > frame.InitialWindow+2*body.ChunkBytes+wideBytes {
			t.Errorf("the client could send %d bytes, %d are charged; want %d", sent, used(b, budget.Requests), frame.InitialWindow)
		}
		close(release)
		c.settle()
		for sent < len(content) {
			n := c.send(id, content[sent:], true)
			if n == 0 {
				t.Fatalf("the client is stuck after %d bytes", sent)
			}
			sent += n
		}
		if a := c.response(id); len(a.data) != len(content) && len(a.data) != frame.InitialWindow {
			t.Errorf("got %d bytes back", len(a.data))
		}
	})
}

func TestTooLargeMessagesAndBodiesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(Config{MaxBody: func(path string) int64 { return int64(len(path)) }})
		c := connect(t, s)
		for size, want := range map[int]string{9: "0", 10: "0", 11: "8", 1 << 20: "8"} {
			id := c.call("/123456789")
			c.send(id, framed(make([]byte, size)), true)
			c.expectStatus(id, want)
		}
		id := c.post("/123456789")
		c.send(id, make([]byte, 11), true)
		if a := c.response(id); a.header[":status"] != "413" {
			t.Errorf("got %v, want 413", a.header)
		}
		if n := s.Stats().TooLarge.Load(); n != 3 {
			t.Errorf("%d counted", n)
		}
	})
}

// Many unfinished headers, or many open streams with large headers, are charged.
func TestHeadersStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1 << 20)
		s := serving(Config{Budget: b, MaxStreams: 10_000})
		c := connect(t, s)
		for range 2000 {
			c.call("/s/m", "x-large", fmt.Sprintf("%08000d", c.next))
		}
		c.settle()
		if n := used(b, budget.Requests); n < b.Limit(budget.Requests)/2 || n > b.Limit(budget.Requests) || s.Stats().Refused.Load() < 1900 {
			t.Errorf("%d bytes are charged, %d were refused", n, s.Stats().Refused.Load())
		}
		late := connect(t, s)
		late.expectStatus(late.unary("/s/m", nil), "0")
	})
}

// The listener takes a part of what a connection holds, and the server the rest.
func TestConnectionTakesItsMemoryBeforeItIsRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := budget.New(1 << 20)
	s := serving(Config{Budget: b})
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(listen.New(ln, listen.Config{MaxConns: 1000, Bytes: b.Of(budget.Connections), ConnBytes: listen.HTTP2Bytes}))
	}()
	const each = listen.HTTP2Bytes + moreBytes
	fit := int(b.Limit(budget.Connections) / each)
	for range 3 * fit {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil { // the SETTINGS of the server
			t.Errorf("a new connection is not served: %v; want that one that waits loses its place", err)
		}
	}
	if n := used(b, budget.Connections); n != int64(fit)*each {
		t.Errorf("%d bytes are taken, want those of %d connections with %d each", n, fit, each)
	}
	ln.Close()
	<-served
	s.Close()
	if n := used(b, budget.Connections); n != 0 {
		t.Errorf("%d bytes are taken after all were closed", n)
	}
}
