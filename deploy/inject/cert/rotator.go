package cert

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Secrets is the part of client-go's SecretInterface that a Rotator uses.
type Secrets interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.Secret, error)
	Update(ctx context.Context, secret *corev1.Secret, opts metav1.UpdateOptions) (*corev1.Secret, error)
}

// caKey is the key in the Secret for all certificates that the API server must trust.
const caKey = "ca.crt"

// Rotator keeps a certificate in a Secret and publishes its public half in the webhook configuration. Replicas need no
// leader: each one reads both objects and writes what is missing. If two write at once, the API server rejects the later
// write, and that replica reads the other's certificate.
type Rotator struct {
	Secrets  Secrets
	Webhooks Webhooks
	// Secret and Webhook are the names of the objects. Both must exist: the injector may not create objects.
	Secret, Webhook string
	// Hosts are the names and addresses that the API server uses for this server.
	Hosts []string
	// Delay is how long a renewed certificate is only published before it is served.
	Delay time.Duration
	Log   *zap.Logger

	serving
}

// How often the objects are checked: another client may overwrite them, and until they are repaired no pod is injected.
const (
	interval      = 30 * time.Second
	retryInterval = 2 * time.Second
)

// Run maintains the certificate until ctx is done.
func (r *Rotator) Run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := interval
		if err := r.reconcile(ctx); err != nil && ctx.Err() == nil {
			r.Log.Warn("could not renew or publish the serving certificate", zap.Error(err), zap.Duration("retry_in", retryInterval))
			wait = retryInterval
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// reconcile publishes a certificate to the API server before it is served.
func (r *Rotator) reconcile(ctx context.Context) error {
	pair, bundle, err := r.share(ctx)
	if err != nil {
		return err
	}
	if err := publish(ctx, r.Webhooks, r.Webhook, bundle); err != nil { //guard:publish-before-serving
		return err
	}
	r.use(ctx, pair, r.Delay)
	return nil
}

// share returns the certificate in the Secret. If it is due for renewal, share replaces it first.
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
	r.Log.Info("generating a new serving certificate", zap.NamedError("reason", err))
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
