package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// named is a dataset with a name and, if get is set, values.
type named struct {
	Dataset
	name     string
	maxBytes int // of the last GetMany
}

func (d *named) Name() string { return d.name }

func (d *named) GetMany(_ context.Context, keys []string, _ kv.ReadOptions, limit kv.BatchLimit) []kv.Result {
	d.maxBytes = limit.Bytes
	return make([]kv.Result, len(keys))
}

func numberedKeys(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprint(i))
	}
	return keys
}

func TestBatchReadsAtMostTheResponse(t *testing.T) {
	d := &named{}
	b := NewBackend(t.Context(), Config{MaxBatchBytes: 1234}, NewCatalog())
	b.ReadBatch(t.Context(), d, numberedKeys(20), kv.ReadOptions{}, new(budget.Loan))
	if d.maxBytes != 1234 {
		t.Errorf("the limit of the values is %d; want that of the response, 1234", d.maxBytes)
	}
	if e := b.Error(kv.ErrBatchBytes); e.Type != apierror.BatchTooLarge {
		t.Errorf("got %v, want BatchTooLarge", e)
	}
	if n := b.Stats().BatchTruncated.Load(); n != 1 {
		t.Errorf("%d keys counted, want 1: that of the reported error", n)
	}
}

func TestCanceledRequestReportsWhetherTheSidecarIsStopping(t *testing.T) {
	stopping, stop := context.WithCancel(t.Context())
	b := NewBackend(stopping, Config{}, NewCatalog())
	canceled := &kv.Error{Kind: kv.KindCanceled, Err: errors.New("dataset a: the caller canceled")}
	if e := b.Error(canceled); e.Type.Name != "canceled" || e.ID == "" {
		t.Errorf("got %v, want type canceled", e)
	}
	stop()
	if e := b.Error(canceled); e.Type.Name != "stopping" || strings.Contains(e.Detail, "caller") {
		t.Errorf("while stopping: got %v, want type stopping", e)
	}
}

func TestCheckScope(t *testing.T) {
	long := strings.Repeat("k", kv.MaxKeyBytes+1)
	for _, keys := range [][]string{{}, {""}, {"a", long}, {"\xff"}, numberedKeys(MaxBatchKeys + 1)} {
		if CheckScopeKeys(keys) == nil {
			t.Errorf("%d keys %.40q: no error", len(keys), keys)
		}
	}
	if err := CheckScopeKeys(numberedKeys(MaxBatchKeys)); err != nil {
		t.Error(err)
	}
	for prefix, ok := range map[string]bool{"": false, long: false, "\xff": false, "a/": true} {
		if err := CheckPrefix(prefix); (err == nil) != ok {
			t.Errorf("prefix %.40q: %v", prefix, err)
		}
	}
}
