package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// named is a dataset with a name and, if get is set, values.
type named struct {
	Dataset
	name string
	get  func(key string) (kv.Answer, error)
}

func (d named) Name() string { return d.name }

func (d named) GetMany(_ context.Context, keys []string, _ kv.ReadOptions) []kv.Result {
	results := make([]kv.Result, len(keys))
	for i, key := range keys {
		results[i].Answer, results[i].Err = d.get(key)
	}
	return results
}

func numberedKeys(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprint(i))
	}
	return keys
}

func TestBatchDropsValuesThatExceedTheResponse(t *testing.T) {
	const size = 1000
	d := named{get: func(string) (kv.Answer, error) { return kv.Answer{Value: make([]byte, size)}, nil }}
	b := NewBackend(t.Context(), Config{MaxBatchBytes: 10*size - 1}, NewCatalog())
	held, refused := 0, 0
	for _, r := range b.ReadBatch(t.Context(), d, numberedKeys(20), kv.ReadOptions{}) {
		held += len(r.Answer.Value)
		if errors.Is(r.Err, ErrBatchBytes) {
			refused++
		}
	}
	if held != 9*size || refused != 11 {
		t.Errorf("got %d bytes and %d refused; want %d and 11", held, refused, 9*size)
	}
	if e := b.Error(ErrBatchBytes); e.Type != apierror.BatchTooLarge {
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
	if e := b.Error(canceled); e.Type.Name != "canceled" || e.Detail != canceled.Error() {
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
