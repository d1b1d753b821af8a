package watch

import (
	"context"
	"errors"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// reader reads many keys of a dataset, a few values at a time.
type reader struct {
	backend *api.Backend
	dataset api.Served
	permit  func() error // nil: it stays permitted
}

// Dataset returns the dataset of the keys.
func (r *reader) Dataset() api.Served { return r.dataset }

// read visits the current results of keys, a few values at a time. It returns the error of visit, or that of ctx.
func (r *reader) read(ctx context.Context, keys []string, visit func(key string, res kv.Result) error) error {
	return r.readWith(ctx, keys, kv.ReadOptions{}, maxBytes, visit)
}

// readWith is read with options, and with values of so many bytes at a time.
func (r *reader) readWith(
	ctx context.Context, keys []string, o kv.ReadOptions, bytes int, visit func(key string, res kv.Result) error,
) error {
	for len(keys) > 0 {
		err := r.permitted()
		if err != nil { //guard:watch-outlives-its-permission
			return r.backend.Error(err)
		}
		if keys, err = r.visitSome(ctx, keys, o, bytes, visit); err != nil {
			return err
		}
	}
	return nil
}

// visitSome visits the results of some of keys, and returns the others.
func (r *reader) visitSome(
	ctx context.Context, keys []string, o kv.ReadOptions, bytes int, visit func(key string, res kv.Result) error,
) (rest []string, err error) {
	values := r.backend.Config().Budget.Loan(budget.Watches)
	defer values.Close()
	results := r.readSome(ctx, keys, o, bytes, &values)
	if err := ctx.Err(); err != nil {
		return nil, err // the results are those of the end, not of the keys
	}
	for i, res := range results {
		if errors.Is(res.Err, kv.ErrBatchBytes) {
			rest = append(rest, keys[i])
		} else if err := visit(keys[i], res); err != nil {
			return nil, err
		}
		results[i] = kv.Result{}
	}
	return rest, nil
}

func (r *reader) permitted() error {
	if r.permit == nil {
		return nil
	}
	return r.permit()
}

func (r *reader) readSome(ctx context.Context, keys []string, o kv.ReadOptions, bytes int, values *budget.Loan) []kv.Result {
	limited, cancel := context.WithTimeout(ctx, r.backend.Config().RequestTimeout)
	defer cancel()
	if d, ok := r.backend.Datasets.Lookup(r.dataset.Name()); ok {
		r.dataset = d // the one of the start may have been closed
	}
	return r.dataset.GetMany(limited, keys, o, kv.BatchLimit{
		Bytes: bytes, Memory: values, Prepaid: prepaidBytes, //guard:values-of-slow-watches-take-no-memory
	})
}
