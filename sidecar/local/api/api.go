// Package api is what the HTTP API and the gRPC API have in common: the datasets, the limits, the counters, the checks of
// arguments, the reads of many keys, and the errors. It does not know any protocol or server.
package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Backend is what the protocols answer requests with. It is safe for concurrent use.
type Backend struct {
	Datasets Datasets
	config   Config
	stats    Stats
	stopping context.Context // ends when the server begins to stop
}

// NewBackend returns a Backend of datasets. stopping ends when the server begins to stop.
func NewBackend(stopping context.Context, config Config, datasets Datasets) *Backend {
	return &Backend{Datasets: datasets, config: config.withDefaults(), stopping: stopping}
}

// Config returns the limits with their defaults filled in.
func (b *Backend) Config() *Config { return &b.config }

// Stats returns the live counters.
func (b *Backend) Stats() *Stats { return &b.stats }

// Stopping ends when the server begins to stop: no new request should begin, and running ones may end.
func (b *Backend) Stopping() context.Context { return b.stopping }

// Dataset returns the dataset of a name, which may lie in memory that the caller reuses, or the error UnknownDataset.
func (b *Backend) Dataset(name string) (Served, *apierror.Error) {
	if d, ok := b.Datasets.Lookup(name); ok {
		return d, nil
	}
	return Served{}, &apierror.Error{Type: apierror.UnknownDataset, Datasets: similarNames(name, b.Datasets.All()),
		Detail: "no dataset of this name is configured; GET /v1/datasets lists the configured ones"}
}

// Error turns an error of a dataset, of a batch or of a watch into what clients see.
func (b *Backend) Error(err error) *apierror.Error {
	if errors.Is(err, kv.ErrBatchBytes) {
		b.stats.BatchTruncated.Add(1)
	}
	e := apierror.From(err, b.config.Errors.Report)
	if e.Type == apierror.TypeOf(kv.KindCanceled) && b.stopping.Err() != nil {
		e.Type, e.Detail = apierror.Stopping, "the sidecar is stopping; retry with another one, or with this one after its restart"
	}
	return e
}

// Panic turns a recovered panic into an error that clients see. It must be called by the deferred function.
func (b *Backend) Panic(during string, recovered any) *apierror.Error {
	return b.Error(fmt.Errorf("panic %s: %v\n%s", during, recovered, debug.Stack()))
}

// Defect reports a defect of this program.
func (b *Backend) Defect(err error) { b.config.Errors.Report(err) }

// ErrNoExplain says that a listener does not explain keys.
var ErrNoExplain = errors.New("this listener does not explain keys; ask the sidecar of the pod, or ringside explain")

// NotFound is the error of a key that the origin does not have.
func NotFound() *apierror.Error {
	return apierror.New(apierror.NotFound, "the origin has no such key; this result is cached like a value")
}

// NoHeaders is the error of a row whose columns cannot be header fields.
func NoHeaders() *apierror.Error {
	return apierror.New(apierror.UnreadableRow, "the columns of the row that are header fields have more than 4096 bytes; shorten them, or "+
		"remove one from `headers` of the dataset")
}

// InvalidRequest is the error of a request that has a wrong argument.
func InvalidRequest(err error) *apierror.Error {
	return apierror.New(apierror.MalformedRequest, err.Error())
}

// InvalidKey is the error of a request whose key cannot exist.
func InvalidKey(err error) *apierror.Error {
	return apierror.New(apierror.TypeOf(kv.KindInvalidKey), err.Error())
}
