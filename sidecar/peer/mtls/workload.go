package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/peer/identity"
)

// watch receives the identity from the Workload API until Close. It waits for the first valid one.
func (creds *Credentials) watch(ctx context.Context) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(creds.config.WorkloadAPI))
	if err != nil {
		return fmt.Errorf("workload_api: %w", err)
	}
	w := &watcher{creds: creds, first: make(chan struct{})}
	watching, stop := context.WithCancel(context.Background())
	creds.identity.stop = stop
	creds.identity.stopped.Go(func() {
		defer client.Close()
		retry := backoff.Backoff{First: time.Second, Longest: 10 * time.Second}
		for watching.Err() == nil {
			_ = client.WatchX509Context(watching, w) // the watcher has got the error
			retry.Wait(watching)
		}
	})
	select {
	case <-w.first:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no certificate from the SPIFFE Workload API at %s: %w; is the agent running, and is this workload "+
			"registered?", creds.config.WorkloadAPI, errors.Join(w.lastError(), ctx.Err()))
	}
}

// watcher receives from the Workload API.
type watcher struct {
	creds  *Credentials
	first  chan struct{} // closed after the first valid identity
	closed sync.Once

	mu  sync.Mutex // guards err
	err error
}

var _ workloadapi.X509ContextWatcher = (*watcher)(nil)

func (w *watcher) lastError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w *watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	next, err := w.creds.fromWorkloadAPI(x)
	i := w.creds.identity
	i.mu.Lock()
	i.failedLocked(err)
	if err == nil {
		i.material = next
	}
	i.mu.Unlock()
	w.failed(err)
	if err == nil {
		w.closed.Do(func() { close(w.first) })
	}
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher. While the agent is away, the last identity stays in use.
func (w *watcher) OnX509ContextWatchError(err error) {
	i := w.creds.identity
	if !errors.Is(err, context.Canceled) {
		i.mu.Lock()
		i.failedLocked(err)
		i.mu.Unlock()
	}
	w.failed(err)
}

func (w *watcher) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (creds *Credentials) fromWorkloadAPI(x *workloadapi.X509Context) (material, error) {
	svid := creds.choose(x.SVIDs)
	if svid == nil {
		return material{}, errors.New("the Workload API has no identity for this workload")
	}
	bundle, ok := x.Bundles.Get(svid.ID.TrustDomain())
	if !ok {
		return material{}, fmt.Errorf("the Workload API has no authorities for the trust domain of %s", svid.ID)
	}
	next := material{roots: x509.NewCertPool(), cert: tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}}
	for _, c := range svid.Certificates {
		next.cert.Certificate = append(next.cert.Certificate, c.Raw)
	}
	for _, c := range bundle.X509Authorities() {
		next.roots.AddCert(c)
	}
	if err := next.check(creds.config); err != nil {
		return material{}, fmt.Errorf("certificate of the Workload API at %s: %w", creds.config.WorkloadAPI, err)
	}
	return next, nil
}

// choose returns the identity of this member among those of the workload, or the first one.
func (creds *Credentials) choose(svids []*x509svid.SVID) *x509svid.SVID {
	for _, s := range svids {
		if creds.config.Scheme == nil {
			break
		}
		role, member, err := creds.config.Scheme.In(s.ID.TrustDomain()).Identify(s.ID)
		if err == nil && role == caller.Member && (creds.config.Self == "" || member == identity.Segment(creds.config.Self)) {
			return s
		}
	}
	if len(svids) == 0 {
		return nil
	}
	return svids[0]
}
