package explain_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin/origintest"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/explain"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

var errSecret = errors.New("user=canary host=10.9.8.7")

// asked is a route to owner "b" and successor "c".
type asked struct{ kv.NoPeers }

type named struct {
	kv.Peer
	id string
}

func (n named) ID() string { return n.id }

func (asked) Route(string, string) kv.Route {
	return kv.Route{Owner: named{id: "b"}, Successor: named{id: "c"}}
}

// newExplainer returns the Explainer of member "a", which reads from "b" and "c", and its log.
func newExplainer(t *testing.T, peers kv.Peers, members []peer.KeyReport) (x *explain.Explainer, d *cache.Dataset, o *origintest.Fake, lines *[]string) {
	t.Helper()
	o, lines = origintest.New(map[string]string{"k": "v"}), new([]string)
	p := kv.DefaultPolicy()
	p.GapTTL = time.Second
	d, err := cache.New(cache.Config{Name: "routes", Policy: p, MaxBytes: 1 << 20, Origin: o, Peers: peers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	r, err := ring.New([]ring.Member{{ID: "a", Addr: "10.0.0.1:1"}, {ID: "b", Addr: "10.0.0.2:1"}, {ID: "c", Addr: "10.0.0.3:1"}}, ring.DefaultSize())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	return explain.New(explain.Config{
		Node: "a", Version: "v1", Ring: func() *ring.Ring { return r },
		Lookup: func(name string) *cache.Dataset {
			if name != "routes" {
				return nil
			}
			return d
		},
		Members: func(context.Context, string, string, int) []peer.KeyReport { return members },
		Origin:  func(string) adminapi.KeyOrigin { return adminapi.KeyOrigin{Name: "db", BreakerOpen: true} },
		Errors: apierror.NewLog(func(l apierror.Line) {
			mu.Lock()
			defer mu.Unlock()
			*lines = append(*lines, l.ID+" "+l.Text)
		}),
		ReadsFeed: func(string) bool { return true },
	}), d, o, lines
}

func report(id string, s adminapi.KeyState) peer.KeyReport {
	text, _ := json.Marshal(s)
	return peer.KeyReport{Member: ring.Member{ID: id, Zone: "z-" + id}, Report: &peerv1.ExplainResponse{State: text}}
}

func TestExplainGoesOnAtTheMembersThatAReadAsks(t *testing.T) {
	failed := func(id string, err error) peer.KeyReport {
		return peer.KeyReport{Member: ring.Member{ID: id}, Err: err}
	}
	holds := adminapi.KeyState{NextRead: "answers from memory with its entry"}
	loads := adminapi.KeyState{NextRead: "loads from the origin db"}
	other := adminapi.KeyState{NextRead: "fetches from b", Origin: adminapi.KeyOrigin{Name: "db"}}
	other.Memory.Next.Action = kv.ActFetch
	leaving := report("b", holds)
	leaving.Report.Leaving = true
	open := report("b", holds)
	open.BreakerOpen = true
	for _, tt := range []struct {
		owner, successor peer.KeyReport
		state, next      string
	}{
		{report("b", holds), report("c", other), adminapi.StateReachable, "this member fetches from b, which answers from memory with its entry"},
		{leaving, report("c", other), adminapi.StateLeaving, "this member fetches from b, which answers from memory with its entry"},
		{failed("b", fmt.Errorf("member b: %w", context.DeadlineExceeded)), report("c", other), adminapi.StateNoAnswer,
			"this member fetches from b, which does not answer now (no answer); then it fetches from the successor c, which loads from the origin db"},
		{failed("b", status.Error(codes.Unavailable, errSecret.Error())), report("c", loads), adminapi.StateUnreachable,
			"this member fetches from b, which does not answer now (unreachable); then it fetches from the successor c, which loads from the origin db"},
		{open, failed("c", errSecret), adminapi.StateBreakerOpen,
			"this member fetches from b, which does not answer now (breaker open); then it fetches from the successor c, and loads from the origin itself if that does not answer either"},
		{failed("b", fmt.Errorf("member b: %w", status.Error(codes.NotFound, "no dataset"))), report("c", holds), adminapi.StateNoDataset,
			"this member fetches from b, which does not answer now (no such dataset); then it fetches from the successor c, which answers from memory with its entry"},
	} {
		x, _, _, lines := newExplainer(t, asked{}, []peer.KeyReport{tt.owner, tt.successor})
		e, err := x.Explain(t.Context(), "routes", "k")
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Members) != 3 || e.Members[0].State != tt.state || e.NextRead != tt.next {
			t.Errorf("got %+v\nnext read %q\nwant state %s, %q", e.Members, e.NextRead, tt.state, tt.next)
		}
		if e.Owner != "b" || fmt.Sprint(e.Successors) != "[c]" || e.Members[2].Role != adminapi.RoleReader || e.Members[2].State != adminapi.StateHere {
			t.Errorf("got owner %s, successors %v, members %+v", e.Owner, e.Successors, e.Members)
		}
		text, _ := json.Marshal(e)
		if strings.Contains(string(text), "canary") || strings.Contains(string(text), "10.") {
			t.Errorf("an address or the text of an error is in %s", text)
		}
		if m := e.Members[0]; (m.Key == nil) != (m.LogID != "") || m.LogID != "" && !strings.Contains(strings.Join(*lines, "\n"), m.LogID) {
			t.Errorf("got log id %q of %+v, log %v", m.LogID, m, *lines)
		}
	}
}

// zonedPeers is a route to owner "b" through "z", the zone owner.
type zonedPeers struct{ asked }

func (zonedPeers) ZoneOwner(string, string) (kv.Peer, bool) { return named{id: "z"}, false }

func TestExplainGoesOnThroughTheZoneOwner(t *testing.T) {
	holds := adminapi.KeyState{NextRead: "answers from memory with its entry"}
	fetches := adminapi.KeyState{NextRead: "fetches from b"}
	fetches.Memory.Next.Action, fetches.Memory.Next.From = kv.ActFetch, "b"
	others := []peer.KeyReport{report("b", holds), report("c", holds), report("d", holds), report("e", holds)}
	for _, tt := range []struct {
		near peer.KeyReport
		next string
	}{
		{report("z", holds), "which answers from memory with its entry"},
		{report("z", fetches), "which fetches from the owner b, which answers from memory with its entry"},
		{peer.KeyReport{Member: ring.Member{ID: "z"}, Err: context.DeadlineExceeded},
			"which does not answer now (no answer); then it fetches from the owner b, which answers from memory with its entry"},
	} {
		tt.near.ZoneOwner = true
		x, _, _, _ := newExplainer(t, zonedPeers{}, append(slices.Clone(others), tt.near))
		e, err := x.Explain(t.Context(), "routes", "k")
		if err != nil {
			t.Fatal(err)
		}
		if want := "this member fetches from z, the owner of the key in its zone, " + tt.next; e.NextRead != want {
			t.Errorf("got %q\nwant %q", e.NextRead, want)
		}
		if e.ZoneOwner != "z" || len(e.Successors) != 3 || e.Members[4].Role != adminapi.RoleZoneOwner {
			t.Errorf("got zone owner %q, successors %v, members %+v", e.ZoneOwner, e.Successors, e.Members)
		}
	}
}

func TestExplainHasTheStateOfThisMember(t *testing.T) {
	x, d, o, lines := newExplainer(t, nil, nil)
	o.Fail(errSecret)
	if _, err := d.Get(t.Context(), "k", kv.ReadOptions{}); err == nil {
		t.Fatal("got no error while the origin fails")
	}
	e, err := x.Explain(t.Context(), "routes", "k")
	if err != nil || len(e.Members) != 1 || e.Members[0].Role != adminapi.RoleOwner || e.Owner != "a" {
		t.Fatalf("got %+v, %v; want this member alone", e, err)
	}
	k := e.Members[0].Key
	if k.LastError == nil || k.LastError.Kind != "origin-unavailable" || len(*lines) != 1 ||
		!strings.HasPrefix((*lines)[0], k.LastError.ID+" ") || !strings.Contains((*lines)[0], "canary") {
		t.Errorf("got last error %+v, log %v; want kind and id, and the text in the log", k.LastError, *lines)
	}
	if text, _ := json.Marshal(e); strings.Contains(string(text), "canary") {
		t.Errorf("the text of the error is in %s", text)
	}
	if want := "this member loads from the origin db, which fails at once because its circuit breaker is open"; e.NextRead != want {
		t.Errorf("got %q, want %q", e.NextRead, want)
	}
	if k.Feed == nil || k.Feed.Live || !k.Feed.Reading || !k.Origin.BreakerOpen || k.Policy.TTL != 10*time.Second || k.Version != "v1" {
		t.Errorf("got %+v", k)
	}
	o.Fail(nil)
	if _, err := d.Get(t.Context(), "k", kv.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	x.RingProblem = func() string { return "no other member can reach this one" }
	if e, err := x.Explain(t.Context(), "routes", "k"); err != nil || !strings.HasSuffix(e.NextRead, "; no other member can reach this one") {
		t.Errorf("got %q, %v; want the problem of the ring at the end", e.NextRead, err)
	}
	again, err := adminapi.DecodeKeyState(x.StateJSON("routes", "k"))
	if err != nil || !again.Memory.Held || again.LastError != nil || !strings.HasPrefix(again.NextRead, "answers from memory with its entry, which is fresh for another ") {
		t.Errorf("got %+v, %v", again, err)
	}
}

func TestReportsOfMembersAreLimitedAndPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 adminapi.StateInvalid,
		"null":                             adminapi.StateInvalid,
		`{"version":7}`:                    adminapi.StateInvalid,
		`"` + strings.Repeat("x", 20000):   adminapi.StateInvalid,
		`{"next_read":"a\u001b[2J"}`:       adminapi.StateReachable,
		`{"memory":{"etag":"\u202e"}}`:     adminapi.StateReachable,
		`{"members":[],"unknown":{"a":1}}`: adminapi.StateReachable,
	} {
		x, _, _, _ := newExplainer(t, asked{}, []peer.KeyReport{
			{Member: ring.Member{ID: "b"}, Report: &peerv1.ExplainResponse{State: []byte(text)}},
		})
		e, err := x.Explain(t.Context(), "routes", "k")
		if err != nil || e.Members[0].State != want || printable.Block(e.NextRead) != e.NextRead {
			t.Errorf("%.30q: got %+v, %v; want state %s", text, e.Members, err, want)
		}
	}
}

func TestExplanationsAtOnceAreLimited(t *testing.T) {
	x, _, _, _ := newExplainer(t, nil, nil)
	inside, leave := make(chan struct{}), make(chan struct{})
	x.Members = func(context.Context, string, string, int) []peer.KeyReport {
		inside <- struct{}{}
		<-leave
		return nil
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() { _, _ = x.Explain(t.Context(), "routes", "k") })
		<-inside
	}
	if _, err := x.Explain(t.Context(), "routes", "k"); kv.KindOf(err) != kv.KindOverloaded {
		t.Errorf("the 17th: got %v, want overloaded", err)
	}
	close(leave)
	all.Wait()
	x.Members = func(context.Context, string, string, int) []peer.KeyReport { return nil }
	for key, want := range map[string]kv.Kind{"": kv.KindInvalidKey, strings.Repeat("k", kv.MaxKeyBytes+1): kv.KindInvalidKey} {
		if _, err := x.Explain(t.Context(), "routes", key); kv.KindOf(err) != want {
			t.Errorf("key of %d bytes: got %v", len(key), err)
		}
	}
	if _, err := x.Explain(t.Context(), "gone", "k"); err == nil {
		t.Error("a dataset that was removed is explained")
	}
	if _, err := x.Explain(t.Context(), "routes", "k"); err != nil {
		t.Errorf("after all have ended: %v", err)
	}
}
