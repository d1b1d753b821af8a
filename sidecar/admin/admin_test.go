package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func newRing(t *testing.T, size ring.Size, ids ...string) *ring.Ring {
	t.Helper()
	var members []ring.Member
	for i, id := range ids {
		members = append(members, ring.Member{ID: id, Addr: fmt.Sprintf("10.0.0.%d:7072", i+1)})
	}
	r, err := ring.New(members, size)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newSource is sidecar "a" of three. It has read one row as if it were the only member.
func newSource(t *testing.T) admin.Source {
	t.Helper()
	routes, err := cache.New(cache.Config{
		Name: "routes", Policy: kv.DefaultPolicy(), MaxBytes: 1 << 20,
		Origin: origintest.New(map[string]string{"10.0.0.0/8": "eth0"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(routes.Close)
	if _, err := routes.Get(t.Context(), "10.0.0.0/8", kv.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	routes.Stats().Queries.Add(1) // the batching decorator counts them
	r := newRing(t, ring.Size{}, "a", "b", "c")
	return admin.Source{
		Node: "a", Version: "v1.2.3", Started: time.Now().Add(-time.Minute),
		Datasets:  func() []*cache.Dataset { return []*cache.Dataset{routes} },
		Ring:      func() *ring.Ring { return r },
		Directory: func() adminapi.Directory { return adminapi.Directory{Kind: "etcd", Connected: true, Registered: true} },
		Others: func(context.Context) []adminapi.MemberState {
			return []adminapi.MemberState{
				{ID: "b", Addr: "10.0.0.2:7072", State: &adminapi.State{Node: "b"}},
				{ID: "c", Addr: "10.0.0.3:7072", Unreachable: "connection refused"},
			}
		},
		Explain: func(context.Context, string, string) (adminapi.Explanation, error) {
			return adminapi.Explanation{NextRead: "explained"}, nil
		},
		Hosts: []string{"ringside.local"},
	}
}

func request(method, path string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "localhost:7075"
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Host" {
			r.Host = fields[i+1]
		}
		r.Header.Set(fields[i], fields[i+1])
	}
	return r
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// get decodes the response to a request that must succeed.
func get[T any](t *testing.T, s admin.Source, path string) (v T) {
	t.Helper()
	w := do(admin.NewHandler(s), request("GET", path))
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s = %d: %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEveryFileOfTheConsoleIsServed(t *testing.T) {
	h := admin.NewHandler(newSource(t))
	err := fs.WalkDir(os.DirFS("console"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if path == "index.html" {
			path = ""
		}
		if w := do(h, request("GET", "/"+path)); w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Errorf("GET /%s = %d with %d bytes", path, w.Code, w.Body.Len())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPagesLoadNothingFromOtherSites(t *testing.T) {
	h := admin.NewHandler(newSource(t))
	for _, path := range []string{"/", "/app.js", "/api/state", "/nowhere"} {
		csp := do(h, request("GET", path)).Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("GET %s: Content-Security-Policy %q", path, csp)
		}
	}
}

// TestConsoleBuildsNoMarkupFromStrings makes sure that keys and names, which are untrusted, stay text.
func TestConsoleBuildsNoMarkupFromStrings(t *testing.T) {
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function`)
	inline := regexp.MustCompile(`<script(>|[^>]*>[^<])|\son[a-z]+=|\sstyle=|<style|https?://`)
	err := fs.WalkDir(os.DirFS("console"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile("console/" + path)
		if err != nil {
			return err
		}
		if found := markup.Find(text); found != nil {
			t.Errorf("%s has %s", path, found)
		}
		if found := inline.Find(text); strings.HasSuffix(path, ".html") && found != nil {
			t.Errorf("%s has %q", path, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestForeignHostIsRejected(t *testing.T) {
	h := admin.NewHandler(newSource(t))
	for host, want := range map[string]int{
		"localhost":           200,
		"LOCALHOST:7075":      200,
		"127.0.0.1:7075":      200,
		"127.8.9.1":           200,
		"[::1]:7075":          200,
		"[::ffff:127.0.0.1]":  200,
		"ringside.local:80":   200,
		"":                    421,
		"evil.example":        421,
		"localhost.evil.com":  421,
		"10.0.0.1:7075":       421,
		"127.0.0.1.evil.com":  421,
		"0.0.0.0:7075":        421,
		"evil.example:7075":   421,
		"[::2]:7075":          421,
		"localhost:7075@evil": 421,
	} {
		for _, path := range []string{"/", "/api/state"} {
			if got := do(h, request("GET", path, "Host", host)).Code; got != want {
				t.Errorf("GET %s with Host %q = %d, want %d", path, host, got, want)
			}
		}
	}
}

func TestRequestsFromOtherSitesAreRejected(t *testing.T) {
	s := newSource(t)
	s.Pprof = true
	h := admin.NewHandler(s)
	for _, path := range []string{"/api/state", "/api/cluster", "/api/ring", "/api/explain", "/debug/pprof/cmdline"} {
		for _, site := range []string{"cross-site", "same-site", "unknown"} {
			if got := do(h, request("GET", path, "Sec-Fetch-Site", site)).Code; got != http.StatusForbidden {
				t.Errorf("GET %s from %s = %d, want 403", path, site, got)
			}
		}
	}
	if got := do(h, request("GET", "/", "Sec-Fetch-Site", "cross-site")).Code; got != http.StatusOK {
		t.Errorf("a link to the console = %d, want 200", got)
	}
}

func TestErrorsAreProblemDocuments(t *testing.T) {
	h := admin.NewHandler(newSource(t))
	for _, c := range []struct {
		method, path string
		status       int
		name         string
	}{
		{"POST", "/api/state", 405, "method-not-allowed"},
		{"DELETE", "/", 405, "method-not-allowed"},
		{"GET", "/index.html", 404, "no-such-route"},
		{"GET", "/api/", 404, "no-such-route"},
		{"GET", "/debug/pprof/", 404, "no-such-route"},
		{"GET", "/api/explain?dataset=nope&key=a", 404, "unknown-dataset"},
		{"GET", "/api/explain?dataset=routes", 400, "invalid-key"},
		{"GET", "/api/explain?dataset=routes&key=" + strings.Repeat("k", kv.MaxKeyBytes+1), 400, "invalid-key"},
	} {
		w := do(h, request(c.method, c.path))
		var p struct {
			Type   string
			Status int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
		}
		if w.Code != c.status || p.Status != c.status || !strings.HasSuffix(p.Type, "/"+c.name) ||
			w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %.40s = %d %s, want %d %s", c.method, c.path, w.Code, w.Body, c.status, c.name)
		}
	}
	if got := do(h, request("POST", "/")).Header().Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow: %q", got)
	}
}

func TestPprofIsServedOnlyIfEnabled(t *testing.T) {
	s := newSource(t)
	s.Pprof = true
	if got := do(admin.NewHandler(s), request("GET", "/debug/pprof/goroutine?debug=1")).Code; got != http.StatusOK {
		t.Errorf("enabled: %d", got)
	}
	// TestErrorsAreProblemDocuments shows that it is disabled by default.
}

func TestStateCountsReads(t *testing.T) {
	state := get[adminapi.State](t, newSource(t), "/api/state")
	if state.Node != "a" || state.Version != "v1.2.3" || state.Uptime < time.Minute || len(state.Datasets) != 1 {
		t.Fatalf("state: %+v", state)
	}
	d := state.Datasets[0]
	if d.Name != "routes" || d.Loads != 1 || d.OriginQueries != 1 || d.Hits != 0 || d.Entries != 1 || d.Bytes == 0 ||
		d.MaxBytes != 1<<20 {
		t.Errorf("after one read: %+v", d)
	}
}

func TestStateHasWritesAndFeedGap(t *testing.T) {
	s := newSource(t)
	routes := s.Datasets()[0]
	routes.Stats().Written.Add(2)
	state := func() adminapi.DatasetState { return get[adminapi.State](t, s, "/api/state").Datasets[0] }
	if d := state(); d.Written != 2 || d.FeedGap {
		t.Errorf("without a feed: %+v", d)
	}
	policy := routes.Policy()
	policy.GapTTL = time.Second // it has a feed now
	routes.SetPolicy(policy)
	if !state().FeedGap {
		t.Error("FeedGap is false although nobody reads the feed")
	}
	routes.SetFeedLive(true)
	if state().FeedGap {
		t.Error("FeedGap is true although the feed is live")
	}
}

type ringAnswer struct {
	ID      string
	Self    string
	Members []struct {
		ID    string
		Share float64
	}
	Entries int
	Points  [][2]float64
}

// TestRingPointsFindTheOwner looks keys up in the points, as the page draws them, and asks the ring itself.
func TestRingPointsFindTheOwner(t *testing.T) {
	s := newSource(t)
	v := get[ringAnswer](t, s, "/api/ring")
	owner := func(position float64) string {
		i := sort.Search(len(v.Points), func(i int) bool { return v.Points[i][0] >= position })
		return v.Members[int(v.Points[i%len(v.Points)][1])].ID
	}
	const keys = 20000
	wrong, owned := 0, map[string]int{}
	for i := range keys {
		routeKey := routekey.Format("routes", fmt.Sprint(i))
		want := s.Ring().Owner(routeKey).ID
		owned[want]++
		if owner(float64(ring.Hash(routeKey))/(1<<64)) != want {
			wrong++
		}
	}
	if wrong > keys/500 { // positions are rounded to a millionth, an arc is a thousandth
		t.Errorf("%d of %d keys have another owner in the points", wrong, keys)
	}
	for _, m := range v.Members {
		if got := float64(owned[m.ID]) / keys; math.Abs(got-m.Share) > 0.02 {
			t.Errorf("%s owns %.3f of the keys, but its share is %.3f", m.ID, got, m.Share)
		}
	}
}

func TestSharesAddUpToOne(t *testing.T) {
	for name, r := range map[string]*ring.Ring{
		"three members": newRing(t, ring.Size{}, "a", "b", "c"),
		"one member":    newRing(t, ring.Size{}, "a"),
		"one entry":     newRing(t, ring.Size{Min: 1, Max: 1}, "a"),
		"millions":      newRing(t, ring.Size{Min: 20000, Max: 20000}, "a", "b"),
	} {
		s := newSource(t)
		s.Ring = func() *ring.Ring { return r }
		v := get[ringAnswer](t, s, "/api/ring")
		sum := 0.0
		for _, m := range v.Members {
			sum += m.Share
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("%s: shares add up to %v", name, sum)
		}
		if len(v.Points) > 8192 {
			t.Errorf("%s: %d points are sent", name, len(v.Points))
		}
	}
}

func TestExplainNeedsThePermissionToRead(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("letmein\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	control, err := access.New(access.Config{
		Tokens: map[string]string{"ops": token}, Datasets: map[string]access.Dataset{"routes": {Rules: access.Rules{Read: []string{"token:ops"}}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSource(t)
	s.Gate, s.Errors = control.Gate, apierror.NewLog(func(apierror.Line) {})
	const path = "/api/explain?dataset=routes&key=a"
	if w := do(admin.NewHandler(s), request("GET", path)); w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "explained") {
		t.Errorf("without the token: %d %s", w.Code, w.Body)
	}
	if w := do(admin.NewHandler(s), request("GET", path, "Authorization", "Bearer letmein")); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"next_read":"explained"`) {
		t.Errorf("with the token: %d %s", w.Code, w.Body)
	}
	s.Gate = nil
	s.Explain = func(context.Context, string, string) (adminapi.Explanation, error) {
		return adminapi.Explanation{}, &kv.Error{Kind: kv.KindOverloaded, Err: errors.New("too many")}
	}
	if w := do(admin.NewHandler(s), request("GET", path)); w.Code != http.StatusTooManyRequests {
		t.Errorf("too many: %d %s", w.Code, w.Body)
	}
}

func TestHotKeysAreShownToThoseWhoMayReadThem(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("letmein\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	control, err := access.New(access.Config{
		Tokens: map[string]string{"ops": token}, Datasets: map[string]access.Dataset{"secret": {Rules: access.Rules{Read: []string{"token:ops"}}}, "routes": {}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSource(t)
	s.Gate = control.Gate
	s.HotKeys = func() []hotkeys.Key {
		return []hotkeys.Key{{Dataset: "secret", Key: "canary", Rate: 500}, {Dataset: "routes", Key: "a\x1b[2J" + strings.Repeat("x", 1000), Rate: 300}}
	}
	s.Others = func(context.Context) []adminapi.MemberState {
		return []adminapi.MemberState{{ID: "b", State: &adminapi.State{HotKeys: []adminapi.HotKey{{Dataset: "secret", Key: "canary"}}}}}
	}
	h := admin.NewHandler(s)
	for _, path := range []string{"/api/state", "/api/cluster"} {
		if w := do(h, request("GET", path)); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "canary") || !strings.Contains(w.Body.String(), `"key":"a [2Jxxx`) {
			t.Errorf("%s without the token: %d %s", path, w.Code, w.Body)
		}
		if w := do(h, request("GET", path, "Authorization", "Bearer letmein")); strings.Count(w.Body.String(), "canary") != strings.Count(path, "cluster")+1 {
			t.Errorf("%s with the token: %d %s", path, w.Code, w.Body)
		}
	}
	got := get[adminapi.State](t, s, "/api/state").HotKeys
	if len(got) != 1 || len(got[0].Key) != adminapi.MaxHotKeyBytes || got[0].KeyBytes != 1005 || got[0].Rate != 300 {
		t.Errorf("got %+v, want the begin of the key and its length", got)
	}
}

type clusterAnswer struct {
	Members []adminapi.MemberState
}

func TestUnreachableMembersAreShownWithTheReason(t *testing.T) {
	v := get[clusterAnswer](t, newSource(t), "/api/cluster")
	if len(v.Members) != 3 {
		t.Fatalf("%d members, want 3", len(v.Members))
	}
	a, b, c := v.Members[0], v.Members[1], v.Members[2]
	if a.ID != "a" || a.Addr != "10.0.0.1:7072" || a.State == nil || len(a.State.Datasets) != 1 {
		t.Errorf("this member: %+v", a)
	}
	if b.State == nil || c.State != nil || c.Unreachable != "connection refused" {
		t.Errorf("others: %+v, %+v", b, c)
	}
}

func TestManyConsolesCostNoMoreThanOne(t *testing.T) {
	s := newSource(t)
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		s.Others = func(context.Context) []adminapi.MemberState {
			requests++
			return nil
		}
		h := admin.NewHandler(s)
		for range 10 {
			do(h, request("GET", "/api/cluster"))
			time.Sleep(49 * time.Millisecond)
		}
		if requests != 1 {
			t.Errorf("10 consoles in half a second: %d requests to the members, want 1", requests)
		}
		time.Sleep(10 * time.Millisecond)
		do(h, request("GET", "/api/cluster"))
		if requests != 2 {
			t.Errorf("after the ttl: %d requests to the members, want 2", requests)
		}
	})
}

// Concurrent consoles share one result.
func TestDisconnectedConsoleDoesNotFailOthers(t *testing.T) {
	s := newSource(t)
	s.Others = func(ctx context.Context) []adminapi.MemberState {
		if ctx.Err() != nil {
			return []adminapi.MemberState{{ID: "b", Unreachable: ctx.Err().Error()}}
		}
		return []adminapi.MemberState{{ID: "b", State: &adminapi.State{}}}
	}
	h := admin.NewHandler(s)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	do(h, request("GET", "/api/cluster").WithContext(gone))
	w := do(h, request("GET", "/api/cluster"))
	if strings.Contains(w.Body.String(), "unreachable") {
		t.Errorf("the result is from the canceled request: %s", w.Body)
	}
}
