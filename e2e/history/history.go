// Package history records what clients of a cache did and saw, by one clock, and says where that breaks a promise.
package history

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a client did.
type Kind uint8

// The kinds of operations.
const (
	Read Kind = iota
	Put
	Delete
	Invalidate
)

// Outcome is what came of it.
type Outcome uint8

// The outcomes.
const (
	OK      Outcome = iota // read: a value; write: committed; invalidate: every member was told
	Absent                 // read: there is no such row
	Refused                // write: the condition was false, and nothing was written
	Failed                 // no answer to a read; a write that was certainly not made
	Unknown                // a write that may have been made, or may yet be made
)

// Direct is the Sidecar of operations that went around the cache, to the database itself.
const Direct = -1

// Op is one operation. Times are since the Recorder began and greater than 0.
type Op struct {
	Client int32
	// Sidecar is the one that was asked, or Direct. Life counts its starts: its memory ends with its process, and with it
	// what it promises about order.
	Sidecar, Life int32
	Kind          Kind
	Outcome       Outcome
	Key           string
	Start, End    time.Duration

	// Seq is the value that was read or written; see Value.
	Seq uint64
	// Version is that of the row after the operation; 0 where it is not known.
	Version int64
	// Damage says what is wrong with the value that was read, whatever was written; empty when nothing is.
	Damage string
	// Stale: the answer said that it is stale.
	Stale bool

	// NoCache: the read asked for a load that begins after it.
	NoCache bool
	// MinVersion is the version that the read asked for, at least.
	MinVersion int64
	// If is the condition of a write.
	If Condition
}

// Condition says what the row must be for a write to happen. At most one field is set.
type Condition struct {
	Absent, Present bool
	Version         int64
}

func (op Op) String() string {
	kind := [...]string{"read", "put", "delete", "invalidate"}[op.Kind]
	outcome := [...]string{"ok", "absent", "refused", "failed", "unknown"}[op.Outcome]
	where := fmt.Sprintf("sidecar %d.%d", op.Sidecar+1, op.Life)
	if op.Sidecar == Direct {
		where = "the database"
	}
	s := fmt.Sprintf("%v–%v %s of %s by %d through %s: %s, value %d, version %d",
		op.Start, op.End, kind, op.Key, op.Client, where, outcome, op.Seq, op.Version)
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

// write reports whether the operation may change the row.
func (op *Op) write() bool { return op.Kind == Put || op.Kind == Delete }

// answered reports whether the operation is a read that says what the row is.
func (op *Op) answered() bool {
	return op.Kind == Read && (op.Outcome == OK || op.Outcome == Absent)
}

// Recorder is the one clock, and the number of every value. It is safe for concurrent use.
type Recorder struct {
	began time.Time
	seq   atomic.Uint64

	mu   sync.Mutex // guards logs
	logs []*Log
}

// NewRecorder starts the clock.
func NewRecorder() *Recorder { return &Recorder{began: time.Now().Add(-1)} }

// Now is the time since the Recorder began.
func (r *Recorder) Now() time.Duration { return time.Since(r.began) }

// NextSeq returns a number that no other value has.
func (r *Recorder) NextSeq() uint64 { return r.seq.Add(1) }

// Log returns a new client's log.
func (r *Recorder) Log() *Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &Log{client: int32(len(r.logs))}
	r.logs = append(r.logs, l)
	return l
}

// Take returns what was logged since the last Take. For Checker.Check no operation may be under way.
func (r *Recorder) Take() (ops []Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		ops = append(ops, l.take()...)
	}
	return ops
}

// Log is what one client did.
type Log struct {
	client int32

	mu  sync.Mutex // guards ops
	ops []Op
}

// Client is the number that the log's operations get.
func (l *Log) Client() int32 { return l.client }

// Add logs an operation that has ended.
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
