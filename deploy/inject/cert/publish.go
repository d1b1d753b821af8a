package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Webhooks is the part of client-go's MutatingWebhookConfigurationInterface that publishes certificates.
type Webhooks interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (
		*admissionregistrationv1.MutatingWebhookConfiguration, error)
	Update(ctx context.Context, configuration *admissionregistrationv1.MutatingWebhookConfiguration,
		opts metav1.UpdateOptions) (*admissionregistrationv1.MutatingWebhookConfiguration, error)
}

// publish adds certificates in PEM to those that the API server trusts, and removes expired ones. The other ones stay: another
// replica may still serve what they verify.
func publish(ctx context.Context, webhooks Webhooks, name string, newest []byte) error {
	configuration, err := webhooks.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read webhook configuration %s: %w", name, err)
	}
	changed := false
	for i := range configuration.Webhooks {
		client := &configuration.Webhooks[i].ClientConfig
		bundle := trusted(newest, client.CABundle, time.Now()) //guard:bundle-has-only-the-newest
		changed = changed || !bytes.Equal(client.CABundle, bundle)
		client.CABundle = bundle
	}
	if !changed {
		return nil
	}
	if _, err = webhooks.Update(ctx, configuration, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write webhook configuration %s: %w", name, err)
	}
	return nil
}

// serving is the certificate in use.
type serving struct {
	current atomic.Pointer[tls.Certificate]
}

var errNone = errors.New("there is no serving certificate yet")

// Get implements tls.Config.GetCertificate.
func (s *serving) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if pair := s.current.Load(); pair != nil {
		return pair, nil
	}
	return nil, errNone
}

// use serves pair, which is published. If another certificate is in use, pair replaces it after delay: each API server learns of a
// published certificate by a watch of its own.
func (s *serving) use(ctx context.Context, pair *tls.Certificate, delay time.Duration) {
	if old := s.current.Load(); old != nil && !old.Leaf.Equal(pair.Leaf) { //guard:served-before-all-api-servers-know
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
	s.current.Store(pair)
}
