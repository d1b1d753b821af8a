package ring

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"
)

// byAddr returns members whose id, hash key and address are all the same.
func byAddr(addrs ...string) []Member { return NewStatic(addrs) }

func numbered(n int, format string) []Member {
	addrs := make([]string, n)
	for i := range addrs {
		addrs[i] = fmt.Sprintf(format, i)
	}
	return byAddr(addrs...)
}

func mustNew(t testing.TB, members []Member, size Size) *Ring {
	t.Helper()
	r, err := New(members, size)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type point struct {
	hash  uint64
	owner string
}

func points(r *Ring) []point {
	var ps []point
	for hash, m := range r.Entries() {
		ps = append(ps, point{hash, m.Key()})
	}
	return ps
}

// The rings that Envoy's own test expects (test/extensions/load_balancing_policies/ring_hash/ring_hash_lb_test.cc).
func TestRingsOfEnvoysOwnTest(t *testing.T) {
	ports := func(first, last int) []Member {
		var addrs []string
		for port := first; port <= last; port++ {
			addrs = append(addrs, fmt.Sprintf("127.0.0.1:%d", port))
		}
		return byAddr(addrs...)
	}
	named := ports(90, 95)
	for i := range named {
		named[i].HashKey = fmt.Sprint(90 + i)
	}
	for _, test := range []struct {
		name    string
		members []Member
		size    Size
		want    []point
	}{
		{"Basic", ports(90, 95), Size{Min: 12}, []point{
			{833437586790550860, "127.0.0.1:94"}, {928266305478181108, "127.0.0.1:92"},
			{1033482794131418490, "127.0.0.1:90"}, {3551244743356806947, "127.0.0.1:95"},
			{3851675632748031481, "127.0.0.1:93"}, {5583722120771150861, "127.0.0.1:91"},
			{6311230543546372928, "127.0.0.1:91"}, {7700377290971790572, "127.0.0.1:93"},
			{13144177310400110813, "127.0.0.1:95"}, {13444792449719432967, "127.0.0.1:92"},
			{15516499411664133160, "127.0.0.1:94"}, {16117243373044804889, "127.0.0.1:90"},
		}},
		{"BasicWithMetadataHashKey", named, Size{Min: 12}, []point{
			{1975508444536362413, "95"}, {2376063919839173711, "95"}, {2386806903309390596, "93"},
			{6749904478991551885, "94"}, {6803900775736438537, "93"}, {7225015537174310577, "92"},
			{8787465352164086522, "90"}, {11282020843382717940, "92"}, {13723418369486627818, "91"},
			{13776502110861797421, "90"}, {14338313586354474791, "91"}, {15364271037087512980, "94"},
		}},
		{"UnevenHosts before", ports(80, 81), Size{Min: 3}, []point{
			{5454692015285649509, "127.0.0.1:80"}, {7859399908942313493, "127.0.0.1:81"},
			{13838424394637650569, "127.0.0.1:80"}, {16064866803292627174, "127.0.0.1:81"},
		}},
		{"UnevenHosts after", ports(81, 82), Size{Min: 3}, []point{
			{7859399908942313493, "127.0.0.1:81"}, {8241336090459785962, "127.0.0.1:82"},
			{12882406409176325258, "127.0.0.1:82"}, {16064866803292627174, "127.0.0.1:81"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := points(mustNew(t, test.members, test.size)); !slices.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
		})
	}
}

func TestLookupsOfEnvoysOwnTest(t *testing.T) {
	r := mustNew(t, numbered(6, "127.0.0.1:9%d"), Size{Min: 12})
	for hash, want := range map[uint64]string{
		0:                    "127.0.0.1:94",
		math.MaxUint64:       "127.0.0.1:94",
		3551244743356806947:  "127.0.0.1:95",
		3551244743356806948:  "127.0.0.1:93",
		16117243373044804880: "127.0.0.1:90",
		16117243373044804889: "127.0.0.1:90",
		16117243373044804890: "127.0.0.1:94",
	} {
		if got := r.members[r.owners[search(r.hashes, hash)]].Addr; got != want {
			t.Errorf("the owner of hash %d is %s, want %s", hash, got, want)
		}
	}
}

// Of several entries with the same hash, Envoy and gRPC find the first.
func TestSearchFindsTheFirstOfEqualHashes(t *testing.T) {
	for n := 1; n <= 40; n++ {
		hashes := make([]uint64, n)
		for i := range hashes {
			hashes[i] = uint64(i / 3 * 10)
		}
		for h := range hashes[n-1] + 2 {
			want, _ := slices.BinarySearch(hashes, h)
			if got := search(hashes, h); got != want%n {
				t.Fatalf("search(%v, %d) = %d, want %d", hashes, h, got, want%n)
			}
		}
	}
}

func TestHashIsXXH64(t *testing.T) {
	for s, want := range map[string]uint64{
		"":    17241709254077376921,
		"foo": 3728699739546630719,
		"bar": 5234164152756840025,
	} {
		if got := Hash(s); got != want {
			t.Errorf("Hash(%q) = %d, want %d", s, got, want)
		}
	}
}

// The digests come from two other implementations: a real Envoy and grpc-go build these rings (DESIGN.md).
func TestDigestsOfRings(t *testing.T) {
	for _, test := range []struct {
		n, entries int
		digest     string
		owners     map[string]string
	}{
		{3, 1026, "0107fbe4a96157ee", nil},
		{5, 1025, "81a13af4f6d20d81", map[string]string{
			"user:1": "cache-004", "user:2": "cache-001", "user:3": "cache-002",
		}},
	} {
		r := mustNew(t, numbered(test.n, "cache-%03d"), Size{})
		sum := sha256.New()
		entries := 0
		for hash, m := range r.Entries() {
			fmt.Fprintf(sum, "%d %s\n", hash, m.Key())
			entries++
		}
		if entries != test.entries {
			t.Errorf("N=%d: %d entries, want %d", test.n, entries, test.entries)
		}
		if got := hex.EncodeToString(sum.Sum(nil)[:8]); got != test.digest {
			t.Errorf("N=%d: digest %s, want %s", test.n, got, test.digest)
		}
		for key, want := range test.owners {
			if got := r.Owner(key).ID; got != want {
				t.Errorf("N=%d: %s is owned by %s, want %s", test.n, key, got, want)
			}
		}
	}
}

// countsExact computes Envoy's sums with math/big at float64's precision of 53 bits, which no compiler can fuse.
func countsExact(n int, size Size) []int {
	num := func(x float64) *big.Float { return new(big.Float).SetPrec(53).SetFloat64(x) }
	weight := num(0).Quo(num(1), num(float64(n)))
	perMember, _ := num(0).Mul(weight, num(float64(size.Min))).Float64()
	scale := num(0).Quo(num(math.Ceil(perMember)), weight)
	if limit := num(float64(size.Max)); scale.Cmp(limit) > 0 {
		scale = limit
	}
	counts := make([]int, n)
	current, target := num(0), num(0)
	for m := range counts {
		target.Add(target, num(0).Mul(scale, weight))
		for ; current.Cmp(target) < 0; current.Add(current, num(1)) {
			counts[m]++
		}
	}
	return counts
}

func countsOf(r *Ring) []int {
	counts := make([]int, r.Len())
	for _, m := range r.owners {
		counts[m]++
	}
	return counts
}

// Because of rounding, some members have one entry more or less; each step of the sums matters.
func TestEntriesPerMemberAreRoundedLikeEnvoys(t *testing.T) {
	for _, size := range []Size{{1024, 4096}, {1000, 1000}, {12, 64}, {1, 1}, {1 << 16, MaxSize}} {
		for _, n := range []int{1, 2, 3, 5, 10, 11, 35, 49, 75, 99, 100, 105, 364, 500, 1025, 3000, 4096, 4097, 10000} {
			members := numbered(n, "%05d")
			want := countsExact(n, size)
			if got := countsOf(mustNew(t, members, size)); !slices.Equal(got, want) {
				t.Errorf("N=%d, %v: entries per member\ngot  %v\nwant %v", n, size, got, want)
			}
		}
	}
}

// A fused multiply-add rounds once instead of twice. On a processor that has it (arm64, or GOAMD64=v3) this fails
// without the conversion in place.
func TestFusedMultiplyAddWouldMoveEntries(t *testing.T) {
	const n = 35
	size := Size{Min: 1000, Max: 1000}
	want := countsExact(n, size)
	if got := countsOf(mustNew(t, numbered(n, "%05d"), size)); !slices.Equal(got, want) {
		t.Errorf("entries per member\ngot  %v\nwant %v", got, want)
	}
	weight := 1 / float64(n)
	scale := min(math.Ceil(weight*float64(size.Min))/weight, float64(size.Max))
	fused := make([]int, n)
	var current, target float64
	for m := range fused {
		target = math.FMA(scale, weight, target)
		for ; current < target; current++ {
			fused[m]++
		}
	}
	if slices.Equal(fused, want) {
		t.Error("fused sums give the same ring: this N and size prove nothing")
	}
}

// Two members with equal hashes are not known, so the test calls sorted with such entries.
func TestEqualHashesAreOrderedByHashKey(t *testing.T) {
	entries := []entry{{7, 2}, {7, 0}, {3, 1}, {7, 1}}
	hashes, owners := sorted(entries)
	if !slices.Equal(hashes, []uint64{3, 7, 7, 7}) || !slices.Equal(owners, []uint32{1, 0, 1, 2}) {
		t.Errorf("got %v owned by %v", hashes, owners)
	}
}
