package hotkeys

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// fetch counts a second of fetches of key, evenly.
func fetch(t *Tracker, key string, perSecond int) (rate uint32) {
	for range perSecond {
		rate = t.Count("d", key, 1)
		time.Sleep(time.Second / time.Duration(perSecond))
	}
	return rate
}

func TestRateOfAHotKeyIsReportedUntilItIsCold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New()
		for range 10 {
			if rate := fetch(tr, "k", Threshold-10); rate != 0 {
				t.Fatalf("got rate %d below the threshold, want 0", rate)
			}
		}
		for range 10 {
			fetch(tr, "k", 4*Threshold)
		}
		if rate := tr.Count("d", "k", 1); rate < 3.9*Threshold || rate > 4.1*Threshold {
			t.Errorf("got rate %d, want about %d", rate, 4*Threshold)
		}
		for range 20 { // as when copies live four times as long
			if rate := fetch(tr, "k", Threshold/4); rate == 0 {
				t.Fatal("the key is cold at a quarter of the threshold, want hot")
			}
		}
		for range 10 {
			fetch(tr, "k", Threshold/coldShare-2)
		}
		if rate := tr.Count("d", "k", 1); rate != 0 || len(tr.Hot(1)) != 0 {
			t.Errorf("got rate %d, %v below the lower threshold, want none", rate, tr.Hot(1))
		}
		time.Sleep(time.Minute)
		if tr.Rate("d", "k"); len(tr.keys) != 0 || len(tr.index) != 0 {
			t.Errorf("got %v a minute later, want nothing", tr.keys)
		}
	})
}

func TestHerdIsHotAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New()
		for i := range 2 * Threshold {
			if rate := tr.Count("d", "k", 1); (rate != 0) != (i == 2*Threshold-1) {
				t.Fatalf("fetch %d: got rate %d", i, rate)
			}
		}
		if rate := tr.Count("d", "relayed", 2*Threshold); rate != Threshold {
			t.Errorf("got rate %d of many relayed fetches, want %d", rate, Threshold)
		}
	})
}

// Space-Saving attributes the counts of removed keys to new ones; a key must not be hot because of that.
func TestOnlyHotKeysAreHotAmongManyRareOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, random := New(), rand.New(rand.NewPCG(1, 1))
		for n := range 300_000 {
			key := fmt.Sprint("rare-", n)
			if random.IntN(50) == 0 { // 600 per second of 30 000
				key = "hot"
			}
			if rate := tr.Count("d", key, 1); rate != 0 && key != "hot" {
				t.Fatalf("the key %q is hot: %d", key, rate)
			}
			time.Sleep(time.Second / 30_000)
		}
		hot := tr.Hot(5)
		if len(hot) != 1 || hot[0].Key != "hot" || hot[0].Rate < 400 || hot[0].Rate > 800 {
			t.Errorf("got %v, want the hot key with about 600 per second", hot)
		}
		if len(tr.keys) > Tracked || len(tr.index) != len(tr.keys) {
			t.Errorf("%d keys, %d in the index; want at most %d", len(tr.keys), len(tr.index), Tracked)
		}
		for i, k := range tr.keys {
			if tr.index[k.id] != i {
				t.Fatalf("key %d has the index %d", i, tr.index[k.id])
			}
		}
	})
}

func TestListIsLimitedAndSorted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New()
		for i := range Tracked {
			tr.Count("d", strings.Repeat("k", kv.MaxKeyBytes-i), uint32(2*Threshold+i))
		}
		list := tr.Hot(20)
		if len(list) != 20 || list[0].Rate < list[1].Rate || len(list[0].Key) != kv.MaxKeyBytes-Tracked+1 {
			t.Errorf("got %d keys, the first of %d bytes; want %d, and the one with the highest rate", len(list), len(list[0].Key), 20)
		}
	})
}

func TestTrackerKeepsNoMemoryOfItsCaller(t *testing.T) {
	tr, buf := New(), []byte("key-1")
	tr.Count("d", unsafe.String(&buf[0], len(buf)), 1)
	copy(buf, "other")
	if n := testing.AllocsPerRun(100, func() { tr.Count("d", "key-1", 1) }); n != 0 {
		t.Errorf("got %v allocations for a key that is counted, want 0", n)
	}
}

func TestReportedKeys(t *testing.T) {
	var r Reported
	if r.Learn("k", 0, 1); r.Hot("k", 1) || r.Relay("k", 1) != 0 {
		t.Error("a key is hot that nobody has reported")
	}
	r.Learn("k", 300, 1)
	if !r.Hot("k", 2) || r.Relay("k", 2) != 300 || r.Relay("k", 3) != 300 {
		t.Error("a reported key is not hot")
	}
	r.Learn("k", 200, 4)
	if n := r.TakeRelayed("k", 5); n != 2 {
		t.Errorf("got %d relayed fetches, want 2", n)
	}
	if n := r.TakeRelayed("k", 5); n != 0 {
		t.Errorf("got %d relayed fetches again, want 0", n)
	}
	if r.Hot("k", 5+int64(reportedFor)) {
		t.Error("a report counts for longer than its time")
	}
	if r.Learn("k", 0, 6); r.Hot("k", 7) {
		t.Error("a key is hot that its owner has reported to be cold")
	}
	for i := range 1000 {
		r.Learn(fmt.Sprint(i), 100, 8)
	}
	if n := r.keys.Len(); n > 2*maxReported {
		t.Errorf("got %d keys, want at most %d", n, 2*maxReported)
	}
}

func BenchmarkCount(b *testing.B) {
	b.Run("one key", func(b *testing.B) {
		tr := New()
		for b.Loop() {
			tr.Count("d", "k", 1)
		}
	})
	b.Run("many keys", func(b *testing.B) {
		tr, keys := New(), make([]string, 10_000)
		for i := range keys {
			keys[i] = fmt.Sprint("key-", i)
		}
		for i := 0; b.Loop(); i++ {
			tr.Count("d", keys[i%len(keys)], 1)
		}
	})
}
