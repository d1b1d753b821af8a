package grpcapi

import (
	"testing"
	"time"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestResponseHasMeta(t *testing.T) {
	got := getResponse(&kv.Answer{Stale: true, Fresh: time.Minute, Age: 1500 * time.Millisecond,
		Source: kv.SourcePeerHit, Owner: "n2", Version: 3}, "text/html")
	m := got.GetMeta()
	if !m.GetStale() || m.GetTimeLeft().AsDuration() != 0 || m.GetAge().AsDuration() != 1500*time.Millisecond ||
		m.GetOwner() != "n2" || m.GetVersion() != 3 || m.GetSource() != ringsidev1.Source_SOURCE_PEER_HIT ||
		m.GetContentType() != "text/html" {
		t.Errorf("%v", m)
	}
}
