package warnings

import (
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/config"
)

func TestWritesAreWarnedOf(t *testing.T) {
	writable := map[string]config.Dataset{"a": {Table: "t", Key: "k", Version: "v", Writable: true}, "b": {Version: "v"}}
	peers := config.Membership{Static: []string{"10.0.0.1:7072"}}
	identity := config.PeerTLS{CertFile: "c", KeyFile: "k", CAFile: "a"}
	const rows = ": every client that can reach it can change the rows of a"
	for _, test := range []struct {
		name   string
		config config.Config
		want   []string // the warnings that are about writes
	}{
		{"on loopback", config.Config{Datasets: writable}, nil},
		{"read only", config.Config{Listen: config.Listen{HTTP: "0.0.0.0:80"}, Datasets: map[string]config.Dataset{"b": {}}}, nil},
		{
			"HTTP for all", config.Config{Listen: config.Listen{HTTP: "0.0.0.0:80"}, Datasets: writable},
			[]string{"listen.http is 0.0.0.0:80" + rows},
		},
		{
			"gRPC for all", config.Config{Listen: config.Listen{GRPC: ":81"}, Datasets: writable},
			[]string{"listen.grpc is :81" + rows},
		},
		{
			"members that are not authenticated", config.Config{Membership: peers, PeerTLS: config.PeerTLS{Insecure: true}, Datasets: writable},
			[]string{"listen.peer is 0.0.0.0:7072, without peer_tls" + rows},
		},
		{"members that are", config.Config{Membership: peers, PeerTLS: identity, Datasets: writable}, nil},
		{
			"without versions", config.Config{Datasets: map[string]config.Dataset{"a": {Table: "t", Key: "k", Writable: true}}},
			[]string{"datasets.a is writable without a version column"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ofWrites(test.config.Effective())
			if len(got) != len(test.want) {
				t.Fatalf("got %q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(got[i], want) || !strings.Contains(strings.Join(Of(test.config), "\n"), want) {
					t.Errorf("got %q, want %q in it", got[i], want)
				}
			}
		})
	}
}

func TestOldClientsWithPeerTLSAreWarnedOf(t *testing.T) {
	old := config.Membership{Etcd: config.Etcd{Endpoints: []string{"http://127.0.0.1:1"}, LegacyPrefix: "GroupCache"}}
	identity := config.PeerTLS{CertFile: "c", KeyFile: "k", CAFile: "a"}
	for _, tt := range []struct {
		config config.Config
		want   bool
	}{
		{config.Config{Membership: old, PeerTLS: identity}, true},
		{config.Config{Membership: old}, false},
		{config.Config{PeerTLS: identity}, false},
	} {
		all := strings.Join(Of(tt.config), "\n")
		if got := strings.Contains(all, "legacy_prefix"); got != tt.want {
			t.Errorf("%+v: %q", tt.config, all)
		}
	}
}
