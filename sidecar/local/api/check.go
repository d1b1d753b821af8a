package api

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// MaxBatchKeys is how many keys one batch, or one invalidation, may have.
const MaxBatchKeys = 1000

// Errors of arguments that both protocols have.
var (
	ErrDeleteAbsent  = errors.New("a delete cannot require that the row is absent")
	ErrDeleteValue   = errors.New("a delete has no value")
	ErrWatchIsRouted = errors.New("a watch has keys of many owners and cannot be routed by the ring: open it at the pod's own sidecar")
)

// AppendError returns e as the error of an append: nobody knows a key to read.
func AppendError(e *apierror.Error) *apierror.Error {
	if e.Type == apierror.TypeOf(kv.KindUnknown) {
		e.Detail = "the row may or may not have been inserted; look for it in the database. A retry with the same idempotency id " +
			"inserts no second row, one without it may"
	}
	return e
}

// CheckBatch returns an error unless a batch has an allowed number of keys.
func CheckBatch(keys []string) *apierror.Error {
	if len(keys) == 0 || len(keys) > MaxBatchKeys {
		return apierror.New(apierror.InvalidBatch, fmt.Sprintf("a batch has 1 to %d keys, not %d", MaxBatchKeys, len(keys)))
	}
	return nil
}

// CheckBatchWrite returns an error unless the changes of a batch can be made together.
func CheckBatchWrite(cs []kv.Change) *apierror.Error {
	if len(cs) == 0 || len(cs) > kv.MaxBatchWrites {
		return apierror.New(apierror.InvalidBatch, fmt.Sprintf("a batch has 1 to %d rows, not %d", kv.MaxBatchWrites, len(cs)))
	}
	bytes, keys, ids := 0, make(map[string]int, len(cs)), map[string]int{}
	for i, c := range cs {
		bytes += c.Bytes()
		if first, ok := keys[c.Key]; ok { //guard:batch-writes-a-key-twice
			return apierror.New(apierror.InvalidBatch, fmt.Sprintf(
				"rows %d and %d have the same key: a batch has no order, so send them in two batches", first, i))
		}
		if first, ok := ids[c.ID]; ok && c.ID != "" {
			return apierror.New(apierror.InvalidBatch, fmt.Sprintf(
				"rows %d and %d have the same idempotency id; each write needs its own", first, i))
		}
		keys[c.Key], ids[c.ID] = i, i
	}
	if bytes > kv.MaxBatchWriteBytes {
		return apierror.New(apierror.InvalidBatch, fmt.Sprintf(
			"the rows of the batch have %d bytes; at most %d are allowed, so send several batches", bytes, kv.MaxBatchWriteBytes))
	}
	return nil
}

// CheckWrite returns an error unless the key and the id of a change, and its condition, can be those of a write.
func CheckWrite(c kv.Change) *apierror.Error {
	if err := kv.CheckKey(c.Key); err != nil {
		return InvalidKey(err).At("key")
	}
	if c.ID != "" {
		if err := CheckIdempotencyID(c.ID); err != nil {
			return InvalidRequest(err).At("idempotency_id")
		}
	}
	if c.Delete && c.If.Absent {
		return InvalidRequest(ErrDeleteAbsent).At("condition.absent")
	}
	if c.Delete && len(c.Value) > 0 {
		return InvalidRequest(ErrDeleteValue).At("value")
	}
	return nil
}

// CheckScopeKeys returns an error unless keys can be invalidated.
func CheckScopeKeys(keys []string) error {
	for i, key := range keys {
		if err := kv.CheckKey(key); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
	}
	switch {
	case len(keys) == 0: //guard:empty-list-drops-everything
		return errors.New("the list of keys is empty; to invalidate every key use all")
	case len(keys) > MaxBatchKeys:
		return fmt.Errorf("one request can invalidate at most %d keys, not %d; send several", MaxBatchKeys, len(keys))
	}
	return nil
}

// CheckPrefix returns an error unless prefix can be the beginning of keys.
func CheckPrefix(prefix string) error {
	if err := kv.CheckKey(prefix); err != nil {
		return fmt.Errorf("prefix: %s; to invalidate every key use all", strings.Replace(err.Error(), "key", "prefix", 1))
	}
	return nil
}

// CheckETag returns an error unless s is one strong entity tag (RFC 9110, 8.8.3).
func CheckETag(s string) error {
	if strings.HasPrefix(s, "W/") {
		return errors.New("a weak ETag never matches here; send one strong ETag with its quotes, as GET returns it")
	}
	inner, ok := strings.CutPrefix(s, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	for i := range len(inner) {
		if inner[i] <= ' ' || inner[i] == '"' || inner[i] == 0x7f {
			ok = false
		}
	}
	if !ok || !closed {
		return errors.New("send one strong ETag with its quotes, as GET returns it")
	}
	return nil
}

// CheckIdempotencyID returns an error unless id can identify a write.
func CheckIdempotencyID(id string) error {
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return errors.New("an idempotency id has only printable ASCII characters")
		}
	}
	if id == "" || len(id) > kv.MaxIDBytes {
		return fmt.Errorf("an idempotency id has 1 to %d characters, not %d", kv.MaxIDBytes, len(id))
	}
	return nil
}

// TimeLeft returns how long clients may reuse an answer: 0 for a stale one.
func TimeLeft(a *kv.Answer) time.Duration {
	if a.Stale {
		return 0
	}
	return max(0, a.Fresh)
}
