package peertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/peer/identity"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
)

// Authority issues certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// NewAuthority returns an authority with a new certificate.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key := NewKey(t)
	template := authority(t)
	return &Authority{Cert: sign(t, template, template, key, key), Key: key}
}

func authority(t testing.TB) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// Intermediate returns an authority whose certificate a has issued. change may be nil.
func (a *Authority) Intermediate(t testing.TB, change func(*x509.Certificate)) *Authority {
	t.Helper()
	template := authority(t)
	template.Subject.CommonName = "test intermediate"
	if change != nil {
		change(template)
	}
	key := NewKey(t)
	return &Authority{Cert: sign(t, template, a.Cert, key, a.Key), Key: key}
}

// PEM returns the certificate of the authority.
func (a *Authority) PEM() []byte { return certPEM(a.Cert) }

// Identity is a certificate with its key, as PEM.
type Identity struct{ Cert, Key []byte }

// The trust domain and cluster of all test identities.
const (
	TrustDomain = "example.org"
	Cluster     = "default"
)

// Scheme is the scheme of the test identities.
func Scheme(t testing.TB) *identity.Scheme {
	t.Helper()
	s, err := identity.New(identity.Config{Cluster: Cluster})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// WithURI gives a certificate the URI SANs instead of that of member "m".
func WithURI(uris ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, text := range uris {
			uri, err := url.Parse(text)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, uri)
		}
	}
}

// WithPath gives a certificate the SPIFFE id with the path, in the trust domain of the tests.
func WithPath(path string) func(*x509.Certificate) { return WithURI("spiffe://" + TrustDomain + path) }

// AsMember gives a certificate the id of a member.
func AsMember(id string) func(*x509.Certificate) {
	return WithPath("/ringside/" + Cluster + "/member/" + identity.Segment(id))
}

// AsClient gives a certificate the id of a client.
func AsClient(name string) func(*x509.Certificate) {
	return WithPath("/ringside/" + Cluster + "/client/" + name)
}

// Named gives a certificate DNS names instead of a SPIFFE id.
func Named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, names }
}

// Issue issues the identity of the member "m", which every member accepts, unless change, which may be nil, changes it.
func (a *Authority) Issue(t testing.TB, change func(*x509.Certificate)) Identity {
	t.Helper()
	template := leaf(t)
	if change != nil {
		change(template)
	}
	key := NewKey(t)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{
		Cert: certPEM(sign(t, template, a.Cert, key, a.Key)),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}
}

// leaf is the template of the identity of the member "m".
func leaf(t testing.TB) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: serial(t),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	AsMember("m")(template)
	return template
}

// Parse returns the identity as a tls.Certificate.
func (i Identity) Parse(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(i.Cert, i.Key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// NewKey returns a new private key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, key crypto.Signer, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Files are an identity on disk.
type Files struct{ mtls.Config }

// WriteFiles writes an identity to a new folder.
func WriteFiles(t testing.TB, id Identity, ca []byte) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{mtls.Config{
		CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), CAFile: filepath.Join(dir, "ca.crt"),
		Scheme: Scheme(t),
	}}
	f.Write(t, id, ca)
	return f
}

// Write replaces the files one by one, so that readers may see some old and some new files.
func (f Files) Write(t testing.TB, id Identity, ca []byte) {
	t.Helper()
	for name, content := range map[string][]byte{f.CertFile: id.Cert, f.KeyFile: id.Key, f.CAFile: ca} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// NewCredentials returns mutual TLS with an identity and the certificates of its authorities.
func NewCredentials(t testing.TB, id Identity, ca []byte) *mtls.Credentials {
	t.Helper()
	creds, err := mtls.New(t.Context(), WriteFiles(t, id, ca).Config)
	if err != nil {
		t.Fatal(err)
	}
	return creds
}
