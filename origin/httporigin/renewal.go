package httporigin

import (
	"net/http"
	"runtime"
	"sync"
	"unsafe"
	"weak"

	"github.com/ringside-cache/ringside/origin"
)

const (
	// maxValidator limits ETag and Last-Modified of one response in bytes; ETags are hashes or numbers.
	maxValidator = 256
	// maxValidatorBytes limits the keys and validators of a dataset: those of about 10 000 values. Other values are loaded
	// again in full.
	maxValidatorBytes = 1 << 20
)

// renewals knows the validators of the values that the cache still holds, so that a load of a value that has not changed transfers no
// body. It refers to the values by weak pointers: it does not keep the memory of a value that the cache has evicted.
type renewals struct {
	mu    sync.Mutex          // guards the fields below
	held  map[string]*renewal // :: key → its last response
	bytes int                 // of keys and validators
}

// renewal is a value with its validators.
type renewal struct {
	etag, modified string
	first          weak.Pointer[byte] // of the value
	length         int
	content        origin.Content
}

func (r *renewal) size(key string) int { return len(key) + len(r.etag) + len(r.modified) }

// value returns the value; false if it was collected.
func (r *renewal) value() (origin.Value, bool) {
	first := r.first.Value()
	if first == nil {
		return origin.Value{}, false
	}
	return origin.Value{Data: unsafe.Slice(first, r.length), Content: r.content}, true
}

// conditions adds to the header of a request what makes it conditional.
func (r *renewal) conditions(h http.Header) {
	if r.etag != "" {
		h.Set("If-None-Match", r.etag)
	}
	if r.modified != "" {
		h.Set("If-Modified-Since", r.modified)
	}
}

// lookup returns the renewal of a key and its value, if both are known.
func (r *renewals) lookup(key string) (*renewal, origin.Value) {
	r.mu.Lock()
	held := r.held[key]
	r.mu.Unlock()
	if held != nil {
		if v, ok := held.value(); ok {
			return held, v
		}
	}
	return nil, origin.Value{}
}

// remember keeps the validators of a response until its value is collected. The value must have an allocation of its own, of 16 bytes or
// more: the runtime does not report when a smaller one is collected.
func (r *renewals) remember(key string, h http.Header, v origin.Value) {
	r.forget(key, nil)
	one := &renewal{etag: h.Get("ETag"), modified: h.Get("Last-Modified"), length: len(v.Data), content: v.Content}
	if len(v.Data) == 0 || one.etag == "" && one.modified == "" || len(one.etag)+len(one.modified) > maxValidator {
		return
	}
	one.first = weak.Make(&v.Data[0])
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, other := r.held[key]; other || r.bytes+one.size(key) > maxValidatorBytes { //guard:validators-fill-the-memory
		return // loaded twice at once, or full
	}
	if r.held == nil {
		r.held = map[string]*renewal{}
	}
	r.held[key] = one
	r.bytes += one.size(key)
	runtime.AddCleanup(&v.Data[0], func(key string) { r.forget(key, one) }, key)
}

// forget drops the validators of a key, only those of one unless that is nil.
func (r *renewals) forget(key string, one *renewal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if held := r.held[key]; held != nil && (one == nil || held == one) {
		delete(r.held, key)
		r.bytes -= held.size(key)
	}
}
