package cert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const host = "ringside-injector.ringside.svc"

// store is an API server with one Secret and one webhook configuration. Like the real one, it rejects a write that is
// based on an outdated version.
type store struct {
	mu      sync.Mutex // guards webhook and writes while replicas run
	secret  corev1.Secret
	webhook admissionregistrationv1.MutatingWebhookConfiguration
	fail    atomic.Pointer[error] // returned by every call, if set
	writes  int
}

// away makes every call fail until back is called.
func (s *store) away(away bool) {
	if !away {
		s.fail.Store(nil)
		return
	}
	s.fail.Store(new(errors.New("away")))
}

func (s *store) failed() error {
	if err := s.fail.Load(); err != nil {
		return *err
	}
	return nil
}

var errConflict = errors.New("conflict")

func newStore() *store {
	s := &store{}
	s.secret.ResourceVersion = "0"
	s.webhook.Webhooks = make([]admissionregistrationv1.MutatingWebhook, 2)
	return s
}

type secrets struct{ *store }

func (s secrets) Get(context.Context, string, metav1.GetOptions) (*corev1.Secret, error) {
	return s.secret.DeepCopy(), s.failed()
}

func (s secrets) Update(_ context.Context, secret *corev1.Secret, _ metav1.UpdateOptions) (*corev1.Secret, error) {
	if err := s.failed(); err != nil {
		return nil, err
	}
	if secret.ResourceVersion != s.secret.ResourceVersion {
		return nil, errConflict
	}
	s.writes++
	s.secret = *secret.DeepCopy()
	s.secret.ResourceVersion += "0"
	return secret, nil
}

type webhooks struct{ *store }

func (s webhooks) Get(context.Context, string, metav1.GetOptions) (
	*admissionregistrationv1.MutatingWebhookConfiguration, error,
) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhook.DeepCopy(), s.failed()
}

func (s webhooks) Update(
	_ context.Context, c *admissionregistrationv1.MutatingWebhookConfiguration, _ metav1.UpdateOptions,
) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failed(); err != nil {
		return nil, err
	}
	if c.ResourceVersion != s.webhook.ResourceVersion {
		return nil, errConflict
	}
	s.writes++
	s.webhook = *c.DeepCopy()
	s.webhook.ResourceVersion += "0"
	return c, nil
}

func newRotator(s *store) *Rotator {
	return &Rotator{
		Secrets: secrets{s}, Webhooks: webhooks{s}, Secret: "s", Webhook: "w", Hosts: []string{host, "127.0.0.1"},
		Log: zap.NewNop(),
	}
}

// admits checks that the API server accepts the certificate that r serves now, at each of its webhooks.
func (s *store) admits(t *testing.T, r *Rotator) {
	t.Helper()
	pair, err := r.Get(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, webhook := range s.webhook.Webhooks {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(webhook.ClientConfig.CABundle)
		for _, name := range r.Hosts {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: time.Now()}); err != nil {
				t.Fatalf("the API server does not accept the certificate for %s: %v", name, err)
			}
		}
	}
}

func TestCertificateIsGeneratedOnce(t *testing.T) {
	s := newStore()
	first, second := newRotator(s), newRotator(s)
	for range 2 {
		for _, r := range []*Rotator{first, second} {
			if err := r.reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.admits(t, r)
		}
	}
	if s.writes != 2 {
		t.Errorf("%d writes, want one of the secret and one of the webhooks", s.writes)
	}
}

// For a year, two replicas reconcile at different times. The API server accepts both at every moment.
func TestRenewalIsInvisibleToTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		first, second := newRotator(s), newRotator(s)
		seen := map[string]bool{}
		for range 365 {
			for _, r := range []*Rotator{first, second} {
				if err := r.reconcile(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.admits(t, r)
				time.Sleep(12 * time.Hour)
				if first.current.Load() != nil && second.current.Load() != nil {
					s.admits(t, first)
					s.admits(t, second)
				}
			}
			seen[string(s.secret.Data[corev1.TLSCertKey])] = true
		}
		if len(seen) != 7 { // one at the start, and one every 60 days
			t.Errorf("%d certificates in a year", len(seen))
		}
		if n := len(s.secret.Data[caKey]) / len(s.secret.Data[corev1.TLSCertKey]); n > 3 {
			t.Errorf("the bundle has grown to %d certificates", n)
		}
	})
}

func TestSlowerReplicaUsesTheOthersCertificate(t *testing.T) {
	s := newStore()
	slow, fast := newRotator(s), newRotator(s)
	old := s.secret
	if err := fast.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	slow.Secrets = stale{secrets{s}, old}
	if err := slow.reconcile(t.Context()); !errors.Is(err, errConflict) {
		t.Fatalf("the slower one's write: %v", err)
	}
	slow.Secrets = secrets{s}
	if err := slow.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.admits(t, fast)
	s.admits(t, slow)
}

// stale returns an outdated version of the objects.
type stale struct {
	secrets
	old corev1.Secret
}

func (s stale) Get(context.Context, string, metav1.GetOptions) (*corev1.Secret, error) {
	return s.old.DeepCopy(), nil
}

func TestOverwrittenObjectsAreRepaired(t *testing.T) {
	tests := map[string]func(s *store){
		"the bundle":      func(s *store) { s.webhook.Webhooks[1].ClientConfig.CABundle = nil },
		"the key":         func(s *store) { s.secret.Data[corev1.TLSPrivateKeyKey] = []byte("x") },
		"the certificate": func(s *store) { s.secret.Data = nil },
	}
	for name, overwrite := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStore()
			r := newRotator(s)
			if err := r.reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
			overwrite(s)
			if err := r.reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.admits(t, r)
		})
	}
}

func TestNewHostNeedsANewCertificate(t *testing.T) {
	s := newStore()
	r := newRotator(s)
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Hosts = append(r.Hosts, "other.example")
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.admits(t, r)
}

// While the API server is unavailable, the current certificate stays in use, and the next attempt follows soon.
func TestRunRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.away(true)
		r := newRotator(s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		synctest.Wait()
		if _, err := r.Get(nil); !errors.Is(err, errNone) {
			t.Errorf("a certificate without an API server: %v", err)
		}
		s.away(false)
		time.Sleep(retryInterval)
		synctest.Wait()
		s.admits(t, r)
		s.away(true)
		time.Sleep(2 * interval)
		synctest.Wait()
		s.away(false)
		s.admits(t, r)
		cancel()
		<-done
	})
}

func TestFilesAreReadAtEachHandshake(t *testing.T) {
	dir := t.TempDir()
	get := FromFiles(dir)
	if _, err := get(nil); err == nil {
		t.Error("a certificate without files")
	}
	var last *tls.Certificate
	for range 2 {
		certificate, key, err := generate([]string{host}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pair, err := get(nil)
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && pair.Leaf.Equal(last.Leaf) {
			t.Error("the old certificate")
		}
		last = pair
	}
}

// A certificate that the API server does not trust yet is not served.
func TestOldCertificateServesUntilTheNewOneIsTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		r := newRotator(s)
		if err := r.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lifetime - renewAt + time.Hour)
		other := newStore()
		other.away(true)
		r.Webhooks = webhooks{other}
		if err := r.reconcile(t.Context()); err == nil {
			t.Fatal("the API server knows the new certificate")
		}
		s.admits(t, r)
		r.Webhooks = webhooks{s}
		if err := r.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.admits(t, r)
	})
}
