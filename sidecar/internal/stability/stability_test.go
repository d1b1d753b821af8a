package stability

import (
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestEntriesEndEarlierWhileUnsettled(t *testing.T) {
	p := kv.Policy{TTL: 1000, LocalTTL: 50, GapTTL: 100}
	for _, tt := range []struct {
		name         string
		e            *entries.Entry
		live, change bool
		owned        bool
		want         int64
	}{
		{"live feed", &entries.Entry{Began: 10, FreshUntil: 1010}, true, false, true, 1010},
		{"gap", &entries.Entry{Began: 10, FreshUntil: 1010}, false, false, true, 110},
		{"gap, short ttl", &entries.Entry{Began: 10, FreshUntil: 60}, false, false, true, 60},
		{"former owner", &entries.Entry{Began: 10, FreshUntil: 1010}, true, true, false, 70},
		{"still the owner", &entries.Entry{Began: 10, FreshUntil: 1010}, true, true, true, 1010},
		{"loaded since", &entries.Entry{Began: 21, FreshUntil: 1021}, true, true, false, 1021},
		{"copy", &entries.Entry{Began: 10, Took: 5, Seen: 24, FreshUntil: 1010, Owner: "n"}, true, true, false, 70},
		{"copy since", &entries.Entry{Began: 10, Took: 5, Seen: 25, FreshUntil: 1010, Owner: "n"}, true, true, false, 1010},
	} {
		var s State
		s.Start(p)
		s.SetFeedLive(tt.live)
		if tt.change {
			s.RingChanged(20)
		}
		if got := s.FreshUntil(tt.e, 30, p, func() bool { return tt.owned }); got != tt.want {
			t.Errorf("%s: fresh until %d; want %d", tt.name, got, tt.want)
		}
	}
}

func TestStateSettlesOnceTheReasonHasPassed(t *testing.T) {
	p := kv.Policy{TTL: 1000, LocalTTL: 50, GapTTL: 100}
	var s State
	s.Start(p)
	e, owned := &entries.Entry{Began: 10, FreshUntil: 9000}, func() bool { return true }
	settled := func(now int64, want bool) {
		t.Helper()
		s.FreshUntil(e, now, p, owned)
		if s.Unsettled() == want {
			t.Errorf("at %d: settled is %t; want %t", now, !want, want)
		}
	}
	settled(2000, false)
	if s.SetFeedLive(true) {
		t.Error("a gap begins when the feed becomes live")
	}
	settled(2000, true)
	s.RingChanged(2000)
	settled(2999, false)
	settled(3000, true)
	if !s.SetFeedLive(false) {
		t.Error("no gap begins when the feed ends")
	}
	settled(5000, false)
}
