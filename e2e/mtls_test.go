package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// authority issues the certificates of one cluster.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// memberURI is the SPIFFE id of a member of the cluster.
func memberURI(id string) string { return "spiffe://example.org/ringside/default/member/" + id }

// clientURI is that of a client.
func clientURI(name string) string { return "spiffe://example.org/ringside/default/client/" + name }

// issue writes a certificate for a SPIFFE id and its key to a new folder.
func (a *authority) issue(id string) rig.EnvoyTLS {
	a.t.Helper()
	return a.issueTo(a.t.TempDir(), id)
}

func (a *authority) issueTo(dir, id string) rig.EnvoyTLS {
	a.t.Helper()
	uri, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	key := newKey(a.t)
	cert := a.sign(&x509.Certificate{
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	write := func(file, kind string, der []byte) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	return rig.EnvoyTLS{
		Cert: write("tls.crt", "CERTIFICATE", cert.Raw), Key: write("tls.key", "EC PRIVATE KEY", der),
		CA: write("ca.crt", "CERTIFICATE", a.cert.Raw),
	}
}

// newClusterWithTLS starts a cluster like start, each of whose members has a certificate of ca.
func newClusterWithTLS(
	t testing.TB, ca *authority, n int, start func(t testing.TB, n int, config string) []*rig.Sidecar,
) *cluster {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		id := fmt.Sprintf("sidecar-%d", i+1)
		if err := os.Mkdir(filepath.Join(dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
		ca.issueTo(filepath.Join(dir, id), memberURI(id))
	}
	return newClusterOf(t, n, func(t testing.TB, n int, config string) []*rig.Sidecar {
		return start(t, n, config+fmt.Sprintf(
			"peer_tls: {cert_file: %[1]s/{{id}}/tls.crt, key_file: %[1]s/{{id}}/tls.key, ca_file: %[1]s/{{id}}/ca.crt}\n", dir))
	})
}

// Members with TLS accept an Envoy whose certificate is that of a client of their cluster, and no other.
func TestPromiseZNoPeerFetchWithTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newClusterWithTLS(t, ca, 3, rig.XDSSidecars)
	c.fill("key-", 1000)
	envoy := rig.EnvoyWithTLS(t, c.sidecars[0].XDS, ca.issue(clientURI("envoy")))
	for name, read := range map[string]reader{
		"Envoy with TLS, HTTP by path": overHTTP(c.client, envoy, "owned-metrics", false),
		"Envoy with TLS, gRPC":         overGRPC(dialGRPC(t, "passthrough:///"+envoy.HTTP), "owned-metrics"),
	} {
		awaitNoPeerFetches(t, name, read)
		n, last := peerFetches(t, 1000, read)
		report(t, promise{number: "Z1", n: 1000, held: n == 0, done: name, figure: peerFetchFigure(n, 1000, last)})
	}
	for name, identity := range map[string]rig.EnvoyTLS{
		"another cluster": ca.issue("spiffe://example.org/ringside/other/client/envoy"),
		"another CA":      newAuthority(t).issue(clientURI("envoy")),
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
