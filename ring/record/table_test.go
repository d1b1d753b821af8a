package record

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/ring"
)

func member(id string, n int) ring.Member {
	return ring.Member{
		ID: id, Addr: fmt.Sprintf("10.0.%d.%d:7072", n>>8, n&255), Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
}

func TestTableResolvesConflictsDeterministically(t *testing.T) {
	value := func(m ring.Member) []byte {
		b, err := json.Marshal(record(m))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	old, young, leaving := member("old", 1), member("young", 1), member("leaving", 1)
	leaving.Leaving = true
	sameKey := member("same-key", 2)
	sameKey.HashKey = young.Addr
	for name, tc := range map[string]struct {
		puts       []ring.Member // in the order of their revisions
		want       []ring.Member
		duplicates int
	}{
		"the later one has the address":     {[]ring.Member{old, young}, []ring.Member{young}, 1},
		"the later one has the hash key":    {[]ring.Member{sameKey, young}, []ring.Member{young}, 1},
		"not the order of ids":              {[]ring.Member{young, old}, []ring.Member{old}, 1},
		"a leaving member has no conflicts": {[]ring.Member{young, leaving}, []ring.Member{leaving, young}, 0},
		"two leaving members":               {[]ring.Member{leaving, young}, []ring.Member{leaving, young}, 0},
		"of three, the latest has it alone": {[]ring.Member{old, sameKey, young}, []ring.Member{young}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var rejected []Reason
			tab := NewTable("p/", func(r *Rejection) { rejected = append(rejected, r.Reason) })
			for i, m := range tc.puts {
				tab.Put("p/"+m.ID, value(m), int64(i+1))
			}
			if got := tab.Members(); !slices.Equal(got, tc.want) {
				t.Errorf("got members %v, want %v", got, tc.want)
			}
			if got := len(rejected); got != tc.duplicates {
				t.Errorf("got %d duplicates, want %d", got, tc.duplicates)
			}
		})
	}
}

func TestTableIsLimited(t *testing.T) {
	var rejected []Reason
	tab := NewTable("", func(r *Rejection) { rejected = append(rejected, r.Reason) })
	put := func(i int) {
		m := member(fmt.Sprintf("m%05d", i), i+1)
		full, _, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		tab.Put(m.ID, []byte(full), int64(i+1))
	}
	for i := range MaxMembers + 5 {
		put(i)
	}
	put(0) // an update of a listed member
	if len(tab.listed) != MaxMembers || !slices.Equal(rejected, slices.Repeat([]Reason{TooMany}, 5)) {
		t.Errorf("got %d listed, rejected %v; want %d and 5", len(tab.listed), rejected, MaxMembers)
	}
}

// BenchmarkTable parses a full list of the largest directory and sorts its members.
func BenchmarkTable(b *testing.B) {
	values := make(map[string][]byte, MaxMembers)
	for i := range MaxMembers {
		m := member(fmt.Sprintf("pod-%05d", i), i+1)
		value, err := json.Marshal(record(m))
		if err != nil {
			b.Fatal(err)
		}
		values[m.ID] = value
	}
	b.ReportAllocs()
	for b.Loop() {
		t := NewTable("", func(r *Rejection) { b.Error(r) })
		for id, value := range values {
			t.Put(id, value, 1)
		}
		if got := len(t.Members()); got != MaxMembers {
			b.Fatalf("%d members", got)
		}
	}
}
