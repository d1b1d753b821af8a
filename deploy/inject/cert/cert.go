// Package cert provides the serving certificate of the webhook: either from files that cert-manager or another program
// renews, or self-signed, shared with the other replicas in a Secret, published to the API server, and renewed.
package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// FromFiles returns a tls.Config.GetCertificate that reads tls.crt and tls.key in dir at each handshake, so that a renewed
// certificate is used at once. Handshakes are rare, because the API server reuses connections.
func FromFiles(dir string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var last atomic.Pointer[tls.Certificate]
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := readPair(dir)
		if err != nil {
			if old := last.Load(); old != nil { //guard:files-of-two-certificates-fail
				return old, nil // one file is of before a renewal, the other of after it
			}
			return nil, err
		}
		last.Store(pair)
		return pair, nil
	}
}

func readPair(dir string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, corev1.TLSCertKey), filepath.Join(dir, corev1.TLSPrivateKeyKey))
	if err != nil {
		return nil, fmt.Errorf("read the serving certificate: %w", err)
	}
	return &pair, nil
}

const (
	lifetime = 90 * 24 * time.Hour
	// renewAt is the remaining lifetime at which a certificate is renewed, long enough to notice a failing renewal.
	renewAt = 30 * 24 * time.Hour
	// skew is how far the clock of an API server may be behind.
	skew = time.Hour
)

// generate returns a key and a self-signed certificate in PEM. The API server trusts exactly this certificate; there is no
// CA key that could sign others.
func generate(hosts []string, now time.Time) (certificate, key []byte, err error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "ringside-injector"}, NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return sign(template, nil, now)
}

// sign makes a key, and a certificate in PEM that ca signs; it signs itself if ca is nil.
func sign(template *x509.Certificate, ca *tls.Certificate, now time.Time) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, fmt.Errorf("generate a serial number: %w", err)
	}
	template.NotBefore, template.BasicConstraintsValid = now.Add(-skew), true
	parent, signer := template, any(private)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		return nil, nil, fmt.Errorf("sign a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key: %w", err)
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", secret), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

var errRenew = errors.New("the certificate is about to expire")

// usable returns the pair, or the reason why a new one is needed.
func usable(certificate, key []byte, hosts []string, now time.Time) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	for _, host := range hosts {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			return nil, fmt.Errorf("check the certificate: %w", err)
		}
	}
	if now.Before(pair.Leaf.NotBefore) || pair.Leaf.NotAfter.Sub(now) < renewAt {
		return nil, errRenew
	}
	return &pair, nil
}

// maxTrusted is how many certificates are trusted at once. One that is renewed as usual, at two thirds of its life, needs three.
const maxTrusted = 16

// trusted returns the certificates of bundle that have not expired and those of newest, in PEM and once each. The previous ones
// stay trusted because other replicas still serve them, or what they have signed.
func trusted(newest, bundle []byte, now time.Time) []byte {
	var all [][]byte
	add := func(text []byte, keep func(*x509.Certificate) bool) {
		for {
			var block *pem.Block
			if block, text = pem.Decode(text); block == nil {
				return
			}
			known := slices.ContainsFunc(all, func(der []byte) bool { return bytes.Equal(der, block.Bytes) })
			if parsed, err := x509.ParseCertificate(block.Bytes); err == nil && !known && keep(parsed) {
				all = append(all, block.Bytes)
			}
		}
	}
	add(bundle, func(old *x509.Certificate) bool { return now.Before(old.NotAfter) }) //guard:old-certificate-stays-trusted
	add(newest, func(*x509.Certificate) bool { return true })
	var text []byte
	for _, der := range all[max(0, len(all)-maxTrusted):] {
		text = append(text, encode("CERTIFICATE", der)...)
	}
	return text
}
