package peertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
)

// BadIdentity is an identity that no TLS entry point may accept.
type BadIdentity struct {
	Name         string
	Certificates []tls.Certificate // none or one
	MaxVersion   uint16            // of TLS; 0 for the default
	// Reason is that of the rejection.
	Reason mtls.Reason
}

// Config returns the bad side's configuration, for clients and servers. It accepts every other side.
func (b BadIdentity) Config() *tls.Config {
	c := &tls.Config{Certificates: b.Certificates, InsecureSkipVerify: true, MaxVersion: b.MaxVersion}
	if len(b.Certificates) > 0 {
		// A client would send no certificate if the server's hint of its authorities does not fit.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &b.Certificates[0], nil }
	}
	if b.MaxVersion != 0 {
		c.MinVersion = tls.VersionTLS10
	}
	return c
}

// BadIdentities returns identities that a member of ca must reject, at the side of a connection that usage stands for: all
// would be valid as the member "m" without the fault in their name.
func BadIdentities(t testing.TB, ca *Authority, usage x509.ExtKeyUsage) []BadIdentity {
	t.Helper()
	var list []BadIdentity
	add := func(name string, reason mtls.Reason, certs ...tls.Certificate) {
		list = append(list, BadIdentity{Name: name, Reason: reason, Certificates: certs})
	}
	issued := func(name string, reason mtls.Reason, change func(*x509.Certificate)) {
		add(name, reason, ca.Issue(t, change).Parse(t))
	}
	other := NewAuthority(t)
	add("no certificate", mtls.ReasonNoCertificate)
	add("another CA", mtls.ReasonUntrusted, other.Issue(t, nil).Parse(t))
	add("another CA and its certificate", mtls.ReasonUntrusted, chained(t, other, other).Parse(t))
	add("self-signed", mtls.ReasonUntrusted, selfSigned(t))
	add("key of another", mtls.ReasonProtocol, withKey(ca.Issue(t, nil).Parse(t), NewKey(t)))
	list = append(list, BadIdentity{
		Name: "TLS 1.1", Certificates: []tls.Certificate{ca.Issue(t, nil).Parse(t)}, MaxVersion: tls.VersionTLS11, Reason: mtls.ReasonProtocol,
	})

	issued("expired", mtls.ReasonExpired, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	issued("not yet valid", mtls.ReasonExpired, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	usages := func(list ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = list }
	}
	wrong := x509.ExtKeyUsageServerAuth
	if usage == wrong {
		wrong = x509.ExtKeyUsageClientAuth
	}
	issued("for the other side", mtls.ReasonUsage, usages(wrong))
	issued("for code signing", mtls.ReasonUsage, usages(x509.ExtKeyUsageCodeSigning))
	issued("certificate of a CA", mtls.ReasonUsage, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
	issued("for signing certificates", mtls.ReasonUsage, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })

	issued("signed with SHA-1", mtls.ReasonUntrusted, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 })

	issued("no name", mtls.ReasonIdentity, Named())
	issued("DNS name only", mtls.ReasonIdentity, Named("ringside"))
	issued("DNS wildcard only", mtls.ReasonIdentity, Named("*", "*.example.org"))
	issued("IP address only", mtls.ReasonIdentity, func(c *x509.Certificate) { c.URIs, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)} })
	issued("common name only", mtls.ReasonIdentity, func(c *x509.Certificate) { c.URIs, c.Subject.CommonName = nil, "ringside" })
	for name, uri := range map[string]string{
		"other trust domain":        "spiffe://example.com/ringside/default/member/m",
		"subdomain of trust domain": "spiffe://a.example.org/ringside/default/member/m",
		"other cluster":             "spiffe://example.org/ringside/other/member/m",
		"longer name of cluster":    "spiffe://example.org/ringside/default2/member/m",
		"no cluster":                "spiffe://example.org/ringside/member/m",
		"unknown role":              "spiffe://example.org/ringside/default/admin/m",
		"no member":                 "spiffe://example.org/ringside/default/member",
		"longer path":               "spiffe://example.org/ringside/default/member/m/x",
		"path below another":        "spiffe://example.org/x/ringside/default/member/m",
		"upper case":                "spiffe://example.org/ringside/default/Member/m",
		"escaped path":              "spiffe://example.org/ringside/default/member/%6d%20",
		"dot segments":              "spiffe://example.org/ringside/other/../default/member/m",
		"query":                     "spiffe://example.org/ringside/default/member/m?x=y",
		"fragment":                  "spiffe://example.org/ringside/default/member/m#x",
		"user":                      "spiffe://user@example.org/ringside/default/member/m",
		"port":                      "spiffe://example.org:443/ringside/default/member/m",
		"https":                     "https://example.org/ringside/default/member/m",
		"no path":                   "spiffe://example.org",
	} {
		issued("URI: "+name, mtls.ReasonIdentity, WithURI(uri))
	}
	const mine = "spiffe://example.org/ringside/default/member/m"
	issued("two URIs", mtls.ReasonIdentity, WithURI(mine, "spiffe://example.org/ringside/other/member/m"))
	issued("the same URI twice", mtls.ReasonIdentity, WithURI(mine, mine))
	issued("a URI of another scheme beside its own", mtls.ReasonIdentity, WithURI("https://example.org/", mine))

	between := ca.Intermediate(t, nil)
	add("missing intermediate", mtls.ReasonUntrusted, between.Issue(t, nil).Parse(t))
	old := ca.Intermediate(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	add("expired intermediate", mtls.ReasonExpired, chained(t, old, old).Parse(t))
	foreign := ca.Intermediate(t, func(c *x509.Certificate) {
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"example.com"}, true
	})
	add("outside the names that its issuer may use", mtls.ReasonUntrusted, chained(t, foreign, foreign).Parse(t))
	leaf := ca.Issue(t, nil).Parse(t)
	member := &Authority{Cert: leaf.Leaf, Key: leaf.PrivateKey.(*ecdsa.PrivateKey)}
	add("issued by a member", mtls.ReasonUntrusted, chained(t, member, member).Parse(t))

	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	add("RSA with 1024 bits", mtls.ReasonWeakKey, ca.issueTo(t, weak))
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	add("P-224", mtls.ReasonProtocol, ca.issueTo(t, p224))
	return list
}

// chained is an identity that issuer has issued, with the certificate of sent in its chain.
func chained(t testing.TB, issuer, sent *Authority) Identity {
	t.Helper()
	id := issuer.Issue(t, nil)
	id.Cert = append(id.Cert, sent.PEM()...)
	return id
}

// selfSigned is a certificate of a member that its own key has signed.
func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key := NewKey(t)
	template := leaf(t)
	template.Subject = pkix.Name{CommonName: "m"}
	cert := sign(t, template, template, key, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// withKey presents a certificate with another key.
func withKey(c tls.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	c.PrivateKey = key
	return c
}

// issueTo issues the identity of member "m" to a key.
func (a *Authority) issueTo(t testing.TB, key crypto.Signer) tls.Certificate {
	t.Helper()
	cert := sign(t, leaf(t), a.Cert, key, a.Key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}
