package warnings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/config"
)

func TestWritesAreWarnedOf(t *testing.T) {
	writable := map[string]config.Dataset{"a": {Table: "t", Key: []string{"k"}, Version: "v", Writable: true}, "b": {Version: "v"}}
	peers := config.Membership{Static: []string{"10.0.0.1:7072"}}
	identity := config.PeerTLS{CertFile: "c", KeyFile: "k", CAFile: "a"}
	open := func(who string) map[string]config.Dataset {
		d := writable["a"]
		d.Allow.Write = []string{who}
		return map[string]config.Dataset{"a": d}
	}
	const rows = ": every client that can reach it can change the rows of a"
	for _, test := range []struct {
		name   string
		config config.Config
		want   []string // the warnings that are about writes
	}{
		{"on loopback", config.Config{Datasets: open("*")}, nil},
		{"only the pod may write", config.Config{Listen: config.Listen{HTTP: "0.0.0.0:80"}, Datasets: writable}, nil},
		{"only a user may write", config.Config{Listen: config.Listen{HTTP: "0.0.0.0:80"}, Datasets: open("unix:uid=1")}, nil},
		{"read only", config.Config{Listen: config.Listen{HTTP: "0.0.0.0:80"}, Datasets: map[string]config.Dataset{"b": {}}}, nil},
		{
			"HTTP for all", config.Config{Listen: config.Listen{HTTP: "0.0.0.0:80"}, Datasets: open("*")},
			[]string{"listen.http is 0.0.0.0:80" + rows},
		},
		{
			"gRPC for all", config.Config{Listen: config.Listen{GRPC: ":81"}, Datasets: open("network")},
			[]string{"listen.grpc is :81" + rows},
		},
		{
			"members that are not authenticated", config.Config{Membership: peers, PeerTLS: config.PeerTLS{Insecure: true}, Datasets: writable},
			[]string{"listen.peer is 0.0.0.0:7072, without peer_tls" + rows},
		},
		{"members that are", config.Config{Membership: peers, PeerTLS: identity, Datasets: writable}, nil},
		{
			"without versions", config.Config{Datasets: map[string]config.Dataset{"a": {Table: "t", Key: []string{"k"}, Writable: true}}},
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

func TestTokenFilesAreWarnedOf(t *testing.T) {
	const canary = "canary-5f3a"
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want []string
	}{
		{strings.Repeat("x", 32), 0o600, nil},
		{strings.Repeat("x", 32) + "\n\n", 0o440, nil},
		{strings.Repeat("x", 32), 0o644, []string{"tokens.a.file can be read by every user"}},
		{canary + "\n" + strings.Repeat("x", 32), 0o604, []string{"can be read by every user", "a token of 11 bytes"}},
	} {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, tt.mode); err != nil {
			t.Fatal(err)
		}
		got := ofTokens(config.Config{Tokens: map[string]config.Token{"a": {File: file}}})
		if len(got) != len(tt.want) || strings.Contains(strings.Join(got, "\n"), canary) {
			t.Errorf("mode %o: got %q, want %q", tt.mode, got, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("mode %o: got %q, want %q in it", tt.mode, got[i], want)
			}
		}
	}
}
