// Package origintest tests origins: Conformance and ConformanceWriter are the tests that every implementation and every
// decorator of the interfaces of origin passes, and Fake is an origin in memory that counts, fails and blocks on demand.
package origintest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// Fake is an origin in memory. Like a database it reads all keys of a Load at one moment, when Load begins: a write while a
// Load is blocked or slow does not appear in its results. Load panics if its caller breaks the contract of origin.Origin:
// empty or duplicate keys, or a context without a deadline.
type Fake struct {
	mu      sync.Mutex // guards the fields below
	rows    map[string]origin.Value
	wrong   map[string]origin.DataCause // :: key → why its rows cannot be a value
	newest  map[string]int64            // :: key → highest version so far, so that a recreated row is newer
	fail    error
	delay   time.Duration
	gate    chan struct{} // closed by release; nil: open
	queries int64
	lists   int64
	keys    int64
	asked   map[string]int64 // :: key → how often
	flying  int64
	peak    int64
	faults  writeFaults
}

// New returns a Fake with these rows, each at version 1.
func New(rows map[string]string) *Fake {
	f := &Fake{rows: map[string]origin.Value{}, wrong: map[string]origin.DataCause{}, newest: map[string]int64{}, asked: map[string]int64{}}
	for key, value := range rows {
		f.Set(key, value)
	}
	return f
}

// Set writes a row and returns its version, one above the key's last one.
func (f *Fake) Set(key, value string) (version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setLocked(key, []byte(value), f.newest[key]+1)
	return f.rows[key].Version
}

// SetVersion writes a row at any version, including 0.
func (f *Fake) SetVersion(key, value string, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setLocked(key, []byte(value), version)
}

// Delete removes a row.
func (f *Fake) Delete(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deleteLocked(key)
}

func (f *Fake) deleteLocked(key string) {
	delete(f.rows, key)
	delete(f.wrong, key)
}

// Spoil makes the rows of a key a data error, until the key is set or deleted.
func (f *Fake) Spoil(key string, cause origin.DataCause) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrong[key] = cause
}

// Restore ends the data error of a key: its row is what it was.
func (f *Fake) Restore(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.wrong, key)
}

// Fail makes each Load and List that begins from now on return err; nil ends the outage.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Slow makes each Load, Write and List that begins from now on take d, or until its context is done.
func (f *Fake) Slow(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Block makes each Load and List that begins from now on wait until release is called, or its context is done. Release
// may be called more than once.
func (f *Fake) Block() (release func()) { return f.block(&f.gate) }

// block closes the gate at p, which mu guards, until release is called.
func (f *Fake) block(p *chan struct{}) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	*p = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if *p == gate {
			*p = nil
		}
		close(gate)
	})
}

// Queries returns how many Loads and Lists have begun.
func (f *Fake) Queries() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queries
}

// Keys returns how many keys those Loads have requested.
func (f *Fake) Keys() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keys
}

// Asked returns how many Loads have requested key.
func (f *Fake) Asked(key string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[key]
}

// Peak returns the highest number of concurrent Loads, Writes and Lists.
func (f *Fake) Peak() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peak
}

// Flying returns how many Loads, Writes and Lists are running.
func (f *Fake) Flying() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flying
}

// Load implements origin.Origin. A key that is not text (a NUL byte, broken UTF-8) is invalid.
func (f *Fake) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	checkCaller(ctx, keys)
	results, wait, err := f.begin(keys)
	defer f.end()
	if err := wait(ctx); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	return results, nil
}

func checkCaller(ctx context.Context, keys []string) {
	if _, ok := ctx.Deadline(); !ok {
		panic("origintest: Load without a deadline")
	}
	if len(keys) == 0 {
		panic("origintest: Load of no keys")
	}
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		if key == "" || seen[key] {
			panic(fmt.Sprintf("origintest: Load of a key that is empty or requested twice: %q", key))
		}
		seen[key] = true
	}
}

// begin reads the rows at the moment when the Load begins.
func (f *Fake) begin(keys []string) (results []origin.Result, wait func(context.Context) error, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries++
	f.keys += int64(len(keys))
	f.flying++
	f.peak = max(f.peak, f.flying)
	results = make([]origin.Result, len(keys))
	for i, key := range keys {
		f.asked[key]++
		results[i] = f.readLocked(key)
	}
	gate, delay := f.gate, f.delay
	return results, func(ctx context.Context) error { return pause(ctx, gate, delay) }, f.fail
}

func (f *Fake) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flying--
}

func (f *Fake) readLocked(key string) origin.Result {
	if !utf8.ValidString(key) || strings.ContainsRune(key, 0) {
		return origin.Result{Err: fmt.Errorf("%w: %q is not text", origin.ErrInvalidKey, key)}
	}
	if cause := f.wrong[key]; cause != 0 {
		return origin.Result{Err: origin.NewDataError(cause, "the rows are wrong")}
	}
	row, ok := f.rows[key]
	if !ok {
		return origin.Result{Err: origin.ErrNotFound}
	}
	row.Data = append([]byte{}, row.Data...) // each result has its own copy, as with a database
	return origin.Result{Value: row}
}

// pause returns at once if there is nothing to wait for, and the context's error if the context is done first.
func pause(ctx context.Context, gate <-chan struct{}, delay time.Duration) error {
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
