package grpcapi

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// memory is a dataset of answers that do not age. A key without one is not found.
type memory struct {
	answers map[string]kv.Answer
	stats   kv.Stats
	limit   kv.BatchLimit // of the last GetMany
}

func (m *memory) Name() string     { return "rows" }
func (m *memory) Stats() *kv.Stats { return &m.stats }

func (m *memory) Cached(key string, o kv.ReadOptions) (kv.Answer, bool) {
	if key == "panic" {
		panic("a defect")
	}
	a, ok := m.answers[key]
	return a, ok && !o.NoCache && o.Admits(a.Version)
}

func (m *memory) Get(_ context.Context, key string, o kv.ReadOptions) (kv.Answer, error) {
	if a, ok := m.Cached(key, o); ok {
		return a, nil
	}
	return kv.Answer{NotFound: true}, nil
}

func (m *memory) GetMany(ctx context.Context, keys []string, o kv.ReadOptions, limit kv.BatchLimit) []kv.Result {
	m.limit = limit
	results := make([]kv.Result, len(keys))
	for i, key := range keys {
		results[i].Answer, results[i].Err = m.Get(ctx, key, o)
	}
	return results
}

func (m *memory) Write(context.Context, kv.Change) (kv.Answer, error) { return kv.Answer{}, nil }
func (m *memory) WriteMany(context.Context, []kv.Change) []kv.Result  { return nil }
func (m *memory) Append(context.Context, []byte, string) (kv.Appended, error) {
	return kv.Appended{}, nil
}
func (m *memory) Invalidate(context.Context, kv.Scope) (kv.InvalidateResult, error) {
	return kv.InvalidateResult{}, nil
}
func (m *memory) CachedKeys(int) ([]string, int) { return nil, 1 }
func (m *memory) Watch([]string) *watches.Watch  { return nil }

func (m *memory) WatchRange(string) *watches.Range { return nil }

func (m *memory) FeedLive() (live, has bool) { return false, false }

func (m *memory) Policy() kv.Policy { return kv.DefaultPolicy() }

// pair is a Fast and the service that it must be equal to.
type pair struct {
	*memory
	fast    *Fast
	service *service
}

func newPair(tb testing.TB, config api.Config, answers map[string]kv.Answer) *pair {
	m := &memory{answers: answers}
	b := api.NewBackend(tb.Context(), config, api.NewCatalog(api.Served{Dataset: m}))
	return &pair{m, NewFast(b, new(api.Protocol)), newService(b, nil, new(api.Protocol), false)}
}

// slow answers a message as the gRPC server does: with the generated code and the service.
func (p *pair) slow(path string, message []byte) ([]byte, error) {
	switch path {
	case ringsidev1.Cache_Get_FullMethodName:
		return call(message, new(ringsidev1.GetRequest), p.service.Get)
	case ringsidev1.Cache_BatchGet_FullMethodName:
		return call(message, new(ringsidev1.BatchGetRequest), p.service.BatchGet)
	}
	return call(message, new(groupcachepb.GetRequest), (&groupCache{service: p.service}).Get)
}

func call[Q, R proto.Message](message []byte, q Q, method func(context.Context, Q) (R, error)) ([]byte, error) {
	if err := proto.Unmarshal(message, q); err != nil {
		return nil, err
	}
	r, err := method(context.Background(), q)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(r)
}

var fastPaths = []string{
	ringsidev1.Cache_Get_FullMethodName, ringsidev1.Cache_BatchGet_FullMethodName, groupcachepb.GroupCache_Get_FullMethodName,
}

// check compares both servers and reports whether Fast answered.
func (p *pair) check(t *testing.T, path string, message []byte) bool {
	t.Helper()
	prefix := []byte("before")
	got, ok := p.fast.Append(t.Context(), h2.Call{Path: path}, message, bytes.Clone(prefix), fastLimit)
	if !ok {
		return false
	}
	want, err := p.slow(path, message)
	if err != nil {
		t.Fatalf("%s %q: got a response; the service returns %v", path, message, err)
	}
	if !bytes.Equal(got, append(prefix, want...)) {
		t.Fatalf("%s %q:\n got %q\nwant %q after %q", path, message, got, want, prefix)
	}
	return true
}

func randomAnswer(r *rand.Rand) kv.Answer {
	text := func(n int) string { return strings.Repeat("é", r.IntN(n)) }
	a := kv.Answer{
		Value: bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(1<<r.IntN(15))), ETag: text(100), Owner: text(100),
		Age: time.Duration(r.Int64N(1 << r.IntN(62))), Fresh: time.Duration(r.Int64N(1 << r.IntN(62))),
		Version: r.Int64N(1 << r.IntN(62)), Source: kv.Source(1 + r.IntN(2)),
	}
	if r.IntN(8) == 0 {
		a.Age, a.Fresh = -a.Age, -a.Fresh // the entry has arrived while it was read
	}
	if r.IntN(8) == 0 {
		a.Version = math.MaxInt64 - r.Int64N(2)
	}
	return a
}

// TestFastAnswersAsTheServiceDoes compares the responses to random requests for random entries, byte by byte.
func TestFastAnswersAsTheServiceDoes(t *testing.T) {
	const seed, rounds = 15, 20_000
	r := rand.New(rand.NewPCG(seed, seed))
	answered := map[string]int{}
	for range rounds {
		p := newPair(t, api.Config{}, map[string]kv.Answer{"a": randomAnswer(r), "é": randomAnswer(r)})
		key := func() string { return []string{"a", "a", "a", "é", "é", "absent"}[r.IntN(6)] }
		keys := []string{key()}
		for r.IntN(3) != 0 {
			keys = append(keys, key())
		}
		path := fastPaths[r.IntN(len(fastPaths))]
		var q proto.Message
		switch path {
		case ringsidev1.Cache_Get_FullMethodName:
			q = &ringsidev1.GetRequest{Dataset: "rows", Key: key(), OnlyIfCached: r.IntN(2) == 0, NoCache: r.IntN(8) == 0,
				MinVersion: r.Int64N(3) * r.Int64N(1<<r.IntN(62))}
		case ringsidev1.Cache_BatchGet_FullMethodName:
			q = &ringsidev1.BatchGetRequest{Dataset: "rows", Keys: keys}
		default:
			q = &groupcachepb.GetRequest{Group: "rows", Key: key()}
		}
		message, err := proto.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if p.check(t, path, message) {
			answered[path]++
		}
	}
	for _, path := range fastPaths {
		if answered[path] < rounds/12 {
			t.Errorf("%s: %d responses of %d requests; want at least %d", path, answered[path], rounds/3, rounds/12)
		}
	}
}

// FuzzFast sends any message: Fast answers none that the service rejects, and all others with the same bytes.
func FuzzFast(f *testing.F) {
	for i, q := range []proto.Message{
		&ringsidev1.GetRequest{Dataset: "rows", Key: "a", OnlyIfCached: true, MinVersion: 7},
		&ringsidev1.BatchGetRequest{Dataset: "rows", Keys: []string{"a", "é", "a"}},
		&groupcachepb.GetRequest{Group: "rows", Key: "é"},
	} {
		seed, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), seed)
		f.Add(uint8(i+1), seed)
		f.Add(uint8(i), append(seed, seed...))
	}
	p := newPair(f, api.Config{}, map[string]kv.Answer{
		"a": {Value: []byte("value"), Version: 7, ETag: `"e"`, Age: 1500 * time.Millisecond, Fresh: time.Hour, Source: kv.SourceHit},
		"é": {Age: time.Second, Source: kv.SourceLocalHit, Owner: "n2"},
	})
	f.Fuzz(func(t *testing.T, which uint8, message []byte) {
		path := fastPaths[int(which)%len(fastPaths)]
		answered := p.check(t, path, message)
		if _, err := p.slow(path, message); err == nil && !answered && usual(path, message) {
			t.Errorf("%s %q: not answered", path, message)
		}
	})
}

// usual reports whether Fast has to answer a message that the service answers: it is as the generated code encodes it, and
// requires nothing but what memory has.
func usual(path string, message []byte) bool {
	switch path {
	case ringsidev1.Cache_Get_FullMethodName:
		q := new(ringsidev1.GetRequest)
		return canonical(q, message) && !q.NoCache && q.MaxStale == nil
	case ringsidev1.Cache_BatchGet_FullMethodName:
		q := new(ringsidev1.BatchGetRequest)
		absent := func(key string) bool { return key != "a" && key != "é" }
		return canonical(q, message) && len(q.Keys) <= maxFastKeys && !slices.ContainsFunc(q.Keys, absent)
	}
	return canonical(new(groupcachepb.GetRequest), message)
}

// canonical decodes a message, and reports whether it is as the generated code encodes it.
func canonical(q proto.Message, message []byte) bool {
	if proto.Unmarshal(message, q) != nil || len(q.ProtoReflect().GetUnknown()) != 0 {
		return false
	}
	again, err := proto.Marshal(q)
	return err == nil && bytes.Equal(again, message)
}

func get(dataset, key string) []byte {
	b := protowire.AppendTag(nil, numDataset, protowire.BytesType)
	b = protowire.AppendString(b, dataset)
	b = protowire.AppendTag(b, numKey, protowire.BytesType)
	return protowire.AppendString(b, key)
}

func batchOf(keys ...string) []byte {
	b, err := proto.Marshal(&ringsidev1.BatchGetRequest{Dataset: "rows", Keys: keys})
	if err != nil {
		panic(err)
	}
	return b
}

// TestFastLeavesToTheServer lists what Fast does not answer, and must not count.
func TestFastLeavesToTheServer(t *testing.T) {
	const getPath, batchPath, groupPath = ringsidev1.Cache_Get_FullMethodName, ringsidev1.Cache_BatchGet_FullMethodName,
		groupcachepb.GroupCache_Get_FullMethodName
	p := newPair(t, api.Config{MaxBatchBytes: 1000}, map[string]kv.Answer{
		"a": {Value: []byte("v"), Version: 7, Source: kv.SourceHit}, "large": {Value: make([]byte, 17<<10), Source: kv.SourceHit},
		"half": {Value: make([]byte, 600), Source: kv.SourceHit}, "owner": {Owner: "\xff", Source: kv.SourceLocalHit},
		"etag": {ETag: "\xff", Source: kv.SourceHit}, "\xff": {Value: []byte("v"), Source: kv.SourceHit},
	})
	for _, c := range []struct {
		name, path string
		message    []byte
	}{
		{"empty message", getPath, nil},
		{"another dataset", getPath, get("other", "a")},
		{"no dataset", getPath, get("", "a")},
		{"not in memory", getPath, get("rows", "b")},
		{"no key", getPath, get("rows", "")},
		{"key that is not UTF-8", getPath, get("rows", "\xff")},
		{"dataset that is not UTF-8", getPath, get("\xff", "a")},
		{"key twice", getPath, append(get("rows", "a"), "\x12\x01a"...)},
		{"dataset twice", getPath, append(get("rows", "a"), "\x0a\x04rows"...)},
		{"unknown field", getPath, append(get("rows", "a"), 0x38, 1)},
		{"unknown field of a large number", getPath, append(get("rows", "a"), 0xf8, 0xff, 0xff, 0xff, 0x0f, 1)},
		{"field number 0", getPath, append(get("rows", "a"), 0x00, 1)},
		{"key of another type", getPath, []byte("\x0a\x04rows\x10\x01")},
		{"group", getPath, append(get("rows", "a"), 0x1b, 0x1c)},
		{"cut off", getPath, get("rows", "a")[:8]},
		{"cut off in a varint", getPath, append(get("rows", "a"), 0x20, 0x80)},
		{"varint of 11 bytes", getPath, append(append(get("rows", "a"), 0x20), bytes.Repeat([]byte{0xff}, 11)...)},
		{"no_cache", getPath, append(get("rows", "a"), 0x18, 1)},
		{"max_stale", getPath, append(get("rows", "a"), 0x32, 0)},
		{"negative version", getPath, append(get("rows", "a"), "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"...)},
		{"later version", getPath, append(get("rows", "a"), 0x28, 8)},
		{"value of 17 KiB", getPath, get("rows", "large")},
		{"owner that is not UTF-8", getPath, get("rows", "owner")},
		{"ETag that is not UTF-8", getPath, get("rows", "etag")},
		{"panic", getPath, get("rows", "panic")},
		{"old protocol: value of 17 KiB", groupPath, get("rows", "large")},
		{"old protocol: field 4", groupPath, append(get("rows", "a"), 0x20, 1)},
		{"batch of nothing", batchPath, []byte("\x0a\x04rows")},
		{"batch with one miss", batchPath, batchOf("a", "a", "b")},
		{"batch over its limit", batchPath, batchOf("half", "half")},
		{"batch of many keys", batchPath, batchOf(strings.Split(strings.Repeat("a", maxFastKeys+1), "")...)},
		{"batch with two datasets", batchPath, append(batchOf("a"), "\x0a\x04rows"...)},
		{"batch with an unknown field", batchPath, append(batchOf("a"), "\x1a\x00"...)},
		{"another method", ringsidev1.Cache_Put_FullMethodName, get("rows", "a")},
	} {
		got, ok := p.fast.Append(t.Context(), h2.Call{Path: c.path}, c.message, nil, fastLimit)
		if ok || len(got) != 0 {
			t.Errorf("%s: got %q, %v; want nothing", c.name, got, ok)
		}
	}
	if n, _, _ := p.fast.stats.Duration.Snapshot(); n != 0 || p.stats.Hit.Load()+p.stats.LocalHit.Load() != 0 {
		t.Errorf("%d calls, %d hits and %d local hits are counted; want none", n, p.stats.Hit.Load(), p.stats.LocalHit.Load())
	}
	if n := p.fast.backend.Config().Errors.Defects(); n != 1 {
		t.Errorf("%d defects are counted; want 1, the panic", n)
	}
	for _, path := range fastPaths {
		if !p.fast.Match(path) {
			t.Errorf("Match(%q) is false", path)
		}
	}
	if p.fast.Match(ringsidev1.Cache_Put_FullMethodName) {
		t.Error("writes match")
	}
}

func TestFastCountsAsTheServerDoes(t *testing.T) {
	p := newPair(t, api.Config{}, map[string]kv.Answer{
		"mine": {Value: []byte("v"), Source: kv.SourceHit}, "copy": {Value: []byte("v"), Owner: "n2", Source: kv.SourceLocalHit},
	})
	for _, c := range []struct {
		path    string
		message []byte
	}{
		{ringsidev1.Cache_Get_FullMethodName, get("rows", "mine")}, {groupcachepb.GroupCache_Get_FullMethodName, get("rows", "copy")},
		{ringsidev1.Cache_BatchGet_FullMethodName, batchOf("mine", "mine", "copy")},
	} {
		if !p.check(t, c.path, c.message) {
			t.Errorf("%s is not answered", c.path)
		}
	}
	got := fmt.Sprint(p.stats.Hit.Load(), p.stats.LocalHit.Load())
	if calls, _, _ := p.fast.stats.Duration.Snapshot(); got != "3 2" || calls != 3 {
		t.Errorf("got %s hits and local hits in %d calls; want 3 2 in 3", got, calls)
	}
}

func BenchmarkFast(b *testing.B) {
	p := newPair(b, api.Config{}, map[string]kv.Answer{"CNF-001": {Value: make([]byte, 1<<10), Version: 7, ETag: `"0123456789ab"`,
		Age: 1500 * time.Millisecond, Fresh: time.Hour, Source: kv.SourceHit}})
	dst := make([]byte, 0, 32<<10)
	for path, message := range map[string][]byte{
		ringsidev1.Cache_Get_FullMethodName:        get("rows", "CNF-001"),
		ringsidev1.Cache_BatchGet_FullMethodName:   batchOf(strings.Fields(strings.Repeat("CNF-001 ", 8))...),
		groupcachepb.GroupCache_Get_FullMethodName: get("rows", "CNF-001"),
	} {
		b.Run(path[1:], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := p.fast.Append(b.Context(), h2.Call{Path: path}, message, dst, fastLimit); !ok {
					b.Fatal("not answered")
				}
			}
		})
	}
}

func TestFastDoesNotAllocate(t *testing.T) {
	p := newPair(t, api.Config{}, map[string]kv.Answer{"a": {Value: make([]byte, 100), ETag: `"e"`, Source: kv.SourceHit}})
	dst := make([]byte, 0, 32<<10)
	for path, message := range map[string][]byte{
		ringsidev1.Cache_Get_FullMethodName: get("rows", "a"), groupcachepb.GroupCache_Get_FullMethodName: get("rows", "a"),
		ringsidev1.Cache_BatchGet_FullMethodName: batchOf(strings.Split(strings.Repeat("a", maxFastKeys), "")...),
	} {
		ctx := t.Context()
		n := testing.AllocsPerRun(1000, func() {
			if _, ok := p.fast.Append(ctx, h2.Call{Path: path}, message, dst, fastLimit); !ok {
				t.Fatalf("%s is not answered", path)
			}
		})
		if n != 0 {
			t.Errorf("%s allocates %v objects; want 0", path, n)
		}
	}
}

func TestFastLeavesDeniedCallsToTheServer(t *testing.T) {
	control, err := access.New(access.Config{
		Datasets: map[string]access.Dataset{"rows": {Rules: access.Rules{Read: []string{"unix:uid=7"}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{answers: map[string]kv.Answer{"a": {Value: []byte("v"), ETag: `"e"`}}}
	catalog := api.NewCatalog(api.Served{Dataset: m, Gate: control.Gate("rows")})
	fast := NewFast(api.NewBackend(t.Context(), api.Config{}, catalog), new(api.Protocol))
	for who, want := range map[caller.Caller]bool{
		{}: false, {Kind: caller.Loopback}: false, {Kind: caller.Unix, UID: 8}: false, {Kind: caller.Unix, UID: 7}: true,
	} {
		for path, message := range map[string][]byte{
			fastPaths[0]: get("rows", "a"), fastPaths[1]: batchOf("a"), fastPaths[2]: get("rows", "a"),
		} {
			if _, got := fast.Append(caller.With(t.Context(), who), h2.Call{Path: path}, message, nil, fastLimit); got != want {
				t.Errorf("%s by %s: answered: %t, want %t", path, who, got, want)
			}
		}
	}
}

// fastLimit is what HTTP/2 allows Fast at most.
const fastLimit = 16<<10 - 5

func TestBatchesTakeMemory(t *testing.T) {
	b := budget.New(1 << 20)
	p := newPair(t, api.Config{Budget: b}, nil)
	if _, err := p.service.BatchGet(t.Context(), &ringsidev1.BatchGetRequest{Dataset: "rows", Keys: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if !p.limit.Memory.Grow(1000) || b.Stats()[budget.Responses].Used != 1000 {
		t.Errorf("got %d bytes taken for values of 1000 bytes", b.Stats()[budget.Responses].Used)
	}
	for size, taken := range map[int]bool{api.PrepaidResponse: false, api.PrepaidResponse + 1: true} {
		b := budget.New(1 << 20)
		p := newPair(t, api.Config{Budget: b}, map[string]kv.Answer{"a": {Value: make([]byte, size)}})
		ctx, cancel := context.WithCancel(t.Context())
		for range b.Limit(budget.Responses)/int64(size) + 1 {
			_, err := p.service.Get(ctx, &ringsidev1.GetRequest{Dataset: "rows", Key: "a"})
			if used := b.Stats()[budget.Responses].Used; used > 0 != taken || err != nil && used+int64(size) <= b.Limit(budget.Responses) {
				t.Errorf("a response of %d bytes: got %d bytes taken and %v", size, used, err)
			}
		}
		if refused := b.Stats()[budget.Responses].Refused > 0; refused != taken {
			t.Errorf("responses of %d bytes: got refused %v, want %v", size, refused, taken)
		}
		cancel()
		for range 1000 { // the end of a context is noticed by another goroutine
			if b.Stats()[budget.Responses].Used == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if used := b.Stats()[budget.Responses].Used; used != 0 {
			t.Errorf("got %d bytes taken after the end of the calls, want 0", used)
		}
	}
}
