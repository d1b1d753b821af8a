package local_test

import (
	"context"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/metadata"

	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

const getPath = ringsidev1.Cache_Get_FullMethodName

// target is a server under attack, with one address.
type target struct {
	*localtest.Server
	network, address string
	running, peak    atomic.Int64  // calls of the dataset "waiting"
	release          chan struct{} // closed by the test, they return
}

// values of the dataset "rows". Reads of the first are answered from memory, those of the others are handled by grpc.
var values = map[string]string{"small": strings.Repeat("s", 1000), "medium": strings.Repeat("m", 60_000)}

// eachListener runs a test against each listener that speaks HTTP/2, while a client with small reads must be served.
func eachListener(t *testing.T, config local.Config, attack func(t *testing.T, s *target)) {
	for _, name := range []string{"grpc", "unix", "routed"} {
		t.Run(name, func(t *testing.T) {
			s := startTarget(t, config, name)
			attacked := make(chan struct{})
			var reader sync.WaitGroup
			reader.Go(func() { s.readUntil(t, attacked) })
			attack(t, s)
			close(attacked)
			reader.Wait()
			if n := s.Config().Errors.Defects(); n != 0 {
				t.Errorf("%d defects", n)
			}
		})
	}
}

func startTarget(t *testing.T, config local.Config, name string) *target {
	s := &target{release: make(chan struct{})}
	rows := localtest.NewDataset(t, "rows", origintest.New(values))
	for key := range values {
		if _, err := rows.Get(t.Context(), key, kv.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	waiting := localtest.Scripted{ItsName: "waiting", OnGet: func(context.Context, string, kv.ReadOptions) (kv.Answer, error) {
		n := s.running.Add(1)
		for peak := s.peak.Load(); n > peak && !s.peak.CompareAndSwap(peak, n); peak = s.peak.Load() {
		}
		defer s.running.Add(-1)
		<-s.release
		return kv.Answer{Value: []byte("late"), Source: kv.SourceHit}, nil
	}}
	s.Server = localtest.Start(t, config, local.Served{Dataset: rows}, local.Served{Dataset: waiting})
	switch name {
	case "unix":
		s.network, s.address = "unix", s.Unix
	case "routed":
		s.network = "tcp"
		s.address = s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	default:
		s.network, s.address = "tcp", s.GRPC
	}
	return s
}

// readUntil reads a small value on one connection, again and again.
func (s *target) readUntil(t *testing.T, end <-chan struct{}) {
	address := s.address
	if s.network == "unix" {
		address = "unix:" + address
	}
	client := localtest.Client(t, address)
	for {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-some", "metadata"), time.Minute)
		a, err := client.Get(ctx, read("rows", "small"))
		cancel()
		if err != nil || string(a.GetValue()) != values["small"] {
			t.Errorf("the client that behaves well: got %q, %v", a.GetValue(), err)
			return
		}
		select {
		case <-end:
			return
		case <-time.After(time.Millisecond): // leaves the CPU to the attack
		}
	}
}

func (s *target) dial(t *testing.T, settings ...http2.Setting) *localtest.Frames {
	t.Helper()
	return localtest.DialFrames(t, s.network, s.address, settings...)
}

func read(dataset, key string) *ringsidev1.GetRequest {
	return &ringsidev1.GetRequest{Dataset: dataset, Key: key}
}

func expectValue(t *testing.T, r *localtest.Response, key string) {
	t.Helper()
	if status := r.Header.Get("Grpc-Status"); status != "0" || !strings.Contains(string(r.Body), values[key]) {
		t.Errorf("%s: got %d bytes, status %q, reset %v", key, len(r.Body), status, r.Reset)
	}
}

// A request that is reset runs until its handler returns: a client must not begin more of them than it may have open.
func TestResetRequestsCountAsOpen(t *testing.T) {
	const most = 8
	eachListener(t, local.Config{MaxStreams: most}, func(t *testing.T, s *target) {
		f := s.dial(t)
		for i := range uint32(most) {
			f.Call(2*i+1, getPath, read("waiting", "k"))
		}
		localtest.Await(t, "the handlers", func() bool { return s.running.Load() == most })
		for i := range uint32(most) {
			f.Try(f.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
		for i := uint32(most); i < 20*most; i++ {
			f.Call(2*i+1, getPath, read("waiting", "k"))
			if r := f.Answer(2*i + 1); r.Header.Get("Grpc-Status") == "0" || r.Reset != nil && *r.Reset != http2.ErrCodeRefusedStream {
				t.Fatalf("got status %q, reset %v; want RESOURCE_EXHAUSTED or REFUSED_STREAM", r.Header.Get("Grpc-Status"), r.Reset)
			}
		}
		if n := s.peak.Load(); n > most {
			t.Errorf("%d handlers ran at once; want at most %d", n, most)
		}
		close(s.release)
		localtest.Await(t, "the end of the handlers", func() bool { return s.running.Load() == 0 })
		id := uint32(40 * most)
		localtest.Await(t, "an answer", func() bool { // the server learns of the end after the dataset
			id += 2
			f.Call(id+1, getPath, read("rows", "small"), "x-some", "metadata")
			return f.Answer(id+1).Header.Get("Grpc-Status") == "0"
		})
	})
}

// TestHTTP2Floods sends frames that cost their sender nothing and never reads a response.
func TestHTTP2Floods(t *testing.T) {
	frame := func(kind http2.FrameType, flags http2.Flags, id uint32, payload string) []byte {
		n := len(payload)
		b := append([]byte{byte(n >> 16), byte(n >> 8), byte(n), byte(kind), byte(flags)}, binary.BigEndian.AppendUint32(nil, id)...)
		return append(b, payload...)
	}
	floods := map[string][]byte{
		"PING":                    frame(http2.FramePing, 0, 0, "12345678"),
		"SETTINGS":                frame(http2.FrameSettings, 0, 0, ""),
		"SETTINGS with windows":   frame(http2.FrameSettings, 0, 0, "\x00\x04\x00\x00\xff\xff"),
		"PRIORITY":                frame(http2.FramePriority, 0, 1, "\x00\x00\x00\x03\x10"),
		"RST_STREAM":              frame(http2.FrameRSTStream, 0, 1, "\x00\x00\x00\x08"),
		"WINDOW_UPDATE of stream": frame(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01"),
		"empty DATA":              frame(http2.FrameData, 0, 3, ""),
		"padding":                 frame(http2.FrameData, http2.FlagDataPadded, 3, "\x00"),
		"unknown frames":          frame(0x7f, 0, 0, "x"),
		"requests without stream": frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 5, "\x82"),
	}
	eachListener(t, local.Config{Budget: budget.New(16 << 20)}, func(t *testing.T, s *target) {
		for name, b := range floods {
			f := s.dial(t)
			f.Call(1, getPath, read("rows", "small"))
			f.Begin(3, getPath)
			before := localtest.LiveBytes()
			f.Flood(b, 200_000)
			if grown := localtest.LiveBytes() - before; grown > 1<<20 {
				t.Errorf("%s: the flood has left %d bytes in memory; want at most 1 MiB", name, grown)
			}
			_ = f.Close()
		}
	})
}

// TestHTTP2HeaderFloods sends header blocks without end.
func TestHTTP2HeaderFloods(t *testing.T) {
	literal := "\x10\x01n\x7f\x80\x3e" + strings.Repeat("v", 8063) // never indexed, of 8 KiB
	for name, fragment := range map[string]string{"empty": "", "one byte": "\x82", "large": literal} {
		t.Run(name, func(t *testing.T) {
			eachListener(t, local.Config{}, func(t *testing.T, s *target) {
				f := s.dial(t)
				f.Sync()
				before := localtest.LiveBytes()
				f.Try(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.Block(localtest.CallHeader(getPath)...)}))
				for range 100_000 {
					_ = f.Conn.SetWriteDeadline(time.Now().Add(time.Minute))
					if f.WriteContinuation(1, false, []byte(fragment)) != nil {
						break
					}
				}
				if code, ok := f.Ends(); ok && code == http2.ErrCodeNo {
					t.Errorf("the connection ends without an error code")
				}
				if grown := localtest.LiveBytes() - before; grown > 1<<20 {
					t.Errorf("the flood has left %d bytes in memory; want at most 1 MiB", grown)
				}
			})
		})
	}
}

// TestHPACKBomb repeats a large field of the table: 14 KiB become 60 MiB.
func TestHPACKBomb(t *testing.T) {
	eachListener(t, local.Config{}, func(t *testing.T, s *target) {
		f := s.dial(t)
		f.Sync()
		field := f.Block("bomb", strings.Repeat("b", 4000)) // in the table from here on
		bomb := append(f.Block(localtest.CallHeader(getPath)...), field...)
		bomb = append(bomb, []byte(strings.Repeat("\xbe", 14<<10))...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f.Try(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bomb, EndHeaders: true, EndStream: true}))
		ended := false
		for r := f.Stream(1); !ended && !r.Ended && r.Reset == nil; {
			ended = f.Next() != nil
		}
		runtime.ReadMemStats(&after)
		if r := f.Stream(1); r.Header.Get("Grpc-Status") == "0" {
			t.Errorf("the request is answered: %v", r.Header)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%d bytes were allocated; want at most 16 MiB", n)
		}
	})
}

// TestWindowsAreHeld reads responses through windows that are small, zero and negative, from memory and through grpc.
func TestWindowsAreHeld(t *testing.T) {
	window := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n} }
	eachListener(t, local.Config{}, func(t *testing.T, s *target) {
		for i, key := range []string{"small", "medium"} {
			f := s.dial(t, window(100))
			f.Call(1, getPath, read("rows", key))
			r := f.Stream(1)
			received := func(n int) {
				t.Helper()
				f.Until("as many bytes as the window allows", func() bool { return len(r.Body) >= n })
				f.Sync()
				if len(r.Body) != n || r.Ended {
					t.Errorf("%s: got %d bytes, ended: %v; want %d of the window", key, len(r.Body), r.Ended, n)
				}
			}
			received(100)
			f.Try(f.WriteSettings(window(0))) // now it is -100
			f.Try(f.WriteWindowUpdate(1, 99))
			received(100)
			f.Try(f.WriteWindowUpdate(1, 51))
			received(150)
			f.Try(f.WriteSettings(window(1)))
			received(151)
			f.Call(3, getPath, read("rows", "small")) // another one is not held up
			other := f.Stream(3)
			f.Until("the first byte", func() bool { return len(other.Body) == 1 })
			f.Try(f.WriteSettings(window(1<<31 - 1 - 1000)))
			expectValue(t, f.Answer(1), key)
			expectValue(t, f.Answer(3), "small")
			f.Try(f.WriteWindowUpdate(0, 1<<31-1))
			if code, _ := f.Ends(); code != http2.ErrCodeFlowControl {
				t.Errorf("%d: a window of more than 2^31-1 ends the connection with %v; want FLOW_CONTROL_ERROR", i, code)
			}
		}
	})
}

// TestWindowOfTheConnectionIsShared holds responses of several streams with the window of the connection.
func TestWindowOfTheConnectionIsShared(t *testing.T) {
	eachListener(t, local.Config{}, func(t *testing.T, s *target) {
		f := s.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		const calls = 100 // of more than 64 KiB together
		total := func() (n int) {
			for i := range uint32(calls) {
				n += len(f.Stream(2*i + 1).Body)
			}
			return n
		}
		for i := range uint32(calls) {
			f.Call(2*i+1, getPath, read("rows", "small"))
		}
		f.Until("what the window allows", func() bool { return total() >= 65535 })
		f.Sync()
		if n := total(); n != 65535 {
			t.Errorf("got %d bytes; want the window of 65535", n)
		}
		f.Try(f.WriteWindowUpdate(0, 1<<20))
		for i := range uint32(calls) {
			expectValue(t, f.Answer(2*i+1), "small")
		}
	})
}

// TestRequestInSmallPieces sends a request byte by byte: in frames, and in segments.
func TestRequestInSmallPieces(t *testing.T) {
	eachListener(t, local.Config{}, func(t *testing.T, s *target) {
		f := s.dial(t)
		f.Begin(1, getPath)
		message := localtest.Message(t, read("rows", "small"))
		for i := range message {
			f.Try(f.WriteData(1, i == len(message)-1, message[i:i+1]))
		}
		expectValue(t, f.Answer(1), "small")

		f.Begin(3, getPath)
		f.Try(f.WriteDataPadded(3, false, message[:7], make([]byte, 200)))
		f.Try(f.WriteDataPadded(3, false, message[7:], nil))
		f.Try(f.WriteDataPadded(3, true, nil, make([]byte, 10)))
		expectValue(t, f.Answer(3), "small")

		var bytes strings.Builder
		framer := http2.NewFramer(&bytes, nil)
		bytes.WriteString(http2.ClientPreface)
		slow := localtest.FramesOn(localtest.Dial(t, s.network, s.address))
		f.Try(framer.WriteSettings())
		block := s.dial(t).Block(localtest.CallHeader(getPath)...)
		f.Try(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5], PadLength: 7}))
		f.Try(framer.WriteContinuation(1, false, block[5:6]))
		f.Try(framer.WriteContinuation(1, true, block[6:]))
		f.Try(framer.WriteData(1, true, message))
		for i := range bytes.Len() {
			slow.Send(bytes.String()[i : i+1])
		}
		expectValue(t, slow.Answer(1), "small")
	})
}

// TestIncompleteMessagesAreBounded opens many streams whose messages lack their end, on several connections.
func TestIncompleteMessagesAreBounded(t *testing.T) {
	config := local.Config{Budget: budget.New(8 << 20), MaxStreams: 200, ReadTimeout: time.Second}
	eachListener(t, config, func(t *testing.T, s *target) {
		before := localtest.LiveBytes()
		var attackers []*localtest.Frames
		for range 8 {
			f := s.dial(t)
			f.Sync() // the connection is settled
			for i := range uint32(200) {
				f.Begin(2*i+1, ringsidev1.Cache_Put_FullMethodName)
				f.Try(f.WriteData(2*i+1, false, append([]byte("\x00\x00\x0f\xff\xff"), make([]byte, 300)...)))
			}
			attackers = append(attackers, f)
		}
		for _, f := range attackers {
			f.Sync()
		}
		if grown := localtest.LiveBytes() - before; grown > 12<<20 {
			t.Errorf("the messages hold %d bytes; want at most 12 MiB with a budget of 8 MiB, client included", grown)
		}
		for _, f := range attackers {
			for i := range uint32(200) {
				if r := f.Answer(2*i + 1); r.Header.Get("Grpc-Status") == "0" {
					t.Fatalf("an incomplete message is answered: %v", r.Header)
				}
			}
			_ = f.Close()
		}
		localtest.Await(t, "the budget to be free again", func() bool { return usedBy(config.Budget, budget.Requests) == 0 })
	})
}

func usedBy(b *budget.Budget, u budget.Use) int64 { return b.Stats()[u].Used }

// TestResponsesThatNobodyReadsAreBounded requests large values and accepts none of them.
func TestResponsesThatNobodyReadsAreBounded(t *testing.T) {
	config := local.Config{Budget: budget.New(32 << 20), MaxStreams: 100, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	eachListener(t, config, func(t *testing.T, s *target) {
		var attackers []*localtest.Frames
		for range 4 {
			f := s.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for i := range uint32(100) {
				f.Call(2*i+1, getPath, read("rows", []string{"small", "medium"}[i%2]))
			}
			attackers = append(attackers, f)
		}
		for _, f := range attackers {
			f.Sync()
		}
		for _, f := range attackers {
			for i := range uint32(100) {
				if r := f.Answer(2*i + 1); r.Ended && r.Header.Get("Grpc-Status") == "0" {
					t.Fatalf("a response of %d bytes has arrived through a window of 0", len(r.Body))
				}
			}
			_ = f.Close()
		}
		for u := range budget.Use(len(config.Budget.Stats())) {
			if u != budget.Connections {
				localtest.Await(t, "the budget to be free again", func() bool { return usedBy(config.Budget, u) == 0 })
			}
		}
	})
}
