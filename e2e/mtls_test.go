package e2e

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// envoyTLS writes a certificate of ca for an Envoy.
func envoyTLS(t testing.TB, ca *peertest.Authority, change func(*x509.Certificate)) rig.EnvoyTLS {
	t.Helper()
	f := peertest.WriteFiles(t, ca.Issue(t, change), ca.PEM())
	return rig.EnvoyTLS{Cert: f.CertFile, Key: f.KeyFile, CA: f.CAFile}
}

// newClusterWithTLS starts a cluster like start, each of whose members has a certificate of ca.
func newClusterWithTLS(
	t testing.TB, ca *peertest.Authority, n int, start func(t testing.TB, n int, config string) []*rig.Sidecar,
) *cluster {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		id := fmt.Sprintf("sidecar-%d", i+1)
		if err := os.Mkdir(filepath.Join(dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
		filesIn(filepath.Join(dir, id)).Write(t, ca.Issue(t, peertest.AsMember(id)), ca.PEM())
	}
	return newClusterWithTLSIn(t, dir, n, start)
}

// newClusterWithTLSIn is newClusterWithTLS with certificates that exist, in a folder for each member.
func newClusterWithTLSIn(
	t testing.TB, dir string, n int, start func(t testing.TB, n int, config string) []*rig.Sidecar,
) *cluster {
	t.Helper()
	f := filesIn(filepath.Join(dir, "{{id}}"))
	return newClusterOf(t, n, func(t testing.TB, n int, config string) []*rig.Sidecar {
		return start(t, n, config+fmt.Sprintf("peer_tls: {cert_file: %s, key_file: %s, ca_file: %s}\n", f.CertFile, f.KeyFile, f.CAFile))
	})
}

// filesIn are the certificate files in a folder.
func filesIn(dir string) (f peertest.Files) {
	f.CertFile, f.KeyFile, f.CAFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")
	return f
}

// Members with TLS accept an Envoy whose certificate is that of a client of their cluster, and no other.
func TestPromiseZNoPeerFetchWithTLS(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	c := newClusterWithTLS(t, ca, 3, rig.XDSSidecars)
	c.fill("key-", 1000)
	envoy := rig.EnvoyWithTLS(t, c.sidecars[0].XDS, envoyTLS(t, ca, peertest.AsClient("envoy")))
	for name, read := range map[string]reader{
		"Envoy with TLS, HTTP by path": overHTTP(c.client, envoy, "owned-metrics", false),
		"Envoy with TLS, gRPC":         overGRPC(dialGRPC(t, "passthrough:///"+envoy.HTTP), "owned-metrics"),
	} {
		awaitNoPeerFetches(t, name, read)
		n, last := peerFetches(t, 1000, read)
		report(t, promise{number: "Z1", n: 1000, held: n == 0, done: name, figure: peerFetchFigure(n, 1000, last)})
	}
	for name, identity := range map[string]rig.EnvoyTLS{
		"another cluster": envoyTLS(t, ca, peertest.WithPath("/ringside/other/client/envoy")),
		"another CA":      envoyTLS(t, peertest.NewAuthority(t), peertest.AsClient("envoy")),
	} {
		other := rig.EnvoyWithTLS(t, c.sidecars[0].XDS, identity)
		response, err := c.client.Get("http://" + other.HTTP + "/v1/owned-metrics/key-1")
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %s", name, response.Status)
		}
	}
	noRejections(t, c.sidecars)
}

// An Envoy and a client sidecar on other hosts get the ring from a publisher that requires their certificate.
func TestRingIsPublishedOverTLS(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	ip := hostAddress(t)
	c := newClusterWithTLS(t, ca, 2, func(t testing.TB, n int, config string) []*rig.Sidecar {
		sidecars := make([]*rig.Sidecar, n)
		for i := range sidecars {
			sidecars[i] = rig.NewSidecar(t, fmt.Sprintf("sidecar-%d", i+1), config)
			sidecars[i].PublishXDSAt(ip)
			sidecars[i].Start()
		}
		rig.AwaitRing(t, sidecars)
		return sidecars
	})
	c.fill("key-", 1000)
	envoy := rig.EnvoyWithTLS(t, c.sidecars[0].XDS, envoyTLS(t, ca, peertest.AsClient("envoy")))
	awaitNoPeerFetches(t, "Envoy", overHTTP(c.client, envoy, "owned-metrics", false))

	client := func(id string, files peertest.Files) *rig.Sidecar {
		s := rig.NewSidecar(t, id, c.configOf(fmt.Sprintf("{xds: [%q, %q]}", c.sidecars[0].XDS, c.sidecars[1].XDS))+fmt.Sprintf(
			"peer_tls: {cert_file: %q, key_file: %q, ca_file: %q}\n", files.CertFile, files.KeyFile, files.CAFile))
		s.RoleClient()
		s.Start()
		return s
	}
	s := client("client", peertest.WriteFiles(t, ca.Issue(t, peertest.AsMember("client")), ca.PEM()))
	c.awaitRingOf(s)
	if err := c.through(s, "owned-metrics")("key-1"); err != nil {
		t.Errorf("a client sidecar: got %v", err)
	}
	other := peertest.NewAuthority(t)
	foreign := client("foreign", peertest.WriteFiles(t, other.Issue(t, peertest.AsMember("foreign")), other.PEM()))
	rig.Eventually(t, time.Minute, func() error {
		if n := foreign.Metric("ringside_peer_tls_rejected_total", `reason="untrusted"`); n == 0 {
			return errors.New("it has rejected no publisher")
		}
		return nil
	})
	if view := ringOf(t, foreign); !strings.Contains(view, `"connected":false`) {
		t.Errorf("a client of another authority: got %s, want no ring", view)
	}
}
