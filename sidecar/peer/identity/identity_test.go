package identity

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

func mustNew(t testing.TB, c Config) *Scheme {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIdentify(t *testing.T) {
	byDefault := mustNew(t, Config{TrustDomain: "example.org", Cluster: "prod"})
	mapped := mustNew(t, Config{
		TrustDomain: "example.org", Cluster: "prod", MemberPath: "/ns/cache/pod/{id}", ClientPath: "/ns/{name}",
	})
	for _, test := range []struct {
		scheme *Scheme
		id     string
		role   caller.Kind
		member string
	}{
		{byDefault, "spiffe://example.org/ringside/prod/member/a", caller.Member, "a"},
		{byDefault, "spiffe://example.org/ringside/prod/member/10.0.0.1_7072", caller.Member, "10.0.0.1_7072"},
		{byDefault, "spiffe://example.org/ringside/prod/client/envoy", caller.Client, ""},
		{byDefault, "spiffe://example.org/ringside/prod/client/ns/sa", caller.Client, ""},
		{byDefault, "spiffe://example.org/ringside/prod/client", caller.Unknown, ""},
		{byDefault, "spiffe://example.org/ringside/prod/member", caller.Unknown, ""},
		{byDefault, "spiffe://example.org/ringside/prod/member/a/b", caller.Unknown, ""},
		{byDefault, "spiffe://example.org/x/ringside/prod/member/a", caller.Unknown, ""},
		{byDefault, "spiffe://example.org/ringside/prod2/member/a", caller.Unknown, ""},
		{byDefault, "spiffe://example.org/ringside/{cluster}/member/a", caller.Unknown, ""},
		{byDefault, "spiffe://example.com/ringside/prod/member/a", caller.Unknown, ""},
		{byDefault, "spiffe://sub.example.org/ringside/prod/member/a", caller.Unknown, ""},
		{byDefault, "spiffe://example.org/ringside/prod/Member/a", caller.Unknown, ""},
		{byDefault, "spiffe://example.org", caller.Unknown, ""},
		{mapped, "spiffe://example.org/ns/cache/pod/a", caller.Member, "a"},
		{mapped, "spiffe://example.org/ns/web/sa/shop", caller.Client, ""},
		{mapped, "spiffe://example.org/ringside/prod/member/a", caller.Unknown, ""},
		{mustNew(t, Config{Cluster: "prod"}), "spiffe://example.org/ringside/prod/member/a", caller.Unknown, ""},
	} {
		id, err := spiffeid.FromString(test.id)
		if err != nil {
			if test.role != caller.Unknown {
				t.Errorf("%s: %v", test.id, err)
			}
			continue
		}
		role, member, err := test.scheme.Identify(id)
		if role != test.role || member != test.member || (err == nil) != (role != caller.Unknown) {
			t.Errorf("%s: got %v %q, %v; want %v %q", test.id, role, member, err, test.role, test.member)
		}
	}
}

func TestSchemeExplainsWrongPatterns(t *testing.T) {
	for want, c := range map[string]Config{
		"trust_domain: want a name":  {TrustDomain: "Example.org", Cluster: "a"},
		"trust_domain: want":         {TrustDomain: "spiffe://example.org/x", Cluster: "a"},
		"cluster: want letters":      {Cluster: "a/b"},
		"cluster: want letters,":     {},
		"member_path: want a path":   {Cluster: "a", MemberPath: "/member"},
		"member_path: want":          {Cluster: "a", MemberPath: "/member-{id}"},
		"member_path: want a path ":  {Cluster: "a", MemberPath: "member/{id}"},
		"member_path: want a path s": {Cluster: "a", MemberPath: "/{id}/{id}"},
		"client_path: want a path":   {Cluster: "a", ClientPath: "/{name}/client"},
		"client_path: want":          {Cluster: "a", ClientPath: "/client/{id}"},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", c, err, want)
		}
	}
}

func TestSegmentsOfAddressesDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, addr := range []string{"10.0.0.1:7072", "10.0.0.1:7073", "[fd00::1]:7072", "[fd00:0::1]:7072", "[::1]:7072", "pod-1", "pod_1"} {
		s := Segment(addr)
		if other := seen[s]; other != "" || spiffeid.ValidatePathSegment(s) != nil {
			t.Errorf("%s: got %q, want a valid segment that %q does not have", addr, s, other)
		}
		seen[s] = addr
	}
}

func TestClusterOfPrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"/ringside/default": "default", "/ringside/apps/eu": "apps.eu", "/caches/apps": "caches.apps", "/x": "x",
	} {
		if got := Cluster(prefix); got != want {
			t.Errorf("%s: got %q, want %q", prefix, got, want)
		}
	}
}

// FuzzIdentify checks that an accepted id is exactly that of its member or below the clients' path.
func FuzzIdentify(f *testing.F) {
	for _, id := range []string{
		"spiffe://example.org/ringside/prod/member/a", "spiffe://example.org/ringside/prod/client/a/b", "spiffe://example.org",
		"spiffe://example.org/ringside/prod/member/../client/a", "spiffe://example.org/ringside/prod/member/a?x", "SPIFFE://example.org/",
	} {
		f.Add(id)
	}
	s := mustNew(f, Config{TrustDomain: "example.org", Cluster: "prod"})
	f.Fuzz(func(t *testing.T, text string) {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return
		}
		role, member, err := s.Identify(id)
		switch {
		case err != nil && role == caller.Unknown:
		case role == caller.Member && s.Member(member) == text:
		case role == caller.Client && len(text) > len("spiffe://example.org/ringside/prod/client/") && strings.HasPrefix(text, "spiffe://example.org/ringside/prod/client/"):
		default:
			t.Errorf("%q: got %v %q, %v", text, role, member, err)
		}
	})
}
