package wire_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseFetchReturnsTheQuery(t *testing.T) {
	q := kv.Query{Dataset: "metrics", Key: "k", NoCache: true, MemoryOnly: true, MinVersion: 7, MaxAge: time.Second, Tag: "x"}
	req := wire.FetchRequest(q, 9)
	req.MaxBytes = 5
	f, ok := wire.ParseFetch(marshal(t, req))
	if !ok || f.Query != q || f.RingID != 9 || f.MaxBytes != 5 {
		t.Errorf("got %+v, %v, want %+v", f, ok, req)
	}
}

// A member of an older release answers from memory, or not at all: it must not load for the owner.
func TestRelayIsMemoryOnlyForOlderReleases(t *testing.T) {
	req := wire.FetchRequest(kv.Query{Dataset: "metrics", Key: "k", Relay: true, Relayed: 1 << 30}, 9)
	if !req.GetMemoryOnly() || !req.GetRelay() {
		t.Errorf("got %+v, want memory_only", req)
	}
	f, ok := wire.ParseFetch(marshal(t, req))
	if q := wire.Query(req); !ok || f.Query != q || !q.Relay || q.MemoryOnly || q.Relayed != 1<<20 {
		t.Errorf("got %+v and %+v, want a limited count", f.Query, q)
	}
}

func TestZoneIsMemoryOnlyForOlderReleases(t *testing.T) {
	req := wire.FetchRequest(kv.Query{Dataset: "metrics", Key: "k", Zone: true}, 9)
	if !req.GetMemoryOnly() || !req.GetZone() || req.GetRelay() {
		t.Errorf("got %+v, want memory_only and zone", req)
	}
	f, ok := wire.ParseFetch(marshal(t, req))
	if q := wire.Query(req); !ok || f.Query != q || !q.Zone || q.MemoryOnly {
		t.Errorf("got %+v and %+v, want zone alone", f.Query, q)
	}
}

func TestParseFetchLeavesUnusualMessagesToProtobuf(t *testing.T) {
	usual := marshal(t, &peerv1.FetchRequest{Dataset: "metrics", Key: "k"})
	for name, message := range map[string][]byte{
		"a field twice":      slices.Concat(usual, marshal(t, &peerv1.FetchRequest{Key: "other"})),
		"invalid UTF-8":      slices.Concat(usual, []byte{0x42, 1, 0xff}),
		"an unknown field":   slices.Concat(usual, []byte{0x70, 1}),
		"a wrong type":       {0x0d, 1, 2, 3, 4},
		"a part of a field":  usual[:len(usual)-1],
		"a long key":         marshal(t, &peerv1.FetchRequest{Dataset: "metrics", Key: strings.Repeat("k", kv.MaxKeyBytes+1)}),
		"no key":             marshal(t, &peerv1.FetchRequest{Dataset: "metrics"}),
		"a negative version": marshal(t, &peerv1.FetchRequest{Dataset: "metrics", Key: "k", MinVersion: -1}),
	} {
		if f, ok := wire.ParseFetch(message); ok {
			t.Errorf("%s: got %+v, want it left to protobuf", name, f)
		}
	}
}

func TestValueIsWithinTheMemoryOfTheCaller(t *testing.T) {
	for _, c := range []struct {
		maxBytes int64
		limit    int
		want     int
	}{{0, 1000, 1000 - wire.HitBytes}, {100, 1000, 100}, {1 << 40, 1000, 1000 - wire.HitBytes}, {0, 10, -1}} {
		f := wire.Fetch{MaxBytes: c.maxBytes}
		if got := f.MaxValue(c.limit); got != c.want {
			t.Errorf("max_bytes %d, limit %d: got %d, want %d", c.maxBytes, c.limit, got, c.want)
		}
	}
}

// FuzzParseFetch compares with protobuf.
func FuzzParseFetch(f *testing.F) {
	f.Add(marshal(f, &peerv1.FetchRequest{Dataset: "metrics", Key: "k", RingId: 1, MaxBytes: 8 << 10, DataErrors: true}))
	f.Add(marshal(f, &peerv1.FetchRequest{Dataset: "metrics", Key: "k", MemoryOnly: true, Relay: true, Relayed: 1 << 31}))
	f.Add(marshal(f, &peerv1.FetchRequest{Dataset: "metrics", Key: "k", MemoryOnly: true, Relay: true, Zone: true}))
	f.Add(marshal(f, &peerv1.FetchRequest{Dataset: "metrics", Key: "k", NoCache: true, MemoryOnly: true, MinVersion: 3, MaxAgeNs: 4, Tag: "t"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := wire.ParseFetch(data)
		if !ok {
			return
		}
		var want peerv1.FetchRequest
		if err := proto.Unmarshal(data, &want); err != nil {
			t.Fatalf("got %+v, want error %v", got, err)
		}
		if err := wire.CheckFetch(&want); err != nil {
			t.Fatalf("got %+v, want error %v", got, err)
		}
		if got.Query != wire.Query(&want) || got.RingID != want.GetRingId() || got.MaxBytes != want.GetMaxBytes() {
			t.Errorf("got %+v, want %+v", got, &want)
		}
	})
}

// FuzzAppendHit compares with protobuf.
func FuzzAppendHit(f *testing.F) {
	f.Add([]byte("v"), int64(1), int64(2), int64(3), "revalidating", "pod-1", uint64(4), uint8(0xff), uint8(1))
	f.Add([]byte(nil), int64(-1), int64(-2), int64(-3), "", "", uint64(0), uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, value []byte, version, age, fresh int64, detail, entryOf string, ringID uint64, flags, content uint8) {
		a := kv.Answer{
			Value: value, Version: version, Age: time.Duration(age), Fresh: time.Duration(fresh), Detail: detail,
			NotFound: flags&1 != 0, Stale: flags&2 != 0, Content: origin.Content(content), Took: time.Duration(flags & 8),
		}
		if flags&32 != 0 {
			a.HotRate, a.Relayed = uint32(version), flags&64 != 0
		}
		if flags&4 != 0 {
			a.Source = kv.SourceLoad
		}
		got, ok := wire.AppendHit(nil, &a, ringID, flags&16 != 0, entryOf)
		if !ok {
			return
		}
		resp := wire.FetchResponse(a, ringID, flags&16 != 0)
		resp.EntryOf = entryOf
		if want := marshal(t, resp); string(got) != string(want) {
			t.Errorf("got %x, want %x", got, want)
		}
		if most := len(value) + wire.HitBytes; len(got) > most {
			t.Errorf("got %d bytes, want at most %d", len(got), most)
		}
	})
}
