package ring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewRejectsInvalidMembersAndSizes(t *testing.T) {
	for _, test := range []struct {
		name    string
		members []Member
		size    Size
		want    string
	}{
		{"two with one id", []Member{{ID: "a", Addr: "10.0.0.1:1"}, {ID: "a", Addr: "10.0.0.2:1"}}, Size{},
			`the members with hash keys "10.0.0.1:1" and "10.0.0.2:1" have the same id "a"`},
		{"two with one address", []Member{{ID: "a", Addr: "10.0.0.1:1"}, {ID: "b", Addr: "10.0.0.1:1"}}, Size{},
			`have the same hash key "10.0.0.1:1"`},
		{"hash key of one is the address of another",
			[]Member{{ID: "a", HashKey: "b:1", Addr: "a:1"}, {ID: "b", Addr: "b:1"}}, Size{},
			`members "a" and "b" have the same hash key "b:1"`},
		{"no id", []Member{{Addr: "10.0.0.1:1"}}, Size{}, `the member with hash key "10.0.0.1:1" has no id`},
		{"no hash key", []Member{{ID: "a"}}, Size{}, `member "a" has neither a hash key nor an address`},
		{"minimum above maximum", nil, Size{Min: 20, Max: 10}, "minimum size 20 is above the maximum size 10"},
		{"minimum above the default maximum", nil, Size{Min: 5000}, "minimum size 5000 is above the maximum size 4096"},
		{"maximum above Envoy's bound", nil, Size{Max: MaxSize + 1}, "maximum size 8388609 is above 8388608"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := New(test.members, test.size)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want an error with %q", r, err, test.want)
			}
		})
	}
}

func TestEmptyAndNilRingsOwnNothing(t *testing.T) {
	onlyLeaving := mustNew(t, []Member{{ID: "a", Addr: "a:1", Leaving: true}}, Size{})
	for name, r := range map[string]*Ring{
		"nil": nil, "no members": mustNew(t, nil, Size{}), "only leaving": onlyLeaving,
	} {
		t.Run(name, func(t *testing.T) {
			if m := r.Owner("d/k"); m != nil {
				t.Errorf("Owner: %v", m)
			}
			for m := range r.Successors("d/k") {
				t.Errorf("Successors: %v", m)
			}
			for hash, m := range r.Entries() {
				t.Errorf("Entries: %d %v", hash, m)
			}
			if m := r.Member("a"); m != nil {
				t.Errorf("Member: %v", m)
			}
			if len(r.Members()) != 0 || r.Len() != 0 || r.ID() != 0 {
				t.Errorf("Members %v, Len %d, ID %d", r.Members(), r.Len(), r.ID())
			}
		})
	}
}

func TestLeavingMembersAreNotOnTheRing(t *testing.T) {
	members := numbered(5, "10.0.0.%d:7072")
	want := mustNew(t, slices.Delete(slices.Clone(members), 2, 3), Size{})
	members[2].Leaving = true
	// The next process may already have its name.
	members = append(members, Member{ID: members[2].ID, Addr: members[2].Addr, Leaving: true})
	got := mustNew(t, members, Size{})
	if !slices.Equal(points(got), points(want)) || got.ID() != want.ID() {
		t.Error("the ring differs from one that never had the leaving member")
	}
}

func TestMembers(t *testing.T) {
	members := []Member{
		{ID: "pod-1", Addr: "10.0.0.9:7072", Zone: "b"},
		{ID: "pod-2", HashKey: "10.0.0.10:7072", Addr: "10.0.0.3:7072", Started: time.Unix(1, 0)},
		{ID: "pod-0", Addr: "10.0.0.2:7072"},
	}
	r := mustNew(t, members, Size{})
	// Bytewise: "10.0.0.10:…" is before "10.0.0.2:…".
	if want := []Member{members[1], members[2], members[0]}; !slices.Equal(r.Members(), want) {
		t.Errorf("Members() = %v, want %v", r.Members(), want)
	}
	for _, want := range members {
		if got := r.Member(want.ID); got == nil || *got != want {
			t.Errorf("Member(%q) = %v, want %v", want.ID, got, want)
		}
	}
	for _, id := range []string{"", "pod", "pod-00", "pod-3"} {
		if m := r.Member(id); m != nil {
			t.Errorf("Member(%q) = %v", id, m)
		}
	}
}

func TestRingSharesNothingWithItsCaller(t *testing.T) {
	members := numbered(3, "10.0.0.%d:7072")
	r := mustNew(t, members, Size{})
	want := *r.Owner("d/k")
	members[0], members[1], members[2] = Member{}, Member{}, Member{}
	clear(r.Members())
	if got := *r.Owner("d/k"); got != want {
		t.Errorf("the owner was %v and is %v", want, got)
	}
}

func TestIDDependsOnMembersAndSize(t *testing.T) {
	base := func() []Member {
		return []Member{{ID: "a", Addr: "a:1"}, {ID: "b", HashKey: "bb", Addr: "b:1"}, {ID: "c", Addr: "c:1"}}
	}
	id := mustNew(t, base(), Size{}).ID()
	for _, test := range []struct {
		name   string
		same   bool
		size   Size
		change func(m []Member) []Member
	}{
		{"another order", true, Size{}, func(m []Member) []Member { m[0], m[2] = m[2], m[0]; return m }},
		{"what people read", true, Size{}, func(m []Member) []Member {
			m[0].Zone, m[0].Version, m[0].Started = "z", "v1", time.Unix(1, 0)
			return m
		}},
		{"the default size by name", true, DefaultSize(), func(m []Member) []Member { return m }},
		{"the address as hash key", true, Size{}, func(m []Member) []Member { m[0].HashKey = m[0].Addr; return m }},
		{"one more that leaves", true, Size{}, func(m []Member) []Member {
			return append(m, Member{ID: "d", Addr: "d:1", Leaving: true})
		}},
		{"one more", false, Size{}, func(m []Member) []Member { return append(m, Member{ID: "d", Addr: "d:1"}) }},
		{"one less", false, Size{}, func(m []Member) []Member { return m[:2] }},
		{"another id", false, Size{}, func(m []Member) []Member { m[0].ID = "x"; return m }},
		{"another hash key", false, Size{}, func(m []Member) []Member { m[1].HashKey = "x"; return m }},
		{"another address", false, Size{}, func(m []Member) []Member { m[1].Addr = "x:1"; return m }},
		{"ids exchanged", false, Size{}, func(m []Member) []Member { m[0].ID, m[1].ID = "b", "a"; return m }},
		{"a letter moved from id to hash key", false, Size{}, func(m []Member) []Member {
			m[1].ID, m[1].HashKey = "bb", "b"
			return m
		}},
		{"another minimum", false, Size{Min: 1025}, func(m []Member) []Member { return m }},
		{"another maximum", false, Size{Max: 4097}, func(m []Member) []Member { return m }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := mustNew(t, test.change(base()), test.size).ID(); (got == id) != test.same {
				t.Errorf("ID %x, before %x; want the same: %t", got, id, test.same)
			}
		})
	}
}

// The definition: walk all entries, beginning at the hash of the key.
func successorsSlowly(r *Ring, routeKey string) []string {
	ps := points(r)
	first := 0
	for first < len(ps) && ps[first].hash < Hash(routeKey) {
		first++
	}
	var order []string
	seen := make(map[string]bool)
	for i := range ps {
		if owner := ps[(first+i)%len(ps)].owner; !seen[owner] {
			seen[owner] = true
			order = append(order, owner)
		}
	}
	return order
}

func TestSuccessors(t *testing.T) {
	for _, test := range []struct {
		n    int
		size Size
	}{
		{1, Size{}}, {2, Size{}}, {3, Size{}}, {64, Size{}}, {65, Size{}}, {4096, Size{}},
		{4097, Size{Min: 8192, Max: 8192}}, // more than the bitset on the stack has
		{40, Size{Min: 8, Max: 8}},         // most own nothing
	} {
		r := mustNew(t, numbered(test.n, "10.0.0.%d:7072"), test.size)
		for _, key := range routeKeys(5) {
			var got []string
			for m := range r.Successors(key) {
				got = append(got, m.Key())
			}
			if want := successorsSlowly(r, key); !slices.Equal(got, want) {
				t.Errorf("N=%d: successors of %s\ngot  %v\nwant %v", test.n, key, got, want)
			}
			if owner := r.Owner(key).Key(); owner != got[0] {
				t.Errorf("N=%d: Owner(%s) is %s, the first successor is %s", test.n, key, owner, got[0])
			}
		}
	}
}

// second returns the successor, which loads when the owner is unreachable.
func second(r *Ring, routeKey string) *Member {
	owner := true
	for m := range r.Successors(routeKey) {
		if !owner {
			return m
		}
		owner = false
	}
	return nil
}

func TestLookupsDoNotAllocate(t *testing.T) {
	r := mustNew(t, numbered(4096, "10.0.0.%d:7072"), Size{})
	for name, lookup := range map[string]func(){
		"Owner":      func() { r.Owner("cnf-metrics/CNF-001") },
		"Successors": func() { second(r, "cnf-metrics/CNF-001") },
		"Member":     func() { r.Member("10.0.0.7:7072") },
	} {
		if n := testing.AllocsPerRun(100, lookup); n != 0 {
			t.Errorf("%s: %g allocations, want 0", name, n)
		}
	}
}

// A member builds a ring of up to MaxSize entries at each change of members; a string for each would dominate the cost.
func TestNewDoesNotAllocateForEachEntry(t *testing.T) {
	members := numbered(3, "10.0.0.%d:7072")
	few := testing.AllocsPerRun(10, func() { mustNew(t, members, Size{Min: 3}) })
	many := testing.AllocsPerRun(10, func() { mustNew(t, members, Size{Min: 4000}) })
	if many > few {
		t.Errorf("%g allocations for 3 entries, %g for 4000", few, many)
	}
}

// FuzzNew builds rings of arbitrary members: New returns an error, or a valid ring.
func FuzzNew(f *testing.F) {
	f.Add("10.0.0.1:7072 10.0.0.2:7072 10.0.0.3:7072", uint64(0), uint64(0), uint64(1))
	f.Add("a a_1 a_1_0 b", uint64(12), uint64(64), uint64(2))
	f.Add("a a", uint64(1), uint64(1), uint64(3))
	f.Add("a  b", uint64(1), uint64(1), uint64(3))
	f.Add("1 2 3 4 5 6 7 8 9", uint64(2), uint64(4), uint64(4))
	f.Add("", uint64(0), uint64(0), uint64(5))
	f.Fuzz(func(t *testing.T, names string, minSize, maxSize, seed uint64) {
		size := Size{Min: minSize % 5000, Max: maxSize % 5000}
		members := byAddr(strings.Split(names, " ")...)
		r, err := New(members, size)
		rnd := rand.New(rand.NewPCG(seed, 0))
		rnd.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		shuffled, shuffledErr := New(members, size)
		if (err == nil) != (shuffledErr == nil) {
			t.Fatalf("%v, but in another order %v", err, shuffledErr)
		}
		if err != nil {
			return
		}
		if r.ID() != shuffled.ID() {
			t.Errorf("ID %x, but in another order %x", r.ID(), shuffled.ID())
		}
		for range 20 {
			checkKey(t, r, shuffled, fmt.Sprint(rnd.Uint64()))
		}
	})
}

func checkKey(t *testing.T, r, shuffled *Ring, routeKey string) {
	owner := r.Owner(routeKey)
	if r.Member(owner.ID) != owner {
		t.Errorf("the owner %v of %s is not a member", owner, routeKey)
	}
	if other := shuffled.Owner(routeKey); *owner != *other {
		t.Errorf("%s is owned by %v, but in another order of members by %v", routeKey, owner, other)
	}
	seen := make(map[*Member]bool)
	for m := range r.Successors(routeKey) {
		if seen[m] {
			t.Errorf("successors of %s: %v comes twice", routeKey, m)
		}
		seen[m] = true
	}
	if !seen[owner] || len(seen) > r.Len() {
		t.Errorf("%d successors of %s among %d members, with the owner: %t", len(seen), routeKey, r.Len(), seen[owner])
	}
}
