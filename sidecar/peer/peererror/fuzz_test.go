package peererror

import (
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// FuzzStatus reads any grpc-status-details-bin header that another program may send.
func FuzzStatus(f *testing.F) {
	for _, after := range []time.Duration{0, time.Second, -time.Second, 1 << 62} {
		seed, err := proto.Marshal(withRetry(status.New(codes.Aborted, "the origin failed"), after).Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Add([]byte("\x08\x0a\x1a\x04\x0a\x02xy"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var raw spb.Status
		if proto.Unmarshal(data, &raw) != nil {
			return
		}
		for _, call := range []Calls{Fetch, Write} {
			e := FromStatus(status.FromProto(&raw), call)
			if e == nil {
				continue
			}
			if e.RetryAfter < 0 || e.RetryAfter > time.Minute {
				t.Errorf("got retry after %v, want 0 to 1 minute", e.RetryAfter)
			}
			if text := e.Error(); printable.Block(text) != text || len(text) > 2*printable.MaxText+20 {
				t.Errorf("got text %q, want a short and printable one", text)
			}
			again := FromStatus(status.Convert(ToStatus(e)), call)
			if again == nil || again.Kind != e.Kind || again.RetryAfter != e.RetryAfter {
				t.Errorf("after a round trip: got %+v, want %+v", again, e)
			}
			if kv.KindOf(e) == kv.KindInternal {
				t.Errorf("got an answer of kind internal: %v", e)
			}
		}
	})
}
