package cert

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// Files serves the certificate that another program, such as cert-manager, renews in Dir: tls.crt, tls.key and the authority,
// ca.crt. The kubelet writes the files of a Secret up to two minutes after they were renewed, in each replica at another time.
// So each replica publishes the authority of its own files before it serves them, and nothing removes the previous one while
// others need it. cert-manager's ca-injector would replace it at once.
type Files struct {
	Dir      string
	Webhooks Webhooks
	// Webhook is the name of the configuration.
	Webhook string
	// Delay is how long a renewed certificate is only published before it is served.
	Delay time.Duration
	Log   *zap.Logger

	serving
}

// filesInterval is how often the files are read.
const filesInterval = time.Second

// Run maintains the certificate until ctx is done.
func (f *Files) Run(ctx context.Context) {
	for due := time.Now(); ctx.Err() == nil; {
		pair, err := readPair(f.Dir)
		if renewed := err == nil && !f.serves(pair); renewed || !time.Now().Before(due) {
			err := f.reconcile(ctx)
			if err == nil {
				due = time.Now().Add(interval)
			} else if ctx.Err() == nil {
				f.Log.Warn("could not publish the serving certificate", zap.Error(err), zap.Duration("retry_in", filesInterval))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(filesInterval):
		}
	}
}

func (f *Files) serves(pair *tls.Certificate) bool {
	current := f.current.Load()
	return current != nil && current.Leaf.Equal(pair.Leaf)
}

// reconcile publishes the authority of the files, and then serves their certificate.
func (f *Files) reconcile(ctx context.Context) error {
	pair, err := readPair(f.Dir)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(f.Dir, caKey)) // after the pair: if the files change now, the old pair has been published
	if err != nil && !errors.Is(err, fs.ErrNotExist) {  // an authority that all systems know has no file
		return fmt.Errorf("read the authority of the serving certificate: %w", err)
	}
	if len(ca) > 0 {
		if err := publish(ctx, f.Webhooks, f.Webhook, ca); err != nil { //guard:files-are-served-before-they-are-published
			return err
		}
	}
	f.use(ctx, pair, f.Delay)
	return nil
}
