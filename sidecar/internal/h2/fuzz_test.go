package h2

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// FuzzFrames sends any bytes after the preface: the server must survive them, keep its budget, and give back all of it.
func FuzzFrames(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(1 << 20)
			s := New(Config{Budget: b, Fast: echoFast{}, Defect: func(p any) {
				if p != "in Fast" {
					t.Errorf("panic: %v", p)
				}
			}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n, _ := io.Copy(io.Discard, r.Body)
				_, _ = w.Write(make([]byte, n))
			})})
			c := start(t, s)
			go func() {
				_, _ = c.conn.Write(append([]byte(http2.ClientPreface), input...))
			}()
			time.Sleep(time.Second)
			synctest.Wait()
			if n := used(b, budget.Requests) + used(b, budget.Responses); n > b.Limit(budget.Requests)+b.Limit(budget.Responses) {
				t.Errorf("%d bytes are charged", n)
			}
			c.conn.Close()
			synctest.Wait()
			if n := used(b, budget.Requests) + used(b, budget.Responses); n != 0 {
				t.Errorf("%d bytes are charged after the end", n)
			}
		})
	})
}

func fuzzSeeds() (seeds [][]byte) {
	var out, block bytes.Buffer
	framer, encoder := http2.NewFramer(&out, nil), hpack.NewEncoder(&block)
	headers := func(id uint32, path string, end bool) {
		block.Reset()
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
			{Name: ":path", Value: path}, {Name: "content-type", Value: "application/grpc"}} {
			_ = encoder.WriteField(f)
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	}
	seed := func() {
		seeds = append(seeds, bytes.Clone(out.Bytes()))
		out.Reset()
	}
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3})
	_ = framer.WriteSettingsAck()
	headers(1, "/fast", false)
	_ = framer.WriteData(1, true, framed([]byte("hello")))
	headers(3, "/slow", false)
	_ = framer.WriteDataPadded(3, false, framed([]byte("hello"))[:4], make([]byte, 9))
	_ = framer.WriteWindowUpdate(1, 100)
	_ = framer.WriteWindowUpdate(0, 100)
	seed()
	_ = framer.WriteSettings()
	headers(1, "/x", true)
	_ = framer.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = framer.WritePing(false, [8]byte{})
	_ = framer.WritePriority(3, http2.PriorityParam{StreamDep: 1})
	_ = framer.WriteGoAway(0, http2.ErrCodeNo, nil)
	seed()
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()[:3], PadLength: 2,
		Priority: http2.PriorityParam{StreamDep: 5, Weight: 1}})
	_ = framer.WriteContinuation(1, true, block.Bytes()[3:])
	_ = framer.WriteData(1, false, make([]byte, 10000))
	headers(1, "/trailer", true)
	seed()
	return seeds
}
