// Package history records the operations of a cache's clients with one clock, and reports which of them break a promise.
package history

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is the kind of an operation.
type Kind uint8

// The kinds of operations.
const (
	Read Kind = iota
	Put
	Delete
	Invalidate
)

// Outcome is the result of an operation.
type Outcome uint8

// The results.
const (
	OK      Outcome = iota // read: a value; write: committed; invalidate: it reached every member
	Absent                 // read: the row does not exist
	Refused                // write: the condition was false, and nothing was written
	Failed                 // a read without a result; a write that certainly did not happen
	Unknown                // a write that may have happened, or may still happen
)

// Direct is the Sidecar of operations that bypass the cache and use the database.
const Direct = -1

// Op is one operation. Times are since the Recorder began and greater than 0.
type Op struct {
	Client int32
	// Sidecar is the index of the sidecar that got the request, or Direct. Life counts its starts: a sidecar keeps its promises
	// about order in memory, so that they end with its process.
	Sidecar, Life int32
	Kind          Kind
	Outcome       Outcome
	Key           string
	Start, End    time.Duration

	// Seq identifies the value that was read or written; see Value.
	Seq uint64
	// Version is the version of the row after the operation; 0 if it is not known.
	Version int64
	// Damage describes a fault of the value that was read that does not depend on the history; empty if there is none.
	Damage string
	// Stale: the response was marked as stale.
	Stale bool

	// NoCache: the read required a load that begins after it.
	NoCache bool
	// MinVersion is the lowest version that the read accepts; 0: any.
	MinVersion int64
	// If is the condition of a write.
	If Condition
}

// Condition is a precondition of a write. At most one field is set.
type Condition struct {
	Absent, Present bool
	Version         int64
}

func (op Op) String() string {
	kind := [...]string{"read", "put", "delete", "invalidate"}[op.Kind]
	outcome := [...]string{"ok", "absent", "refused", "failed", "unknown"}[op.Outcome]
	target := fmt.Sprintf("sidecar %d.%d", op.Sidecar+1, op.Life)
	if op.Sidecar == Direct {
		target = "the database"
	}
	s := fmt.Sprintf("%v–%v %s of %s by client %d through %s: %s, value %d, version %d",
		op.Start, op.End, kind, op.Key, op.Client, target, outcome, op.Seq, op.Version)
	for _, word := range []struct {
		set  bool
		word string
	}{
		{op.Stale, "stale"}, {op.NoCache, "no-cache"}, {op.MinVersion != 0, fmt.Sprint("at least ", op.MinVersion)},
		{op.If.Absent, "if absent"}, {op.If.Present, "if present"}, {op.If.Version != 0, fmt.Sprint("if ", op.If.Version)},
		{op.Damage != "", op.Damage},
	} {
		if word.set {
			s += ", " + word.word
		}
	}
	return s
}

// isWrite reports whether the operation may change the row.
func (op *Op) isWrite() bool { return op.Kind == Put || op.Kind == Delete }

// answered reports whether the operation is a read that returned the state of the row.
func (op *Op) answered() bool {
	return op.Kind == Read && (op.Outcome == OK || op.Outcome == Absent)
}

// Recorder has the clock of a history and numbers its values. It is safe for concurrent use.
type Recorder struct {
	began time.Time
	seq   atomic.Uint64

	mu   sync.Mutex // guards logs
	logs []*Log
}

// NewRecorder starts the clock.
func NewRecorder() *Recorder { return &Recorder{began: time.Now().Add(-1)} }

// Now returns the time since NewRecorder.
func (r *Recorder) Now() time.Duration { return time.Since(r.began) }

// NextSeq returns a new number for a value.
func (r *Recorder) NextSeq() uint64 { return r.seq.Add(1) }

// Log returns a new client's log.
func (r *Recorder) Log() *Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &Log{client: int32(len(r.logs))}
	r.logs = append(r.logs, l)
	return l
}

// Take returns the operations that were logged since the last Take. Before Checker.Check, take them while no operation runs.
func (r *Recorder) Take() (ops []Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		ops = append(ops, l.take()...)
	}
	return ops
}

// Log has the operations of one client.
type Log struct {
	client int32

	mu  sync.Mutex // guards ops
	ops []Op
}

// Client returns the number of the client.
func (l *Log) Client() int32 { return l.client }

// Add logs a completed operation.
func (l *Log) Add(op Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	op.Client = l.client
	l.ops = append(l.ops, op)
}

func (l *Log) take() []Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	ops := l.ops
	l.ops = make([]Op, 0, len(ops))
	return ops
}
