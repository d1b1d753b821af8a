package mtls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/peer/identity"
)

// material is the identity of this member, and the authorities that it trusts.
type material struct {
	certPEM, keyPEM, caPEM []byte // of files, to notice changes
	cert                   tls.Certificate
	roots                  *x509.CertPool
	scheme                 *identity.Scheme  // in the trust domain of cert
	first                  *x509.Certificate // of its chain to expire
}

// readFilesLocked replaces the material if the files have changed and are valid.
func (creds *Credentials) readFilesLocked() error {
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
	used := &creds.identity.material
	if used.cert.Leaf != nil && next.same(used) {
		return nil
	}
	if err := next.parse(creds.config); err != nil {
		return err
	}
	*used = next
	return nil
}

func (m *material) same(other *material) bool {
	return bytes.Equal(m.certPEM, other.certPEM) &&
		bytes.Equal(m.keyPEM, other.keyPEM) &&
		bytes.Equal(m.caPEM, other.caPEM)
}

func (m *material) parse(c Config) (err error) {
	if m.cert, err = tls.X509KeyPair(m.certPEM, m.keyPEM); err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.CertFile, c.KeyFile, err)
	}
	m.roots = x509.NewCertPool()
	if !m.roots.AppendCertsFromPEM(m.caPEM) {
		return fmt.Errorf("CA file %s contains no certificate", c.CAFile)
	}
	if err := m.check(c); err != nil {
		return fmt.Errorf("certificate %s against CA file %s: %w", c.CertFile, c.CAFile, err)
	}
	return nil
}

// check returns why other members would reject the certificate of this one: only here does an error say so to its operator.
func (m *material) check(c Config) error {
	m.scheme = c.Scheme
	if id, err := x509svid.IDFromCert(m.cert.Leaf); err == nil && c.Scheme != nil {
		m.scheme = c.Scheme.In(id.TrustDomain())
	}
	chain, err := chainOf(m.cert)
	if err != nil {
		return err
	}
	for _, side := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		who, err := m.verify(c.Name, chain, side)
		if err != nil {
			return err
		}
		m.first = who.first
		if err := m.isSelf(who, c.Self); err != nil { //guard:member-starts-with-certificate-of-another
			return err
		}
	}
	return nil
}

func chainOf(cert tls.Certificate) ([]*x509.Certificate, error) {
	chain := []*x509.Certificate{cert.Leaf}
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse an intermediate certificate: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

func (m *material) isSelf(who holder, self string) error {
	switch {
	case who.Kind != caller.Member:
		return fmt.Errorf("%s is a client, but a sidecar needs the certificate of a member: %s", who.ID, m.scheme.Member(self))
	case self != "" && who.member != "" && who.member != identity.Segment(self):
		return fmt.Errorf("%s is the id of member %q, but this member is %q on the ring: issue a certificate with the URI SAN %s, "+
			"or correct node.id", who.ID, who.member, self, m.scheme.Member(self))
	}
	return nil
}

// holder is who has a certificate.
type holder struct {
	caller.Caller
	member string            // its id on the ring, as identity.Segment writes it; empty for clients and DNS names
	first  *x509.Certificate // of its chain to expire
}

// verify returns who has the first of the certificates. name is Config.Name.
func (m *material) verify(name string, certs []*x509.Certificate, side x509.ExtKeyUsage) (who holder, err error) {
	if len(certs) == 0 {
		return who, rejected(ReasonNoCertificate, errors.New("the other side sent no certificate"))
	}
	leaf := certs[0]
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 { //guard:authority-acts-as-member
		return who, rejected(ReasonUsage, errors.New("the certificate is that of an authority"))
	}
	chain, err := m.chain(certs, side)
	if err != nil {
		return who, err
	}
	if err := strong(chain); err != nil {
		return who, err
	}
	if who, err = m.identify(name, leaf); err != nil {
		return who, err
	}
	who.first = firstToExpire(chain)
	return who, nil
}

// chain returns the longest-living chain to an authority.
func (m *material) chain(certs []*x509.Certificate, side x509.ExtKeyUsage) ([]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{
		Roots: m.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{side}, //guard:any-usage-is-accepted
	})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
	case !errors.As(err, &invalid):
		return nil, rejected(ReasonUntrusted, err)
	case invalid.Reason == x509.Expired:
		return nil, rejected(ReasonExpired, err)
	case invalid.Reason == x509.IncompatibleUsage:
		return nil, rejected(ReasonUsage, err)
	default:
		return nil, rejected(ReasonUntrusted, err)
	}
	longest := chains[0]
	for _, other := range chains[1:] {
		if firstToExpire(other).NotAfter.After(firstToExpire(longest).NotAfter) {
			longest = other
		}
	}
	return longest, nil
}

func firstToExpire(chain []*x509.Certificate) *x509.Certificate {
	first := chain[0]
	for _, c := range chain[1:] {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	return first
}

// strong rejects keys that are too weak, except that of the authority, which its operator has chosen.
func strong(chain []*x509.Certificate) error {
	for _, c := range chain[:max(len(chain)-1, 1)] {
		weak := false
		switch key := c.PublicKey.(type) {
		case *rsa.PublicKey:
			weak = key.N.BitLen() < 2048 //guard:weak-key-is-accepted
		case *ecdsa.PublicKey:
			weak = key.Curve.Params().BitSize < 256
		}
		if weak {
			return rejected(ReasonWeakKey, errors.New("its key is weaker than RSA with 2048 bits or P-256"))
		}
	}
	return nil
}

// identify returns who has a certificate that was verified. A certificate with a URI is never taken for a DNS name: that would
// give a client both roles.
func (m *material) identify(name string, leaf *x509.Certificate) (who holder, err error) {
	if len(leaf.URIs) == 0 && name != "" { //guard:client-with-dns-name-is-member
		if err := leaf.VerifyHostname(name); err != nil {
			return who, rejected(ReasonIdentity, err)
		}
		who.Caller = caller.Caller{Kind: caller.Member, ID: name}
		return who, nil
	}
	id, err := x509svid.IDFromCert(leaf)
	switch {
	case err != nil:
		return who, rejected(ReasonIdentity, fmt.Errorf("no valid SPIFFE id: %w; want one URI SAN of the form %s", err, m.wanted()))
	case m.scheme == nil:
		return who, rejected(ReasonIdentity, fmt.Errorf("%s: only the name %q is accepted", id, name))
	}
	who.Kind, who.member, err = m.scheme.Identify(id)
	if err != nil {
		return who, rejected(ReasonIdentity, err)
	}
	who.ID = id.String()
	return who, nil
}

func (m *material) wanted() string {
	if m.scheme == nil {
		return "spiffe://…"
	}
	return m.scheme.Member("{id}")
}

// verifyMember verifies the certificate of the member that was called; an empty id means any member.
func (m *material) verifyMember(name string, certs []*x509.Certificate, id string) error {
	who, err := m.verify(name, certs, x509.ExtKeyUsageServerAuth)
	switch {
	case err != nil:
		return err
	case who.Kind != caller.Member:
		return rejected(ReasonRole, fmt.Errorf("%s answered, which is a client, not a member", who.ID))
	case id != "" && who.member != "" && who.member != identity.Segment(id): //guard:member-answers-for-another
		return rejected(ReasonMember, fmt.Errorf("%s answered at the address of member %q", who.ID, id))
	}
	return nil
}
