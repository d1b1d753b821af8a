package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Members issues the certificate that the sidecars of each namespace share, from an authority of its own, and renews both. Like
// a Rotator it needs no leader, and all Secrets must exist.
type Members struct {
	// Authority is where the authority with its key is kept, in the Secret AuthoritySecret. No pod mounts it.
	Authority       Secrets
	AuthoritySecret string
	// Namespaces are those with sidecars, each with its Secret.
	Namespaces map[string]Secrets
	Secret     string
	// Name is a DNS name in all certificates: peer_tls.name of sidecars of several namespaces that are one ring. Each certificate
	// also has Name.NAMESPACE, for a ring of that namespace, which rejects the certificates of the others.
	Name string
	Log  *zap.Logger
}

const (
	authorityLifetime = 2 * 365 * 24 * time.Hour
	// authorityRenewAt is more than the lifetime of a certificate: none outlives its authority.
	authorityRenewAt = authorityLifetime / 2
	// trustDelay is how long a new authority is only trusted before it issues renewals: until every kubelet and sidecar has it.
	trustDelay = 24 * time.Hour
)

// Run maintains the certificates until ctx is done.
func (m *Members) Run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := interval
		if err := m.reconcile(ctx); err != nil && ctx.Err() == nil {
			m.Log.Warn("could not renew the certificates of sidecars", zap.Error(err), zap.Duration("retry_in", retryInterval))
			wait = retryInterval
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// reconcile maintains every namespace, also if one of them fails.
func (m *Members) reconcile(ctx context.Context) error {
	ca, bundle, err := m.authority(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, namespace := range slices.Sorted(maps.Keys(m.Namespaces)) {
		if err := m.issue(ctx, namespace, ca, bundle); err != nil {
			errs = append(errs, fmt.Errorf("namespace %s: %w", namespace, err))
		}
	}
	return errors.Join(errs...)
}

// authority returns the newest authority, and the certificates of all that have not expired.
func (m *Members) authority(ctx context.Context) (*tls.Certificate, []byte, error) {
	secret, err := m.Authority.Get(ctx, m.AuthoritySecret, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("read secret %s: %w", m.AuthoritySecret, err)
	}
	now := time.Now()
	if ca, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err == nil &&
		ca.Leaf.IsCA && ca.Leaf.NotAfter.Sub(now) > authorityRenewAt {
		return &ca, secret.Data[caKey], nil
	}
	m.Log.Info("generating a new authority for the certificates of sidecars")
	certificate, key, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "ringside members"}, NotAfter: now.Add(authorityLifetime),
		IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, now)
	if err != nil {
		return nil, nil, err
	}
	secret.Data = map[string][]byte{
		corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key, caKey: trusted(certificate, secret.Data[caKey], now),
	}
	if _, err := m.Authority.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return nil, nil, fmt.Errorf("write secret %s: %w", m.AuthoritySecret, err)
	}
	ca, err := tls.X509KeyPair(certificate, key)
	return &ca, secret.Data[caKey], err
}

// issue updates the authorities and the certificate in the Secret of a namespace.
func (m *Members) issue(ctx context.Context, namespace string, ca *tls.Certificate, bundle []byte) error {
	secrets, names := m.Namespaces[namespace], []string{m.Name, m.Name + "." + namespace}
	secret, err := secrets.Get(ctx, m.Secret, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read secret %s: %w", m.Secret, err)
	}
	now := time.Now()
	certificate, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	renew := needed(certificate, key, names, bundle, ca.Leaf, now)
	if !renew && bytes.Equal(secret.Data[caKey], bundle) {
		return nil
	}
	if renew {
		if certificate, key, err = sign(&x509.Certificate{
			Subject: pkix.Name{CommonName: "ringside member"}, DNSNames: names, NotAfter: now.Add(lifetime),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, ca, now); err != nil {
			return err
		}
	}
	secret.Data = map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key, caKey: bundle}
	if _, err := secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write secret %s: %w", m.Secret, err)
	}
	return nil
}

// needed reports whether a new certificate is needed: at once if sidecars would reject the present one, otherwise when it is due
// and the authority is known everywhere.
func needed(certificate, key []byte, names []string, bundle []byte, ca *x509.Certificate, now time.Time) bool {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return true
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, name := range names {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			return true
		}
	}
	known := now.Sub(ca.NotBefore.Add(skew)) >= trustDelay //guard:new-authority-issues-before-it-is-trusted
	return known && pair.Leaf.NotAfter.Sub(now) < renewAt
}
