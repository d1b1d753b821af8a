package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Secrets is what a Rotator needs of client-go's SecretInterface.
type Secrets interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.Secret, error)
	Update(ctx context.Context, secret *corev1.Secret, opts metav1.UpdateOptions) (*corev1.Secret, error)
}

// Webhooks is what a Rotator needs of client-go's MutatingWebhookConfigurationInterface.
type Webhooks interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (
		*admissionregistrationv1.MutatingWebhookConfiguration, error)
	Update(ctx context.Context, configuration *admissionregistrationv1.MutatingWebhookConfiguration,
		opts metav1.UpdateOptions) (*admissionregistrationv1.MutatingWebhookConfiguration, error)
}

// caKey of the Secret has all certificates that the API server is to trust, beside the pair in use.
const caKey = "ca.crt"

// Rotator keeps a certificate in a Secret and its public half in the webhooks' configuration. Replicas need no leader:
// each of them reads, and where something is missing writes what it would accept itself; the API server refuses the
// slower one's write, which then reads the faster one's.
type Rotator struct {
	Secrets  Secrets
	Webhooks Webhooks
	// Secret and Webhook are the names of the objects. Both exist; the injector may not create any.
	Secret, Webhook string
	// Hosts are the names and addresses by which the API server calls.
	Hosts []string
	Log   *slog.Logger

	current atomic.Pointer[tls.Certificate]
}

// How often the objects are looked at: somebody may overwrite them, and until they are put right no pod is injected.
const (
	interval      = 30 * time.Second
	retryInterval = 2 * time.Second
)

// Run keeps the certificate until ctx is done.
func (r *Rotator) Run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := interval
		if err := r.reconcile(ctx); err != nil && ctx.Err() == nil {
			r.Log.Warn("keep the serving certificate", "error", err, "again_in", retryInterval)
			wait = retryInterval
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

var errNone = errors.New("there is no serving certificate yet")

// Get is a tls.Config.GetCertificate.
func (r *Rotator) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if pair := r.current.Load(); pair != nil {
		return pair, nil
	}
	return nil, errNone
}

// reconcile: the API server is told to trust a certificate before anybody serves with it.
func (r *Rotator) reconcile(ctx context.Context) error {
	pair, bundle, err := r.share(ctx)
	if err != nil {
		return err
	}
	if err := r.publish(ctx, bundle); err != nil { //guard:certificate-served-before-api-server-knows
		return err
	}
	r.current.Store(pair)
	return nil
}

// share returns the certificate of the Secret, after it has put a new one there where that was due.
func (r *Rotator) share(ctx context.Context) (*tls.Certificate, []byte, error) {
	secret, err := r.Secrets.Get(ctx, r.Secret, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("read secret %s: %w", r.Secret, err)
	}
	now := time.Now()
	pair, err := usable(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], r.Hosts, now)
	if err == nil {
		return pair, secret.Data[caKey], nil
	}
	r.Log.Info("making a new serving certificate", "because", err)
	certificate, key, err := generate(r.Hosts, now)
	if err != nil {
		return nil, nil, err
	}
	secret.Data = map[string][]byte{
		corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key, caKey: trusted(certificate, secret.Data[caKey], now),
	}
	if _, err = r.Secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return nil, nil, fmt.Errorf("write secret %s: %w", r.Secret, err)
	}
	pair, err = usable(certificate, key, r.Hosts, now)
	return pair, secret.Data[caKey], err
}

// publish tells the API server which certificates to trust.
func (r *Rotator) publish(ctx context.Context, bundle []byte) error {
	configuration, err := r.Webhooks.Get(ctx, r.Webhook, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read webhook configuration %s: %w", r.Webhook, err)
	}
	changed := false
	for i := range configuration.Webhooks {
		client := &configuration.Webhooks[i].ClientConfig
		changed = changed || !bytes.Equal(client.CABundle, bundle)
		client.CABundle = bundle
	}
	if !changed {
		return nil
	}
	if _, err = r.Webhooks.Update(ctx, configuration, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write webhook configuration %s: %w", r.Webhook, err)
	}
	return nil
}
