package origintest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// writeFaults are the faults that a test can request. Guarded by Fake.mu.
type writeFaults struct {
	unversioned bool
	fail        error
	lose        bool
	gate        chan struct{} // before the row is written; nil: open
	answers     chan struct{} // after it
	writes      int64
	appends     int // keys that have been generated
}

// Unversioned makes the Fake an origin without versions: its rows are at version 0 from now on.
func (f *Fake) Unversioned() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.unversioned = true
	for key, row := range f.rows {
		row.Version = 0
		f.rows[key] = row
	}
}

// FailWrites makes each Write that begins from now on return err, with nothing written; nil ends that.
func (f *Fake) FailWrites(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.fail = err
}

// LoseAnswers makes each Write that begins from now on write its row and return origin.ErrUnknown.
func (f *Fake) LoseAnswers(lose bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.lose = lose
}

// BlockWrites makes each Write that begins from now on wait, before it looks at the row, until release is called, or
// its context is done, and then nothing is written. Release may be called more than once.
func (f *Fake) BlockWrites() (release func()) { return f.block(&f.faults.gate) }

// BlockAnswers makes each Write that begins from now on wait after its row is written until release is called, or its
// context is done, and then its outcome is unknown. Release may be called more than once.
func (f *Fake) BlockAnswers() (release func()) { return f.block(&f.faults.answers) }

// Writes returns how many Writes have begun.
func (f *Fake) Writes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults.writes
}

// Write implements origin.Writer. It panics if its caller breaks the contract: an empty key, a context without a deadline, a
// deletion with a value or of an absent row, more than one condition.
func (f *Fake) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	checkWriter(ctx, c)
	faults, delay := f.beginWrite()
	defer f.end()
	if err := pause(ctx, faults.gate, delay); err != nil {
		return origin.Value{}, err
	}
	if faults.fail != nil {
		return origin.Value{}, faults.fail
	}
	v, err := f.write(c)
	if err != nil {
		return origin.Value{}, err
	}
	if err := f.loseAnswer(ctx, faults); err != nil {
		return origin.Value{}, err
	}
	return v, nil
}

// WriteMany implements origin.Writer. It counts as one Write, and all its rows share the faults of that.
func (f *Fake) WriteMany(ctx context.Context, cs []origin.Change) []origin.Result {
	seen := map[string]bool{}
	for _, c := range cs {
		checkWriter(ctx, c)
		if seen[c.Key] {
			panic(fmt.Sprintf("origintest: WriteMany of key %q twice", c.Key))
		}
		seen[c.Key] = true
	}
	faults, delay := f.beginWrite()
	defer f.end()
	results := make([]origin.Result, len(cs))
	err := cmp.Or(pause(ctx, faults.gate, delay), faults.fail)
	for i, c := range cs {
		if results[i].Err = err; err == nil {
			results[i].Value, results[i].Err = f.write(c)
		}
	}
	if err != nil {
		return results
	}
	if err = f.loseAnswer(ctx, faults); err != nil {
		for i, r := range results {
			if r.Err == nil {
				results[i] = origin.Result{Err: err}
			}
		}
	}
	return results
}

// loseAnswer returns the error of a write whose row is written and whose answer is lost; nil if it is not.
func (f *Fake) loseAnswer(ctx context.Context, faults writeFaults) (err error) {
	if faults.answers != nil {
		err = pause(ctx, faults.answers, 0)
	}
	if faults.lose {
		err = errors.New("the answer was lost")
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", origin.ErrUnknown, err)
	}
	return err
}

// Append implements origin.Writer. The keys are row-1, row-2 and so on; an append that fails has used its key.
func (f *Fake) Append(ctx context.Context, data []byte) (origin.Row, error) {
	f.mu.Lock()
	f.faults.appends++
	key := fmt.Sprint("row-", f.faults.appends)
	f.mu.Unlock()
	v, err := f.Write(ctx, origin.Change{Key: key, Data: data, If: origin.Condition{Absent: true}})
	if err != nil {
		return origin.Row{}, err
	}
	return origin.Row{Key: key, Value: v}, nil
}

func checkWriter(ctx context.Context, c origin.Change) {
	if _, ok := ctx.Deadline(); !ok {
		panic("origintest: Write without a deadline")
	}
	conditions := 0
	for _, set := range []bool{c.If.Absent, c.If.Present, c.If.Version != 0} {
		if set {
			conditions++
		}
	}
	switch {
	case c.Key == "":
		panic("origintest: Write of an empty key")
	case conditions > 1:
		panic(fmt.Sprintf("origintest: Write with %d conditions: %+v", conditions, c.If))
	case c.Delete && c.Data != nil:
		panic("origintest: deletion with a value")
	case c.Delete && c.If.Absent:
		panic("origintest: deletion of an absent row")
	}
}

func (f *Fake) beginWrite() (faults writeFaults, delay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults.writes++
	f.flying++
	f.peak = max(f.peak, f.flying)
	return f.faults, f.delay
}

func (f *Fake) write(c origin.Change) (origin.Value, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := f.readLocked(c.Key)
	switch {
	case errors.Is(held.Err, origin.ErrInvalidKey):
		return origin.Value{}, held.Err
	case origin.CauseOf(held.Err) != 0:
		return origin.Value{}, origin.InvalidValue("", "%v", held.Err)
	}
	if err := f.mayLocked(c.If, held); err != nil {
		return origin.Value{}, err
	}
	switch there := held.Err == nil; {
	case c.Delete && !there:
		return origin.Value{}, nil
	case c.Delete:
		f.deleteLocked(c.Key)
		return origin.Value{Version: f.versionLocked(c.Key, held.Value.Version+1)}, nil
	case there:
		f.setLocked(c.Key, c.Data, held.Value.Version+1)
	default:
		f.setLocked(c.Key, c.Data, f.newest[c.Key]+1)
	}
	return f.readLocked(c.Key).Value, nil
}

func (f *Fake) setLocked(key string, data []byte, version int64) {
	delete(f.wrong, key)
	f.rows[key] = origin.Value{Data: append([]byte{}, data...), Version: f.versionLocked(key, version)}
}

func (f *Fake) mayLocked(c origin.Condition, held origin.Result) error {
	there := held.Err == nil
	switch {
	case c.Version != 0 && f.faults.unversioned:
		return &origin.ValueError{Reason: "the rows have no version to compare"}
	case c.Absent && there, c.Present && !there:
		return origin.ErrConflict
	case c.Version != 0 && (!there || held.Value.Version != c.Version):
		return origin.ErrConflict
	}
	return nil
}

// versionLocked records a version of a key, and returns the version of the row.
func (f *Fake) versionLocked(key string, version int64) int64 {
	if f.faults.unversioned {
		return 0
	}
	f.newest[key] = max(f.newest[key], version)
	return version
}
