package client

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestRequestHasTheFieldsOfGRPC(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{script: answering(3)}
		c := connect(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 { // the second one is encoded with the table
			if n, err := call(ctx, c, 5); n != 3 || err != nil {
				t.Fatalf("got %d bytes, error %v", n, err)
			}
		}
		if err := c.Invoke(ctx, "/test.Echo/Other", wrapperspb.Bytes(nil), new(wrapperspb.BytesValue)); err != nil {
			t.Fatal(err)
		}
		for i, h := range s.headers {
			path := method
			if i == 2 {
				path = "/test.Echo/Other"
			}
			for name, want := range map[string]string{":method": "POST", ":scheme": "http", ":authority": "m:1", ":path": path,
				"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "1000000u"} {
				if h[name] != want {
					t.Errorf("request %d: got %s %q, want %q", i+1, name, h[name], want)
				}
			}
		}
	})
}

func TestTimeouts(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "1n", 99_999_999: "99999999n", time.Second: "1000000u", time.Hour: "3600000m", 1 << 62: "99999999S",
		100_000 * time.Second: "100000S",
	} {
		if got := string(appendTimeout(nil, d)); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

// A response that violates gRPC fails its call only.
func TestInvalidResponses(t *testing.T) {
	for name, c := range map[string]struct {
		script func(s *server, id uint32)
		want   codes.Code
	}{
		"too large": {func(s *server, id uint32) {
			s.begin(id)
			_ = s.framer.WriteData(id, false, []byte{0, 0, 1, 0, 0})
		}, codes.ResourceExhausted},
		"compressed": {func(s *server, id uint32) {
			s.begin(id)
			_ = s.framer.WriteData(id, false, []byte{1, 0, 0, 0, 0})
		}, codes.Internal},
		"two messages": {func(s *server, id uint32) {
			s.begin(id)
			_ = s.framer.WriteData(id, false, append(encoded(1), encoded(1)...))
		}, codes.Internal},
		"no message": {func(s *server, id uint32) {
			s.begin(id)
			s.trailer(id)
		}, codes.Internal},
		"a part of a message": {func(s *server, id uint32) {
			s.begin(id)
			_ = s.framer.WriteData(id, false, encoded(10)[:8])
			s.trailer(id)
		}, codes.Internal},
		"no trailer": {func(s *server, id uint32) {
			s.begin(id)
			_ = s.framer.WriteData(id, true, encoded(1))
		}, codes.Internal},
		"no header":           {func(s *server, id uint32) { _ = s.framer.WriteData(id, false, encoded(1)) }, codes.Internal},
		"two headers":         {func(s *server, id uint32) { s.begin(id); s.begin(id) }, codes.Internal},
		"no status":           {func(s *server, id uint32) { s.begin(id); s.header(id, true, "x", "y") }, codes.Internal},
		"text":                {func(s *server, id uint32) { s.header(id, false, ":status", "200", "content-type", "text/plain") }, codes.Unknown},
		"HTTP status":         {func(s *server, id uint32) { s.header(id, false, ":status", "503") }, codes.Unavailable},
		"HTTP status only":    {func(s *server, id uint32) { s.header(id, true, ":status", "404") }, codes.Unimplemented},
		"pseudo-header field": {func(s *server, id uint32) { s.header(id, false, ":status", "200", ":path", "/") }, codes.Internal},
		"large header": {func(s *server, id uint32) {
			s.header(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5", "x", strings.Repeat("x", 15<<10), "y", strings.Repeat("y", 2<<10))
		}, codes.Internal},
		"reset":         {func(s *server, id uint32) { _ = s.framer.WriteRSTStream(id, http2.ErrCodeCancel) }, codes.Canceled},
		"reset as busy": {func(s *server, id uint32) { _ = s.framer.WriteRSTStream(id, http2.ErrCodeEnhanceYourCalm) }, codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &server{script: func(s *server, id uint32) {
					if id == 1 {
						c.script(s, id)
					} else {
						s.answer(id, 1)
					}
				}}
				to := connect(t, s)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if n, err := call(ctx, to, 1, grpc.MaxCallRecvMsgSize(1000)); status.Code(err) != c.want {
					t.Errorf("got %d bytes, error %v, want code %v", n, err, c.want)
				}
				if _, err := call(ctx, to, 1); err != nil {
					t.Errorf("next call: got error %v", err)
				}
			})
		})
	}
}

// A server that violates HTTP/2 loses its connection.
func TestInvalidFramesEndTheConnection(t *testing.T) {
	for name, script := range map[string]func(s *server, id uint32){
		"DATA of no stream": func(s *server, _ uint32) { _ = s.framer.WriteData(7, false, nil) },
		"PUSH_PROMISE":      func(s *server, id uint32) { _ = s.framer.WriteRawFrame(http2.FramePushPromise, 4, id, make([]byte, 4)) },
		"SETTINGS":          func(s *server, _ uint32) { _ = s.framer.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) },
		"PING":              func(s *server, _ uint32) { _ = s.framer.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) },
		"WINDOW_UPDATE": func(s *server, id uint32) {
			_ = s.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		},
		"large window": func(s *server, _ uint32) { _ = s.framer.WriteWindowUpdate(0, 1<<31-1) },
		"large frame":  func(s *server, id uint32) { _ = s.framer.WriteRawFrame(http2.FrameData, 0, id, make([]byte, 16<<10+1)) },
		"HPACK": func(s *server, id uint32) {
			_ = s.framer.WriteRawFrame(http2.FrameHeaders, 4, id, []byte{0xff, 0xff, 0xff})
		},
		"GOAWAY":     func(s *server, _ uint32) { _ = s.framer.WriteRawFrame(http2.FrameGoAway, 0, 0, make([]byte, 7)) },
		"RST_STREAM": func(s *server, id uint32) { _ = s.framer.WriteRawFrame(http2.FrameRSTStream, 0, id, make([]byte, 3)) },
		"CONTINUATION frames": func(s *server, id uint32) {
			_ = s.framer.WriteRawFrame(http2.FrameHeaders, 0, id, nil)
			for s.framer.WriteContinuation(id, false, nil) == nil {
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := connect(t, &server{script: script})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := call(ctx, c, 1); status.Code(err) != codes.Internal {
					t.Errorf("got error %v, want INTERNAL", err)
				}
			})
		})
	}
}

// A server that stops has seen no call above the last one that it names, and one that refuses a stream has not, either.
func TestCallThatNoServerHasSeenBeginsAgain(t *testing.T) {
	for name, script := range map[string]func(s *server, id uint32){
		"GOAWAY":  func(s *server, id uint32) { _ = s.framer.WriteGoAway(id-1, http2.ErrCodeNo, nil) },
		"refused": func(s *server, id uint32) { _ = s.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := connect(t, &server{script: script}, &server{script: answering(3)})
				if n, err := call(t.Context(), c, 1); n != 3 || err != nil {
					t.Errorf("got %d bytes, error %v, want the answer of the second server", n, err)
				}
				var receiver peer.Peer
				c = connect(t, &server{script: script})
				if _, err := call(t.Context(), c, 1, grpc.Peer(&receiver)); status.Code(err) != codes.Unavailable || receiver.Addr != nil {
					t.Errorf("without a second server: got error %v, receiver %v, want UNAVAILABLE and none", err, receiver.Addr)
				}
			})
		})
	}
}

func TestRunningCallsEndAfterGOAWAY(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first := &server{script: func(s *server, id uint32) {
			_ = s.framer.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
			time.Sleep(time.Second)
			s.answer(id, 3)
		}}
		c := connect(t, first, &server{script: answering(4)})
		running := make(chan error, 1)
		go func() {
			n, err := call(t.Context(), c, 1)
			if n != 3 {
				err = errors.Join(err, errors.New("another answer"))
			}
			running <- err
		}()
		time.Sleep(time.Millisecond)
		if n, err := call(t.Context(), c, 1); n != 4 || err != nil {
			t.Errorf("new call: got %d bytes, error %v, want the answer of the second server", n, err)
		}
		if err := <-running; err != nil {
			t.Errorf("running call: got error %v", err)
		}
		synctest.Wait()
		if _, err := first.conn.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v, want that the first connection is closed", err)
		}
	})
}

func TestEndOfTheContextResetsTheCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{}
		c := connect(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := call(ctx, c, 1); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got error %v, want DEADLINE_EXCEEDED", err)
		}
		synctest.Wait()
		if s.resets[1] != http2.ErrCodeCancel {
			t.Errorf("got resets %v, want CANCEL", s.resets)
		}
	})
}

func TestDeadlineEndsACallToAServerThatReadsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{}
		c := connect(t, s)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer s.stop()()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			if _, err := call(ctx, c, 200_000); status.Code(err) != codes.DeadlineExceeded || time.Since(began) > time.Second {
				t.Errorf("got error %v after %v, want DEADLINE_EXCEEDED", err, time.Since(began))
			}
		}
	})
}

func TestSilentServerIsPinged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{}
		c := connect(t, s)
		began := time.Now()
		_, err := call(t.Context(), c, 1)
		synctest.Wait()
		if took := time.Since(began); status.Code(err) != codes.Unavailable || took > 66*time.Second || s.pings == 0 {
			t.Errorf("got error %v after %v and %d pings, want UNAVAILABLE within 65 s", err, took, s.pings)
		}
	})
}

func TestIdleConnectionIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{script: answering(1)}
		c := connect(t, s, &server{script: answering(2)})
		if _, err := call(t.Context(), c, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if c.Connected() || s.pings != 0 {
			t.Errorf("connected: %v, %d pings, want neither", c.Connected(), s.pings)
		}
		if n, err := call(t.Context(), c, 1); n != 2 || err != nil {
			t.Errorf("next call: got %d bytes, error %v, want those of another connection", n, err)
		}
	})
}

// A server that sends pings and reads nothing must not fill the memory with answers.
func TestPingsThatNobodyReadsStopTheReading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{}
		c := connect(t, s)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeConn := s.stop()
		sent := 0
		go s.write(func() {
			for ; sent < 100_000 && s.framer.WritePing(false, [8]byte{}) == nil; sent++ {
			}
		})
		synctest.Wait()
		if sent > 10_000 {
			t.Errorf("%d pings were read, want at most those whose answers take %d bytes", sent, maxOut)
		}
		closeConn()
	})
}

func TestFailedConnectionIsMadeAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		attempts, up := 0, false
		c := New(testConfig(func(context.Context) (net.Conn, error) {
			if attempts++; !up {
				return nil, errors.New("refused")
			}
			return (&server{script: answering(1)}).serveOn(), nil
		}))
		defer c.Close()
		for range 3 {
			if _, err := call(t.Context(), c, 1); status.Code(err) != codes.Unavailable || attempts != 1 {
				t.Errorf("got error %v after %d attempts, want UNAVAILABLE after the first", err, attempts)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.Connect(ctx); err == nil || attempts < 10 || attempts > 40 {
			t.Errorf("got error %v after %d attempts in ten seconds, want about one per second", err, attempts)
		}
		up = true
		if err := c.Connect(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestServerWithoutSettingsIsNotConnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := connect(t, &server{silent: true})
		began := time.Now()
		if _, err := call(t.Context(), c, 1); status.Code(err) != codes.Unavailable || time.Since(began) != time.Second {
			t.Errorf("got error %v after %v, want UNAVAILABLE after a second", err, time.Since(began))
		}
	})
}

func TestCloseEndsCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := connect(t, &server{})
		result := make(chan error)
		go func() {
			_, err := call(context.Background(), c, 1)
			result <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-result; status.Code(err) != codes.Canceled {
			t.Errorf("got error %v, want CANCELED", err)
		}
		if _, err := call(context.Background(), c, 1); status.Code(err) != codes.Canceled {
			t.Errorf("after Close: got error %v, want CANCELED", err)
		}
	})
}

// subscribe opens a stream.
func subscribe(ctx context.Context, t *testing.T, c *Client) grpc.ClientStream {
	t.Helper()
	stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.MaxCallRecvMsgSize(200_000))
	if err == nil {
		err = stream.SendMsg(wrapperspb.Bytes(nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestStreamOfMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{script: func(s *server, id uint32) {
			s.begin(id)
			_ = s.framer.WriteData(id, false, append(encoded(0), encoded(1)...))
			_ = s.framer.WriteData(id, false, encoded(2)[:3])
			_ = s.framer.WriteData(id, false, encoded(2)[3:])
			s.header(id, true, "grpc-status", "11", "grpc-message", "too slow: 100%25")
		}}
		stream := subscribe(t.Context(), t, connect(t, s))
		for n := range 3 {
			var m wrapperspb.BytesValue
			if err := stream.RecvMsg(&m); err != nil || len(m.GetValue()) != n {
				t.Fatalf("message %d: got %d bytes, error %v", n, len(m.GetValue()), err)
			}
		}
		err := stream.RecvMsg(new(wrapperspb.BytesValue))
		if status.Code(err) != codes.OutOfRange || status.Convert(err).Message() != "too slow: 100%" {
			t.Errorf("got error %v, want OUT_OF_RANGE", err)
		}
	})
}

func TestStreamOfASlowReaderIsNotEnlarged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{script: func(s *server, id uint32) { s.begin(id); _ = s.framer.WriteData(id, false, encoded(100_000)[:1000]) }}
		stream := subscribe(t.Context(), t, connect(t, s))
		synctest.Wait()
		if n := s.windows[1]; n != 0 {
			t.Errorf("the window is %d bytes larger while nobody reads, want 0", n)
		}
		go func() { _ = stream.RecvMsg(new(wrapperspb.BytesValue)) }()
		synctest.Wait()
		if n := s.windows[1]; n < 30_000 || n > 40_000 {
			t.Errorf("the window is %d bytes larger, want what the message needs", n)
		}
	})
}

func TestStreamBeyondTheWindowEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{script: func(s *server, id uint32) {
			s.begin(id)
			for message := encoded(100_000); len(message) > 0; {
				n := min(len(message), 16<<10)
				_ = s.framer.WriteData(id, false, message[:n])
				message = message[n:]
			}
		}}
		stream := subscribe(t.Context(), t, connect(t, s))
		synctest.Wait()
		if err := stream.RecvMsg(new(wrapperspb.BytesValue)); status.Code(err) != codes.Internal {
			t.Errorf("got error %v, want INTERNAL", err)
		}
	})
}

func TestEndOfTheContextResetsTheStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &server{}
		ctx, cancel := context.WithCancel(t.Context())
		subscribe(ctx, t, connect(t, s))
		synctest.Wait()
		cancel()
		synctest.Wait()
		if s.resets[1] != http2.ErrCodeCancel {
			t.Errorf("got resets %v, want CANCEL", s.resets)
		}
	})
}
