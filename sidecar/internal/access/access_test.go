package access

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

func newGate(t *testing.T, d Dataset, tokens map[string]string) (*Control, *Gate) {
	t.Helper()
	c, err := New(Config{Tokens: tokens, Datasets: map[string]Dataset{"d": d}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, c.Gate("d")
}

func TestDefaults(t *testing.T) {
	for _, tt := range []struct {
		rules Rules
		want  map[Operation][]caller.Kind
	}{
		{Rules{}, map[Operation][]caller.Kind{
			Read:       {caller.Unknown, caller.Loopback, caller.Unix, caller.Token, caller.Client, caller.Member},
			Write:      {caller.Loopback, caller.Unix},
			Invalidate: {caller.Loopback, caller.Unix},
		}},
		{Rules{Read: []string{}, Write: []string{}, Invalidate: []string{}}, nil},
	} {
		_, g := newGate(t, Dataset{Rules: tt.rules}, nil)
		for _, o := range Operations() {
			for k := caller.Unknown; k <= caller.Member; k++ {
				want := false
				for _, w := range tt.want[o] {
					want = want || w == k
				}
				if got := g.Allows(&caller.Caller{Kind: k, ID: "x"}, o); got != want {
					t.Errorf("rules %+v: %s by %s: got %t, want %t", tt.rules, o, k, got, want)
				}
			}
		}
	}
	var none *Gate
	if !none.Allows(&caller.Caller{}, Write) || !none.Open(Write) || none.Limit(&caller.Caller{}, Writes, 1) != nil {
		t.Error("a nil Gate does not allow everything")
	}
}

func TestIdentities(t *testing.T) {
	const td = "spiffe://example.org"
	for _, tt := range []struct {
		subject, id string
		want        bool
	}{
		{td + "/a", td + "/a", true}, {td + "/a", td + "/ab", false}, {td + "/a", td + "/a/b", false},
		{td + "/a/*", td + "/a/b", true}, {td + "/a/*", td + "/a/b/c", true}, {td + "/a/*", td + "/a", false},
		{td + "/a/*", td + "/ab", false}, {td + "/a/*", td + "/a/", true},
		{td + "/*", td + "/a", true}, {td + "/*", td + ".evil.com/a", false}, {td + "/*", "spiffe://example.com/a", false},
		{"cert:a.example.org", "a.example.org", true}, {"cert:a.example.org", "b.example.org", false},
		{"cert:ns/*", "ns/a", true}, {"cert:ns/*", "nsa", false}, {"cert:a", "", false},
		{"client", "", true}, {td + "/*", "", false},
	} {
		_, g := newGate(t, Dataset{Rules: Rules{Read: []string{tt.subject}}}, nil)
		for _, kind := range []caller.Kind{caller.Client, caller.Member} {
			if got := g.Allows(&caller.Caller{Kind: kind, ID: tt.id}, Read); got != tt.want {
				t.Errorf("%s with %q: got %t, want %t", tt.subject, tt.id, got, tt.want)
			}
		}
		if tt.id != "" && g.Allows(&caller.Caller{Kind: caller.Token, ID: tt.id}, Read) {
			t.Errorf("%s: a token with the name %q is taken for an identity", tt.subject, tt.id)
		}
	}
}

func TestSubjectsThatAreRejected(t *testing.T) {
	for _, s := range []string{
		"", "lopback", "Loopback", "unix:", "unix:uid", "unix:uid=", "unix:uid=-1", "unix:uid=+1", "unix:uid=01", "unix:uid=4294967295",
		"unix:uid=4294967296", "unix:gid=x", "unix:uid=1,gid=1", "token:", "token:A", "token:a b", "token:*", "cert:", "cert:*", "cert:a*",
		"cert:*/a", "cert:a b", "spiffe://", "spiffe:///a", "spiffe://*", "spiffe://Example.org/a", "spiffe://example.org/",
		"spiffe://example.org/a//b", "spiffe://example.org/../a", "spiffe://example.org/a*", "spiffe://example.org/*/a",
		"spiffe://example.org/a?b", "spiffe://example.org:80/a", "spiffe://u@example.org/a", "spiffe://example.org/%61", "**", " *", "any",
	} {
		if err := CheckSubject(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

// FuzzSubject: what is accepted matches nobody else than what it says.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{
		"*", "loopback", "unix", "unix:uid=0", "unix:gid=7", "network", "client", "token:a", "cert:a", "cert:a/*", "spiffe://t/a", "spiffe://t/a/*",
	} {
		f.Add(s, "spiffe://t/a/b", uint32(7))
	}
	f.Fuzz(func(t *testing.T, subject, id string, n uint32) {
		r, err := parseRule([]string{subject})
		if err != nil {
			if r.everyone || len(r.ids)+len(r.idsBelow)+len(r.tokens)+len(r.uids)+len(r.gids) > 0 {
				t.Fatalf("%q is rejected and has rules: %+v", subject, r)
			}
			return
		}
		client := caller.Caller{Kind: caller.Client, ID: id}
		if r.allows(&client) && !r.everyone && subject != "client" {
			exact := strings.TrimPrefix(subject, "cert:")
			base, prefix := strings.CutSuffix(exact, "/*")
			if id != exact && !(prefix && strings.HasPrefix(id, base+"/")) {
				t.Errorf("%q allows the identity %q", subject, id)
			}
		}
		process := caller.Caller{Kind: caller.Unix, UID: n, GID: n}
		if r.allows(&process) && !r.everyone && subject != "unix" && !strings.HasSuffix(subject, "id="+strconv.FormatUint(uint64(n), 10)) {
			t.Errorf("%q allows %s", subject, process)
		}
	})
}

func TestTokensFollowTheirFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n\n  two \r\n")
	c, _ := newGate(t, Dataset{}, map[string]string{"a": file})
	check := func(want bool, headers ...string) {
		t.Helper()
		for _, h := range headers {
			if name, ok := c.tokens.Find(h); ok != want || ok && name != "a" {
				t.Errorf("%q: got %q, %t, want %t", h, name, ok, want)
			}
		}
	}
	check(true, "Bearer one", "bearer two", "BEARER  one ")
	check(false, "", "Bearer", "Bearer ", "Bearer x", "Basic one", "one", "Bearer one, Bearer one", "Bearer one two",
		"Bearer "+strings.Repeat("x", 5000), "Bearer ONE")
	write("three\n")
	if err := c.ReloadTokens(); err != nil {
		t.Fatal(err)
	}
	check(true, "Bearer three")
	check(false, "Bearer one")
	for _, unreadable := range []string{strings.Repeat("x", 1<<20), strings.Repeat("x\n", 17), strings.Repeat("x", 2000) + "\n"} {
		write(unreadable)
		if err := c.ReloadTokens(); err == nil {
			t.Error("a file that is too large is accepted")
		}
		check(true, "Bearer three") // what the file had before
	}
	for _, empty := range []string{"", "\n \n"} {
		write("three\n")
		if err := c.ReloadTokens(); err != nil {
			t.Fatal(err)
		}
		write(empty)
		if err := c.ReloadTokens(); err == nil {
			t.Errorf("the file %q is accepted", empty)
		}
		check(false, "Bearer three", "Bearer ", "Bearer")
	}
	write("three\n")
	if err := c.ReloadTokens(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := c.ReloadTokens(); !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), file) {
		t.Errorf("a removed file: got %v", err)
	}
	check(false, "Bearer three")
}

// A token is known by its hash only: nothing that is compared has the length or the prefix of a token.
func TestTokensAreComparedByHash(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("canary-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := newGate(t, Dataset{}, map[string]string{"a": file})
	for _, one := range *c.tokens.current.Load() {
		if len(one.hash) != 32 || strings.Contains(string(one.hash[:]), "canary") || one.name != "a" {
			t.Errorf("got %q", one)
		}
	}
	if n := testing.AllocsPerRun(100, func() { c.tokens.Find("Bearer canary-secret") }); n != 0 {
		t.Errorf("finding a token allocates %v times", n)
	}
}

func TestApplyChangesAllOrNothing(t *testing.T) {
	c, g := newGate(t, Dataset{Rules: Rules{Write: []string{"network"}}}, nil)
	for _, next := range []Config{
		{Datasets: map[string]Dataset{"d": {Rules: Rules{Read: []string{"nobody"}}}}},
		{Tokens: map[string]string{"a": "/does/not/exist"}, Datasets: map[string]Dataset{"d": {Rules: Rules{Write: []string{"*"}}}}},
	} {
		if err := c.Apply(next); err == nil {
			t.Errorf("%+v is accepted", next)
		}
		if !g.Allows(&caller.Caller{Kind: caller.Unknown}, Write) || g.Allows(&caller.Caller{Kind: caller.Loopback}, Write) {
			t.Error("the rules have changed")
		}
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]Rate{
		"100/s": {Count: 100, Per: time.Second}, " 10 / m ": {Count: 10, Per: time.Minute}, "1/h": {Count: 1, Per: time.Hour}, "off": {Off: true},
	} {
		var r, again Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%q: got %+v, %v", text, r, err)
		}
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%q is printed as %q, which is read as %+v, %v", text, r, again, err)
		}
	}
	for _, text := range []string{"", "0/s", "-1/s", "1", "1/", "1/d", "/s", "1/s/s", "1.5/s", "1000001/s", "99999999999/s", "Off", "none"} {
		if err := new(Rate).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := newGate(t, Dataset{Limits: Limits{NoCache: Rate{Count: 10, Per: time.Second}, Write: Rate{Count: 6, Per: time.Minute}, Watch: Rate{Off: true}}}, nil)
		who := &caller.Caller{Kind: caller.Unix, UID: 1}
		check := func(k Kind, n int, want time.Duration) {
			t.Helper()
			var limited *LimitedError
			got := time.Duration(0)
			if errors.As(g.Limit(who, k, n), &limited) {
				got = limited.RetryAfter
			}
			if got.Round(time.Millisecond) != want {
				t.Errorf("%d of %s: retry after %v, want %v", n, k, got, want)
			}
		}
		check(NoCache, 10, 0)
		check(NoCache, 1, 100*time.Millisecond)
		check(NoCache, 5, 500*time.Millisecond)
		time.Sleep(500 * time.Millisecond)
		check(NoCache, 5, 0)
		check(NoCache, 1, 100*time.Millisecond)
		time.Sleep(time.Hour)
		check(NoCache, 1000, 0) // as large as a burst can be
		check(NoCache, 1000, time.Second)
		check(Writes, 1, 0)
		check(Writes, 1, 10*time.Second)
		time.Sleep(10 * time.Second)
		check(Writes, 1, 0)
		check(Watches, 1_000_000, 0)
		other := caller.Caller{Kind: caller.Unix, UID: 2}
		if err := g.Limit(&other, Writes, 1); err != nil {
			t.Errorf("another client: %v", err)
		}
		if got := g.Limited(NoCache); got != 4 {
			t.Errorf("refused: %d, want 4", got)
		}
	})
}

func TestClientsOfLimits(t *testing.T) {
	at := func(addr string) caller.Caller { return caller.Caller{Kind: caller.Unknown, Addr: addr} }
	for _, tt := range []struct {
		a, b caller.Caller
		same bool
	}{
		{caller.Caller{Kind: caller.Loopback, Addr: "127.0.0.1:1"}, caller.Caller{Kind: caller.Loopback, Addr: "127.0.0.1:2"}, true},
		{at("10.0.0.1:1"), at("10.0.0.1:2"), true}, {at("10.0.0.1:1"), at("10.0.0.2:1"), false},
		{caller.Caller{Kind: caller.Unix, UID: 1, PID: 1}, caller.Caller{Kind: caller.Unix, UID: 1, PID: 2, GID: 3}, true},
		{caller.Caller{Kind: caller.Token, ID: "a"}, caller.Caller{Kind: caller.Client, ID: "a"}, false},
		{caller.Caller{Kind: caller.Client, ID: "a", Addr: "10.0.0.1:1"}, caller.Caller{Kind: caller.Client, ID: "a", Addr: "10.0.0.2:1"}, true},
	} {
		if got := clientID(&tt.a) == clientID(&tt.b); got != tt.same {
			t.Errorf("%+v and %+v: one client: %t, want %t", tt.a, tt.b, got, tt.same)
		}
	}
}

// A client with many identities gets no memory and no more than the clients beyond the limit get together.
func TestTrackedClientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := newGate(t, Dataset{Limits: Limits{Write: Rate{Count: 2, Per: time.Second}}}, nil)
		take := func(i int) bool {
			return g.Limit(&caller.Caller{Kind: caller.Client, ID: strconv.Itoa(i)}, Writes, 2) == nil
		}
		passed := 0
		for i := range 10 * maxClients {
			if take(i) {
				passed++
			}
		}
		if n := len(g.limits.clients[Writes]); n != maxClients || passed != maxClients+1 {
			t.Errorf("%d clients are tracked and %d passed, want %d and one more", n, passed, maxClients)
		}
		time.Sleep(2 * time.Second) // all limits are as good as new
		if !take(-1) || len(g.limits.clients[Writes]) != 1 {
			t.Errorf("%d clients are tracked after a pause", len(g.limits.clients[Writes]))
		}
	})
}

func TestAllowsDoesNotAllocate(t *testing.T) {
	_, g := newGate(t, Dataset{Rules: Rules{Read: []string{"loopback", "unix:uid=7", "spiffe://a/b/*"}}}, nil)
	for _, c := range []caller.Caller{{Kind: caller.Loopback}, {Kind: caller.Unix, UID: 7}, {Kind: caller.Client, ID: "spiffe://a/b/c"}} {
		if n := testing.AllocsPerRun(100, func() {
			if !g.Allows(&c, Read) {
				t.Fatal("denied")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c, n)
		}
	}
}
