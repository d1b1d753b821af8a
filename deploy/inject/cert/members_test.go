package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
)

func newMembers(ca *store, namespaces map[string]*store) *Members {
	m := &Members{
		Authority: secrets{ca}, AuthoritySecret: "ca", Namespaces: map[string]Secrets{}, Secret: "tls", Name: "ringside",
		Log: zap.NewNop(),
	}
	for name, s := range namespaces {
		m.Namespaces[name] = secrets{s}
	}
	return m
}

// accepts reports why a sidecar with the files of one Secret rejects the certificate of another, at both sides of a connection.
func accepts(mine, other corev1.Secret) error { return acceptsAs("ringside", mine, other) }

// acceptsAs is accepts with a peer_tls.name.
func acceptsAs(name string, mine, other corev1.Secret) error {
	pair, err := tls.X509KeyPair(other.Data[corev1.TLSCertKey], other.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(mine.Data[caKey])
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{
			Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: time.Now(),
		}); err != nil {
			return err
		}
	}
	return nil
}

// For five years, sidecars of two namespaces accept each other, also while the files of one are a day older.
func TestSidecarsAcceptEachOtherThroughEveryRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, apps, more := newStore(), newStore(), newStore()
		replicas := []*Members{
			newMembers(ca, map[string]*store{"apps": apps, "more": more}), newMembers(ca, map[string]*store{"more": more, "apps": apps}),
		}
		certificates, authorities := map[string]bool{}, map[string]bool{}
		var old corev1.Secret
		for day := range 5 * 365 {
			for _, m := range replicas {
				if err := m.reconcile(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if day > 0 {
				for name, err := range map[string]error{
					"apps accepts more": accepts(apps.secret, more.secret), "more accepts apps": accepts(more.secret, apps.secret),
					"old files accept new ones": accepts(old, more.secret), "new files accept old ones": accepts(more.secret, old),
				} {
					if err != nil {
						t.Fatalf("day %d: %s: got %v", day, name, err)
					}
				}
			}
			old = *apps.secret.DeepCopy()
			certificates[string(apps.secret.Data[corev1.TLSCertKey])] = true
			authorities[string(ca.secret.Data[corev1.TLSCertKey])] = true
			time.Sleep(24 * time.Hour)
		}
		if len(certificates) < 25 || len(certificates) > 35 || len(authorities) != 5 {
			t.Errorf("got %d certificates and %d authorities, want one of each 60 days and 5", len(certificates), len(authorities))
		}
		if key := ca.secret.Data[corev1.TLSPrivateKeyKey]; string(key) == string(apps.secret.Data[corev1.TLSPrivateKeyKey]) {
			t.Error("the key of the authority is in the Secret of the sidecars")
		}
	})
}

func TestWrongSecretsOfSidecarsAreRepaired(t *testing.T) {
	for name, overwrite := range map[string]func(ca, apps *store){
		"no certificate":      func(_, apps *store) { apps.secret.Data = nil },
		"the key":             func(_, apps *store) { apps.secret.Data[corev1.TLSPrivateKeyKey] = []byte("x") },
		"the bundle":          func(_, apps *store) { apps.secret.Data[caKey] = nil },
		"the whole authority": func(ca, _ *store) { ca.secret.Data = nil },
	} {
		ca, apps := newStore(), newStore()
		m := newMembers(ca, map[string]*store{"apps": apps})
		if err := m.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		overwrite(ca, apps)
		if err := m.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := accepts(apps.secret, apps.secret); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
		writes := apps.writes
		if err := m.reconcile(t.Context()); err != nil || apps.writes != writes {
			t.Errorf("%s: got %d more writes, %v; want none", name, apps.writes-writes, err)
		}
	}
}

func TestOneMissingNamespaceDoesNotStopTheOthers(t *testing.T) {
	ca, gone, apps := newStore(), newStore(), newStore()
	gone.away(true)
	err := newMembers(ca, map[string]*store{"a-gone": gone, "apps": apps}).reconcile(t.Context())
	if err == nil || accepts(apps.secret, apps.secret) != nil {
		t.Errorf("got %v and %v, want an error and a certificate", err, accepts(apps.secret, apps.secret))
	}
	if errors.Is(err, errConflict) {
		t.Errorf("got %v", err)
	}
}

// Sidecars and kubelets need some time to get a new authority.
func TestNewAuthorityIsKnownBeforeItIssues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, apps := newStore(), newStore()
		m := newMembers(ca, map[string]*store{"apps": apps})
		if err := m.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lifetime - renewAt + time.Hour) // the certificate is due
		delete(ca.secret.Data, corev1.TLSPrivateKeyKey)
		old := *apps.secret.DeepCopy()
		if err := m.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := accepts(old, apps.secret); err != nil || len(apps.secret.Data[caKey]) <= len(old.Data[caKey]) {
			t.Errorf("at once: got %v and %d bytes of authorities; want a certificate of the old one, and both", err, len(apps.secret.Data[caKey]))
		}
		known := *apps.secret.DeepCopy()
		time.Sleep(trustDelay)
		if err := m.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if accepts(old, apps.secret) == nil || accepts(known, apps.secret) != nil {
			t.Errorf("a day later: got %v with the old files, %v with the known ones; want a certificate of the new authority",
				accepts(old, apps.secret), accepts(known, apps.secret))
		}
	})
}

// Sidecars of one ring per namespace reject the certificates of other namespaces; those of one ring over several accept them.
func TestCertificatesOfNamespacesDiffer(t *testing.T) {
	ca, apps, more := newStore(), newStore(), newStore()
	if err := newMembers(ca, map[string]*store{"apps": apps, "more": more}).reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"ringside": true, "ringside.apps": true, "ringside.more": false} {
		if err := acceptsAs(name, more.secret, apps.secret); (err == nil) != want {
			t.Errorf("the certificate of apps as %s: got %v, want success: %v", name, err, want)
		}
	}
}
