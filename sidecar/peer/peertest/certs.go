package peertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

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
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := NewKey(t)
	return &Authority{Cert: sign(t, template, template, key, key), Key: key}
}

// PEM returns the certificate of the authority.
func (a *Authority) PEM() []byte { return certPEM(a.Cert) }

// Identity is a certificate with its key, as PEM.
type Identity struct{ Cert, Key []byte }

// Issue issues an identity that every member accepts, unless change, which may be nil, makes it invalid.
func (a *Authority) Issue(t testing.TB, change func(*x509.Certificate)) Identity {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), DNSNames: []string{mtls.DefaultName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
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

func sign(t testing.TB, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
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
	creds, err := mtls.New(WriteFiles(t, id, ca).Config)
	if err != nil {
		t.Fatal(err)
	}
	return creds
}
