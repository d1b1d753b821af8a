package peer

import (
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// Bounds of what members send each other. The server's MaxRequestBytes admits the largest request of any kind; these
// are per field, and checked before any work.
const (
	// maxDatasetBytes bounds the name of a dataset.
	maxDatasetBytes = 128
	// maxValueBytes bounds a value that is written.
	maxValueBytes = 1 << 20
	// maxETagBytes bounds the ETag of a condition, maxIDBytes the name of a write, maxNodeBytes a node id.
	maxETagBytes, maxIDBytes, maxNodeBytes = 256, 256, 256
	// maxInvalidations bounds those of one request of TellAll, and maxTellBytes their names and keys.
	maxInvalidations, maxTellBytes = 1000, 512 << 10
	// maxRequestBytes is the largest write, with what protobuf adds.
	maxRequestBytes = maxValueBytes + 8<<10
)

func checkLength(what, text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("the %s has %d bytes; at most %d are allowed", what, len(text), most)
	}
	return nil
}

// checkNames checks what every request about one key has.
func checkNames(dataset, key string) error {
	if key == "" {
		return errors.New("the key is empty")
	}
	return errors.Join(
		checkLength("dataset's name", dataset, maxDatasetBytes), checkLength("key", key, cache.MaxKeyBytes))
}

func checkSizes(req *peerv1.FetchRequest) error {
	if err := checkNames(req.GetDataset(), req.GetKey()); err != nil {
		return &cache.Error{Kind: cache.KindInvalidKey, Err: err}
	}
	return nil
}

// checkWrite checks the value first: what is too large is named before what is odd.
func checkWrite(req *peerv1.WriteRequest) error {
	if err := checkValue(req.GetValue()); err != nil {
		return err
	}
	if err := errors.Join(
		checkNames(req.GetDataset(), req.GetKey()),
		checkLength("ETag", req.GetIfEtag(), maxETagBytes),
		checkLength("idempotency id", req.GetIdempotencyId(), maxIDBytes),
	); err != nil {
		return &cache.Error{Kind: cache.KindInvalidKey, Err: err}
	}
	return nil
}

func checkValue(value []byte) error {
	if len(value) <= maxValueBytes {
		return nil
	}
	return &cache.Error{Kind: cache.KindInvalidValue, Err: &origin.ValueError{
		Reason: fmt.Sprintf("the value has %d bytes; at most %d are allowed", len(value), maxValueBytes),
	}}
}

func checkInvalidation(i *peerv1.Invalidation) error {
	if i.GetPrefix() {
		return errors.Join(checkLength("dataset's name", i.GetDataset(), maxDatasetBytes),
			checkLength("prefix", i.GetKey(), cache.MaxKeyBytes))
	}
	return checkNames(i.GetDataset(), i.GetKey())
}

// invalidations turns those of a message into the cache's, all or an error.
func invalidations(list []*peerv1.Invalidation) ([]cache.Invalidation, error) {
	if len(list) > maxInvalidations {
		return nil, fmt.Errorf("%d invalidations in one message; at most %d are allowed", len(list), maxInvalidations)
	}
	taken := make([]cache.Invalidation, len(list))
	for n, i := range list {
		if err := checkInvalidation(i); err != nil {
			return nil, fmt.Errorf("invalidation %d: %w", n, err)
		}
		taken[n] = fromWire(i)
	}
	return taken, nil
}
