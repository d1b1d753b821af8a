package invalidationlog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestLogKeepsTheLatest(t *testing.T) {
	const size, published = 5, 12
	l := New(size)
	for n := range published {
		l.Publish(kv.Invalidation{Key: fmt.Sprint(n + 1)})
	}
	for after := range uint64(published + 3) {
		at, err := l.From(l.Epoch(), after)
		if kept := after >= published-size && after <= published; (err == nil) != kept {
			t.Errorf("from %d: got error %v, want kept: %v", after, err, kept)
			continue
		}
		if err != nil {
			continue
		}
		p, err := l.Read(&at)
		if err != nil || p.Sequence != published || at.Sequence() != published {
			t.Errorf("from %d: got sequence %d, error %v, want %d", after, at.Sequence(), err, published)
		}
		for i, r := range p.Records {
			if want := fmt.Sprint(after + uint64(i) + 1); r.Invalidation.Key != want {
				t.Errorf("from %d: record %d: got %s, want %s", after, i, r.Invalidation.Key, want)
			}
		}
		if len(p.Records) != int(published-after) || p.HasNews != (after < published) || (p.Changed == nil) != p.HasNews {
			t.Errorf("from %d: got %d records, news %v", after, len(p.Records), p.HasNews)
		}
	}
	for n := range size + 1 {
		l.Publish(kv.Invalidation{Key: fmt.Sprint(published + n + 1)})
	}
	if _, err := l.Read(&Cursor{sequence: published}); err == nil {
		t.Error("Read returns overwritten records")
	}
}

func TestCursorOfAnotherRunIsAtTheEnd(t *testing.T) {
	l := New(8)
	l.Publish(kv.Invalidation{})
	for _, epoch := range []uint64{0, l.Epoch() + 2} {
		if at, err := l.From(epoch, 7); err != nil || at.Sequence() != 1 {
			t.Errorf("epoch %d: got sequence %d, error %v, want 1", epoch, at.Sequence(), err)
		}
	}
}

func TestReadReportsAnInterruption(t *testing.T) {
	l := New(8)
	var at Cursor
	for _, tc := range []struct {
		set         [][]string
		want        []string
		interrupted bool
	}{
		{[][]string{{"b", "a", "a"}}, []string{"a", "b"}, false},
		{[][]string{{"a", "b"}}, []string{"a", "b"}, false},
		{[][]string{{"b"}, {"a", "b"}}, []string{"a", "b"}, true},
		{[][]string{nil}, nil, false},
	} {
		for _, feeds := range tc.set {
			l.SetLiveFeeds(feeds)
		}
		p, err := l.Read(&at)
		if err != nil || !slices.Equal(p.LiveFeeds, tc.want) || p.Interrupted != tc.interrupted {
			t.Errorf("set %v: got %v, interrupted %v, error %v, want %v, %v", tc.set, p.LiveFeeds, p.Interrupted, err, tc.want, tc.interrupted)
		}
	}
}

func TestReadIsLimited(t *testing.T) {
	l := New(2000)
	for range 1300 {
		l.Publish(kv.Invalidation{})
	}
	var at Cursor
	for _, want := range []int{MaxPage, MaxPage, 1300 - 2*MaxPage, 0} {
		if p, err := l.Read(&at); err != nil || len(p.Records) != want {
			t.Errorf("got %d records, error %v, want %d", len(p.Records), err, want)
		}
	}
}

func TestPublishAllocatesNothing(t *testing.T) {
	l := New(64)
	i := kv.Invalidation{Dataset: "metrics", Key: "k"}
	if n := testing.AllocsPerRun(100, func() { l.Publish(i) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// Subscribers reject more prefixes in one message.
func TestPageHasFewPrefixes(t *testing.T) {
	l := New(256)
	for n := range 100 {
		l.Publish(kv.Invalidation{Key: fmt.Sprint(n), Prefix: n%2 == 0})
	}
	var at Cursor
	var keys []string
	for at.Sequence() < 100 {
		p, err := l.Read(&at)
		if err != nil {
			t.Fatal(err)
		}
		prefixes := 0
		for _, r := range p.Records {
			keys = append(keys, r.Invalidation.Key)
			if r.Invalidation.Prefix {
				prefixes++
			}
		}
		if prefixes > MaxPrefixes || len(p.Records) == 0 || p.Sequence != at.Sequence() {
			t.Fatalf("got a page of %d records with %d prefixes, want 1 to %d prefixes", len(p.Records), prefixes, MaxPrefixes)
		}
	}
	for n, key := range keys {
		if key != fmt.Sprint(n) {
			t.Fatalf("record %d: got %s", n, key)
		}
	}
	if len(keys) != 100 {
		t.Errorf("got %d records, want 100", len(keys))
	}
}

func TestLogOfLargeKeysIsBounded(t *testing.T) {
	const n, size = 2000, 1000
	l := New(4096)
	publish := func(size int) { l.Publish(kv.Invalidation{Dataset: "d", Key: strings.Repeat("k", size)}) }
	for range n {
		publish(size)
	}
	held := 0
	for _, r := range l.records {
		held += len(r.Invalidation.Dataset) + len(r.Invalidation.Key)
	}
	if held > maxBytes || held < maxBytes-2*size || held != l.bytes {
		t.Errorf("got %d bytes held and %d counted, want the largest number up to %d", held, l.bytes, maxBytes)
	}
	kept := uint64(held / (size + 1))
	if _, err := l.From(l.Epoch(), n-kept-1); err == nil {
		t.Error("a reader can continue before the first record that is kept")
	}
	at, err := l.From(l.Epoch(), n-kept)
	for read := uint64(0); err == nil && read < kept; {
		var p Page
		if p, err = l.Read(&at); len(p.Records) == 0 || len(p.Records)*size > maxPageBytes {
			t.Fatalf("got a page of %d records of %d bytes, want at least one and at most %d bytes", len(p.Records), size, maxPageBytes)
		}
		read += uint64(len(p.Records))
	}
	if err != nil || at.Sequence() != n {
		t.Errorf("got sequence %d, %v at the end; want %d", at.Sequence(), err, n)
	}
	for range 5000 { // more than fit into the ring
		publish(1)
	}
	if l.bytes != 4096*2 {
		t.Errorf("got %d bytes counted for 4096 small records, want %d", l.bytes, 4096*2)
	}
}

// Clients of the ring get what is published and what is relayed; members get only the former, from this log.
func TestClientsGetWhatIsPublishedAndRelayed(t *testing.T) {
	l := New(8)
	l.SetLiveFeeds([]string{"a"})
	l.Relay([]kv.Invalidation{{Key: "before the first client"}})
	clients := l.ForClients()
	at, err := clients.From(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if page, err := clients.Read(&at); err != nil || !page.HasNews || !slices.Equal(page.LiveFeeds, []string{"a"}) {
		t.Errorf("got %+v, %v; want the feed that was live before as news", page, err)
	}
	l.Publish(kv.Invalidation{Key: "published"})
	l.Relay([]kv.Invalidation{{Key: "relayed"}})
	l.SetLiveFeeds([]string{"a", "b"})
	page, err := clients.Read(&at)
	if err != nil || len(page.Records) != 2 || page.Records[0].Invalidation.Key != "published" || page.Records[1].Invalidation.Key != "relayed" {
		t.Errorf("clients got %v, %v; want what was published and relayed", page.Records, err)
	}
	if !slices.Equal(page.LiveFeeds, []string{"a", "b"}) || clients.Epoch() == l.Epoch() {
		t.Errorf("got the feeds %q and the epochs %d, %d; want both feeds and an epoch of its own", page.LiveFeeds, clients.Epoch(), l.Epoch())
	}
	if n := l.Published(); n != 1 {
		t.Errorf("members got %d invalidations, want 1", n)
	}
}

func TestClientsOfARelayGetFeedsOfOthers(t *testing.T) {
	l := New(8)
	l.HearFeeds([]string{"b"})
	relayed := l.WithFeeds()
	at, err := relayed.From(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.SetLiveFeeds([]string{"b", "a"})
	l.Publish(kv.Invalidation{Key: "published"})
	l.Relay([]kv.Invalidation{{Key: "relayed"}})
	l.RelayChanges([]kv.Invalidation{{Key: "changed"}})
	page, err := relayed.Read(&at)
	var keys []string
	for _, r := range page.Records {
		keys = append(keys, r.Invalidation.Key)
	}
	if want := []string{"published", "relayed", "changed"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("got %q, %v; want %q", keys, err, want)
	}
	if !slices.Equal(page.LiveFeeds, []string{"a", "b"}) {
		t.Errorf("got the feeds %q, want those of this member and of others", page.LiveFeeds)
	}
	l.HearFeeds(nil)
	l.HearFeeds([]string{"b"})
	if page, err := relayed.Read(&at); err != nil || page.Interrupted || page.HasNews {
		t.Errorf("got %+v, %v; want no news: this member reads the feed, too", page, err)
	}
	l.SetLiveFeeds(nil)
	l.HearFeeds(nil)
	l.HearFeeds([]string{"b"})
	if page, err := relayed.Read(&at); err != nil || !page.Interrupted || !slices.Equal(page.LiveFeeds, []string{"b"}) {
		t.Errorf("got %+v, %v; want an interruption", page, err)
	}
	if n := l.Published() + l.ForClients().Published(); n != 1 {
		t.Errorf("others got %d invalidations, want 1", n)
	}
}
