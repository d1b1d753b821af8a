package peer

import (
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

// FuzzStatus reads whatever another program may send as grpc-status-details-bin.
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
		for _, call := range []answersTo{toFetch, toWrite} {
			e := fromStatus(status.FromProto(&raw), call)
			if e == nil {
				continue
			}
			if e.RetryAfter < 0 {
				t.Errorf("retry after %v", e.RetryAfter)
			}
			again := fromStatus(status.Convert(toStatus(e)), call)
			if again == nil || again.Kind != e.Kind || again.RetryAfter != e.RetryAfter {
				t.Errorf("%+v came back as %+v", e, again)
			}
			if cache.KindOf(e) == cache.KindInternal {
				t.Errorf("an answer of kind internal: %v", e)
			}
		}
	})
}
