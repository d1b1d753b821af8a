package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// issuer is an authority of serving certificates.
type issuer struct {
	text []byte // of its certificate, in PEM
	pair *tls.Certificate
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	certificate, key, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour), IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{certificate, &pair}
}

// renew returns the data of a Secret as cert-manager writes it.
func (a *issuer) renew(t *testing.T) map[string][]byte {
	t.Helper()
	certificate, key, err := sign(&x509.Certificate{
		DNSNames: []string{host}, NotAfter: time.Now().Add(lifetime), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.pair, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key, caKey: a.text}
}

// mount writes the files of a Secret all at once, as the kubelet does: through a link to another directory.
func mount(t *testing.T, dir string, data map[string][]byte) {
	t.Helper()
	version, err := os.MkdirTemp(dir, "..version")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range data {
		err := errors.Join(os.WriteFile(filepath.Join(version, name), text, 0o600), link(filepath.Join("..data", name), filepath.Join(dir, name)))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(link(version, filepath.Join(dir, "..new")), os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data"))); err != nil {
		t.Fatal(err)
	}
}

func link(target, name string) error {
	if err := os.Symlink(target, name); !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func newFiles(t *testing.T, s *store) *Files {
	return &Files{Dir: t.TempDir(), Webhooks: webhooks{s}, Webhook: "w", Delay: 5 * time.Second, Log: zap.NewNop()}
}

// accepted reports why an API server with the bundle of s does not accept what f serves.
func accepted(s *store, f *Files) error {
	pair, err := f.Get(nil)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.webhook.Webhooks[0].ClientConfig.CABundle)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: time.Now()})
	return err
}

// Two replicas get the files of each renewal at different times, and every third renewal is by a new authority. At every second,
// an API server whose configuration is two seconds old accepts what each replica serves.
func TestRenewalOfFilesIsInvisibleToTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ca := newStore(), newIssuer(t)
		replicas := []*Files{newFiles(t, s), newFiles(t, s)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		for _, f := range replicas {
			mount(t, f.Dir, ca.renew(t))
			go func() { defer func() { done <- struct{}{} }(); f.Run(ctx) }()
		}
		synctest.Wait()
		behind, older := newStore(), newStore()
		watch := func(seconds int) {
			for range seconds {
				current, err := webhooks{s}.Get(t.Context(), "w", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				older.webhook, behind.webhook = behind.webhook, *current
				time.Sleep(time.Second)
				synctest.Wait()
				for i, f := range replicas {
					if err := accepted(older, f); err != nil && older.webhook.Webhooks[0].ClientConfig.CABundle != nil {
						t.Fatalf("replica %d: %v", i, err)
					}
				}
			}
		}
		watch(10)
		var last []byte
		for n := range 9 {
			if n%3 == 2 {
				ca = newIssuer(t)
			}
			data := ca.renew(t)
			for _, f := range replicas {
				watch(40)
				mount(t, f.Dir, data)
			}
			watch(40)
			for i, f := range replicas {
				pair, err := f.Get(nil)
				if leaf := encode("CERTIFICATE", pair.Leaf.Raw); err != nil || !bytes.Equal(leaf, data[corev1.TLSCertKey]) || bytes.Equal(leaf, last) {
					t.Errorf("renewal %d: replica %d serves another certificate (%v)", n, i, err)
				}
			}
			last = data[corev1.TLSCertKey]
		}
		cancel()
		<-done
		<-done
		if n := strings.Count(string(s.webhook.Webhooks[1].ClientConfig.CABundle), "BEGIN"); n != 4 {
			t.Errorf("the bundle has %d authorities, want 4", n)
		}
		if s.writes != 4 {
			t.Errorf("%d writes of the configuration, want one for each authority", s.writes)
		}
	})
}

// What cannot be published is not served, and the previous certificate stays in use.
func TestFilesAreServedAfterTheyArePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ca := newStore(), newIssuer(t)
		f := newFiles(t, s)
		if err := f.reconcile(t.Context()); err == nil {
			t.Error("no error without files")
		}
		mount(t, f.Dir, ca.renew(t))
		if err := errors.Join(f.reconcile(t.Context()), accepted(s, f)); err != nil {
			t.Fatal(err)
		}
		s.away(true)
		mount(t, f.Dir, newIssuer(t).renew(t))
		if err := f.reconcile(t.Context()); err == nil {
			t.Error("no error without an API server")
		}
		s.away(false)
		if err := accepted(s, f); err != nil {
			t.Errorf("after a failure to publish: %v", err)
		}
		if err := os.Remove(filepath.Join(f.Dir, caKey)); err != nil { // of a public authority
			t.Fatal(err)
		}
		if err := f.reconcile(t.Context()); err != nil || s.writes != 1 {
			t.Errorf("without ca.crt: got %v and %d writes, want none after the first", err, s.writes-1)
		}
	})
}

// A handshake may read one file of before a renewal and one of after it.
func TestFilesOfTwoCertificatesFailNoHandshake(t *testing.T) {
	dir, ca := t.TempDir(), newIssuer(t)
	get := FromFiles(dir)
	mount(t, dir, ca.renew(t))
	before, err := get(nil)
	if err != nil {
		t.Fatal(err)
	}
	mixed := ca.renew(t)
	mixed[corev1.TLSPrivateKeyKey] = ca.renew(t)[corev1.TLSPrivateKeyKey]
	mount(t, dir, mixed)
	if got, err := get(nil); err != nil || got != before {
		t.Errorf("got %v, want the previous certificate", err)
	}
}

// With a lost Secret, another replica still serves the certificate that was in it.
func TestLostCertificateStaysTrusted(t *testing.T) {
	s := newStore()
	first, second := newRotator(s), newRotator(s)
	for _, r := range []*Rotator{first, second} {
		if err := r.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.secret.Data = nil
	if err := second.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.admits(t, first)
	s.admits(t, second)
}

func TestBundleIsBounded(t *testing.T) {
	var bundle, last []byte
	for range maxTrusted + 3 {
		last = newIssuer(t).text
		bundle = trusted(last, bundle, time.Now())
	}
	if n := bytes.Count(bundle, []byte("BEGIN")); n != maxTrusted || !bytes.HasSuffix(bundle, last) {
		t.Errorf("got %d certificates, want the newest %d", n, maxTrusted)
	}
	if again := trusted(last, bundle, time.Now()); !bytes.Equal(again, bundle) {
		t.Error("a certificate that is there changes the bundle")
	}
	if got := trusted(last, append([]byte("garbage\n"), bundle...), time.Now()); !bytes.Equal(got, bundle) {
		t.Error("other text stays")
	}
}
