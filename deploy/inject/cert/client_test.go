package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates of clients.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign returns a certificate of a, or a self-signed one if a has none yet.
func (a *authority) sign(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(1), time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, certificate
}

func (a *authority) client(template *x509.Certificate) []tls.Certificate {
	key, certificate := a.sign(template)
	return []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}}
}

func (a *authority) write(file string) {
	a.t.Helper()
	if err := os.WriteFile(file, encode("CERTIFICATE", a.cert.Raw), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// handshake returns the error of the server.
func handshake(t *testing.T, config *tls.Config, certificates []tls.Certificate) error {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, Certificates: certificates})
		_ = client.Handshake() // the server's error is checked
		_, _ = client.Read(make([]byte, 1))
	}()
	return tls.Server(near, config).Handshake()
}

func TestRequireClients(t *testing.T) {
	serving, key, err := generate([]string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(serving, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	ours, other := newAuthority(t), newAuthority(t)
	ours.write(file)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	apiServer := func() *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: usage}
	}
	expired := apiServer()
	expired.NotAfter = time.Now().Add(-time.Minute)
	tests := []struct {
		name         string
		names        []string
		certificates []tls.Certificate
		want         string // "": accepted
	}{
		{"any name", nil, ours.client(apiServer()), ""},
		{"the common name", []string{"x", "kube-apiserver"}, ours.client(apiServer()), ""},
		{"a DNS name", []string{"api"}, ours.client(&x509.Certificate{DNSNames: []string{"api"}, ExtKeyUsage: usage}), ""},
		{"none", nil, nil, "client didn't provide a certificate"},
		{"another CA", nil, other.client(apiServer()), "certificate signed by unknown authority"},
		{"expired", nil, ours.client(expired), "expired"},
		{"of a server", nil, ours.client(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), "incompatible key usage"},
		{"another name", []string{"kube-apiserver"}, ours.client(&x509.Certificate{Subject: pkix.Name{CommonName: "x"}, ExtKeyUsage: usage}),
			"not for one of the allowed names"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
			if err := RequireClients(config, file, test.names); err != nil {
				t.Fatal(err)
			}
			err := handshake(t, config, test.certificates)
			if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got the error %v, want %q", err, test.want)
			}
		})
	}
	t.Run("a renewed CA", func(t *testing.T) {
		config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		if err := RequireClients(config, file, nil); err != nil {
			t.Fatal(err)
		}
		other.write(file)
		if err := handshake(t, config, other.client(apiServer())); err != nil {
			t.Error(err)
		}
		if err := handshake(t, config, ours.client(apiServer())); err == nil {
			t.Error("a client of the previous CA is accepted")
		}
	})
	t.Run("no CA", func(t *testing.T) {
		if err := RequireClients(&tls.Config{}, filepath.Join(t.TempDir(), "none"), nil); err == nil {
			t.Error("a missing file is accepted")
		}
	})
}
