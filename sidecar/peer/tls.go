package peer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc/credentials"
)

// DefaultName is the DNS name that the certificate of each member carries, unless the config says otherwise.
const DefaultName = "ringside"

// TLSConfig says where a member's identity lies. All files are PEM.
type TLSConfig struct {
	// CertFile holds the certificate of this member, followed by its intermediates, and KeyFile its private key.
	CertFile, KeyFile string
	// CAFile holds the certificates of those who vouch for members.
	CAFile string
	// Name is the DNS name that every member's certificate must carry; DefaultName when it is empty.
	Name string
}

// TLS is mutual TLS between members, 1.2 or later. Each side accepts the other when its certificate chains to the CA,
// is valid now and for its role (server or client authentication), and carries the name of the members: members are
// called by address, and a certificate per address would not outlive a pod.
//
// The files are read at each handshake, of which there are few, so that a certificate that was replaced is in use from
// the next connection on. Files that are missing or do not fit together, as in the middle of their replacement, leave
// the last good ones in force.
type TLS struct {
	config TLSConfig
	name   string

	mu       sync.Mutex // guards the rest
	material material
	failing  bool
	failures int64
}

var _ credentials.TransportCredentials = (*TLS)(nil)

// material is what the files held.
type material struct {
	certPEM, keyPEM, caPEM []byte
	cert                   tls.Certificate
	roots                  *x509.CertPool
}

// NewTLS reads the files. The error says which of them is wrong, or why other members would refuse the certificate.
func NewTLS(c TLSConfig) (*TLS, error) {
	t := &TLS{config: c, name: cmp.Or(c.Name, DefaultName)}
	if err := t.reloadLocked(); err != nil {
		return nil, err
	}
	return t, nil
}

// ReloadFailures returns how many handshakes went on with older files because the present ones are wrong, and whether
// the latest did.
func (t *TLS) ReloadFailures() (count int64, failing bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failures, t.failing
}

func (t *TLS) current() material {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failing = t.reloadLocked() != nil
	if t.failing {
		t.failures++
	}
	return t.material
}

func (t *TLS) reloadLocked() error {
	var next material
	files := []struct {
		name string
		into *[]byte
	}{{t.config.CertFile, &next.certPEM}, {t.config.KeyFile, &next.keyPEM}, {t.config.CAFile, &next.caPEM}}
	for _, file := range files {
		pem, err := os.ReadFile(file.name)
		if err != nil {
			return fmt.Errorf("read the identity of this member: %w", err)
		}
		*file.into = pem
	}
	if t.material.cert.Leaf != nil && next.same(t.material) {
		return nil
	}
	if err := next.parse(t.config, t.name); err != nil {
		return err
	}
	t.material = next
	return nil
}

func (m *material) same(other material) bool {
	return bytes.Equal(m.certPEM, other.certPEM) &&
		bytes.Equal(m.keyPEM, other.keyPEM) &&
		bytes.Equal(m.caPEM, other.caPEM)
}

// parse also refuses a certificate that other members would refuse: here it can be said why.
func (m *material) parse(c TLSConfig, name string) (err error) {
	if m.cert, err = tls.X509KeyPair(m.certPEM, m.keyPEM); err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.CertFile, c.KeyFile, err)
	}
	m.roots = x509.NewCertPool()
	if !m.roots.AppendCertsFromPEM(m.caPEM) {
		return fmt.Errorf("CA file %s holds no certificate", c.CAFile)
	}
	for _, role := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := m.verify(role, name); err != nil {
			return fmt.Errorf("certificate %s against CA file %s: %w", c.CertFile, c.CAFile, err)
		}
	}
	return nil
}

func (m *material) verify(role x509.ExtKeyUsage, name string) error {
	intermediates := x509.NewCertPool()
	for _, der := range m.cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(c)
		}
	}
	_, err := m.cert.Leaf.Verify(x509.VerifyOptions{
		DNSName: name, Roots: m.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{role},
	})
	return err
}

// ClientHandshake implements credentials.TransportCredentials.
func (t *TLS) ClientHandshake(ctx context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	m := t.current()
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{m.cert},
		RootCAs:      m.roots,
		MinVersion:   tls.VersionTLS12,
	}).ClientHandshake(ctx, t.name, c)
}

// ServerHandshake implements credentials.TransportCredentials.
func (t *TLS) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(t.server()).ServerHandshake(c)
}

// Config is the same identity, and the same demands on callers, for servers that are not grpc's: it offers HTTP/2 and
// HTTP/1.1.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := t.server()
			c.NextProtos = []string{"h2", "http/1.1"}
			return c, nil
		},
	}
}

func (t *TLS) server() *tls.Config {
	m := t.current()
	return &tls.Config{
		Certificates:     []tls.Certificate{m.cert},
		ClientCAs:        m.roots,
		ClientAuth:       tls.RequireAndVerifyClientCert,
		VerifyConnection: t.verifyName, //guard:any-certificate-ca-reads-cache
		MinVersion:       tls.VersionTLS12,
		// Each handshake has a config, and so a ticket key, of its own: no ticket could be used.
		SessionTicketsDisabled: true,
	}
}

// verifyName is what crypto/tls does for servers only: without it, any client certificate of the CA would do.
func (t *TLS) verifyName(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the caller has no certificate")
	}
	return s.PeerCertificates[0].VerifyHostname(t.name)
}

// Info implements credentials.TransportCredentials.
func (t *TLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials. Nothing of t can be changed from outside, so it is its own clone.
func (t *TLS) Clone() credentials.TransportCredentials { return t }

// OverrideServerName implements credentials.TransportCredentials.
func (t *TLS) OverrideServerName(string) error {
	return errors.New("the name of the members is set in the config")
}
