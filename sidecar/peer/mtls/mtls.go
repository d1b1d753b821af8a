// Package mtls is mutual TLS between members, with certificates that are reloaded from files.
package mtls

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

// DefaultName is the DNS name in the certificate of each member, unless the configuration has another.
const DefaultName = "ringside"

// Config names the files of a member's identity. All are PEM files.
type Config struct {
	// CertFile holds the certificate of this member, followed by its intermediates, and KeyFile its private key.
	CertFile, KeyFile string
	// CAFile holds the certificates of the authorities that issue certificates to members.
	CAFile string
	// Name is the DNS name that every member's certificate must have; DefaultName when it is empty.
	Name string
}

// Credentials are mutual TLS, 1.2 or later. Each side accepts the other when its certificate chains to the CA, is valid now
// and for its role (server or client authentication), and has the name of the members: members are called by address, and
// a certificate for an address would not outlive a pod.
//
// The files are read at each handshake. Handshakes are few, and a replaced certificate is used from the next connection on.
// While files are missing or do not match, as during their replacement, the last valid ones stay in use.
type Credentials struct {
	config Config
	name   string

	mu       sync.Mutex // guards the rest
	material material
	failing  bool
	failures int64
}

var _ credentials.TransportCredentials = (*Credentials)(nil)

// material is the content of the files.
type material struct {
	certPEM, keyPEM, caPEM []byte
	cert                   tls.Certificate
	roots                  *x509.CertPool
}

// New reads the files. The error says which file is wrong, or why other members would reject the certificate.
func New(c Config) (*Credentials, error) {
	creds := &Credentials{config: c, name: cmp.Or(c.Name, DefaultName)}
	if err := creds.reloadLocked(); err != nil {
		return nil, err
	}
	return creds, nil
}

// ReloadFailures returns the number of handshakes that used older files because the present ones are wrong, and whether
// the latest handshake did.
func (creds *Credentials) ReloadFailures() (count int64, failing bool) {
	creds.mu.Lock()
	defer creds.mu.Unlock()
	return creds.failures, creds.failing
}

func (creds *Credentials) current() material {
	creds.mu.Lock()
	defer creds.mu.Unlock()
	creds.failing = creds.reloadLocked() != nil
	if creds.failing {
		creds.failures++
	}
	return creds.material
}

func (creds *Credentials) reloadLocked() error {
	var next material
	files := []struct {
		name string
		into *[]byte
	}{{creds.config.CertFile, &next.certPEM}, {creds.config.KeyFile, &next.keyPEM}, {creds.config.CAFile, &next.caPEM}}
	for _, file := range files {
		pem, err := os.ReadFile(file.name)
		if err != nil {
			return fmt.Errorf("read this member's certificate, key or CA: %w", err)
		}
		*file.into = pem
	}
	if creds.material.cert.Leaf != nil && next.same(creds.material) {
		return nil
	}
	if err := next.parse(creds.config, creds.name); err != nil {
		return err
	}
	creds.material = next
	return nil
}

func (m *material) same(other material) bool {
	return bytes.Equal(m.certPEM, other.certPEM) &&
		bytes.Equal(m.keyPEM, other.keyPEM) &&
		bytes.Equal(m.caPEM, other.caPEM)
}

// parse also rejects a certificate that other members would reject: only here does the error say why.
func (m *material) parse(c Config, name string) (err error) {
	if m.cert, err = tls.X509KeyPair(m.certPEM, m.keyPEM); err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.CertFile, c.KeyFile, err)
	}
	m.roots = x509.NewCertPool()
	if !m.roots.AppendCertsFromPEM(m.caPEM) {
		return fmt.Errorf("CA file %s contains no certificate", c.CAFile)
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
func (creds *Credentials) ClientHandshake(ctx context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	m := creds.current()
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{m.cert},
		RootCAs:      m.roots,
		MinVersion:   tls.VersionTLS12,
	}).ClientHandshake(ctx, creds.name, c)
}

// ServerHandshake implements credentials.TransportCredentials.
func (creds *Credentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(creds.server()).ServerHandshake(c)
}

// ServerConfig is the same identity, with the same requirements for callers, for servers other than grpc's. It offers
// HTTP/2 and HTTP/1.1.
func (creds *Credentials) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := creds.server()
			c.NextProtos = []string{"h2", "http/1.1"}
			return c, nil
		},
	}
}

func (creds *Credentials) server() *tls.Config {
	m := creds.current()
	return &tls.Config{
		Certificates:     []tls.Certificate{m.cert},
		ClientCAs:        m.roots,
		ClientAuth:       tls.RequireAndVerifyClientCert,
		VerifyConnection: creds.verifyName, //guard:any-certificate-of-ca-reads-cache
		MinVersion:       tls.VersionTLS12,
		// Each handshake has its own config and therefore its own ticket key: no ticket could be used.
		SessionTicketsDisabled: true,
	}
}

// verifyName does for clients what crypto/tls does for servers only. Without it, any client certificate of the CA would be
// accepted.
func (creds *Credentials) verifyName(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the caller sent no certificate")
	}
	return s.PeerCertificates[0].VerifyHostname(creds.name)
}

// Info implements credentials.TransportCredentials.
func (creds *Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials. Callers cannot modify creds, so it is its own clone.
func (creds *Credentials) Clone() credentials.TransportCredentials { return creds }

// OverrideServerName implements credentials.TransportCredentials.
func (creds *Credentials) OverrideServerName(string) error {
	return errors.New("the server name is part of the configuration")
}
