// Package audit writes the audit log: who has changed what, and who was refused, one JSON object per line.
//
// A request never waits for the log. Lines wait in a bounded queue; when the log falls behind, they are dropped, counted, and
// a line says how many. A disk that is full costs lines, nothing else.
package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxQueued bounds the lines that wait to be written, in bytes.
	maxQueued = 1 << 20
	// refusedShare is the part of maxQueued that lines about refused requests may fill: a flood of them must not cost the
	// lines about changes.
	refusedShare = maxQueued / 2
	// refusedPerSecond and refusedBurst bound the lines about refused requests, which cost a client that floods nothing but
	// fill the disk.
	refusedPerSecond, refusedBurst = 100, 1000
	// reportEvery is the time between two log lines about an audit log that cannot be written.
	reportEvery = time.Minute
)

// Log is an audit log. It is safe for concurrent use. A nil Log writes nothing.
type Log struct {
	path   string        // empty for a writer that is not a file
	report func(error)   // gets failures of the log, at most one per reportEvery
	wake   chan struct{} // has room for one

	written, dropped, failures atomic.Int64

	mu      sync.Mutex // guards the fields below
	queue   bytes.Buffer
	lines   int64 // in queue
	missing int64 // dropped since the last line that said so
	refused *rate.Limiter

	out      io.Writer // of the goroutine of Run
	partial  bool      // the last write ended within a line
	reported time.Time
}

// Open opens the log in a file, which it creates with mode 0600 and only appends to. Report gets failures to write, at most
// one per minute.
func Open(path string, report func(error)) (*Log, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	l := New(f, report)
	l.path = path
	return l, nil
}

func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return f, nil
}

// New returns a log that writes to out.
func New(out io.Writer, report func(error)) *Log {
	return &Log{report: report, out: out, wake: make(chan struct{}, 1), refused: rate.NewLimiter(refusedPerSecond, refusedBurst)}
}

// Record queues the line of e, or drops it if too much is waiting. It does not block.
func (l *Log) Record(e Event) {
	if l == nil {
		return
	}
	line := e.line(time.Now())
	l.mu.Lock()
	defer l.mu.Unlock()
	most := maxQueued
	if e.Refused {
		most = refusedShare
	}
	if l.queue.Len()+len(line) > most || e.Refused && !l.refused.Allow() { //guard:audit-queue-without-bound
		l.missing++
		l.dropped.Add(1)
		return
	}
	l.queue.Write(line)
	l.lines++
	select {
	case l.wake <- struct{}{}:
	default: // Run has not looked since the last one
	}
}

// Run writes what is queued until ctx is done, and then the rest. On SIGHUP it opens the file again, so that the old one can
// be moved away. It closes the file.
func (l *Log) Run(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	if l.path != "" {
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
	}
	defer l.close()
	for {
		select {
		case <-l.wake:
			l.flush()
		case <-hup:
			l.flush()
			l.reopen()
		case <-ctx.Done():
			l.flush()
			return nil
		}
	}
}

func (l *Log) reopen() {
	f, err := openFile(l.path)
	if err != nil {
		l.reportFailure(err)
		return
	}
	l.close()
	l.out, l.partial = f, false
}

func (l *Log) close() {
	if f, ok := l.out.(*os.File); ok && l.path != "" {
		_ = f.Close() // nothing is buffered here
	}
}

// flush writes what is queued. What cannot be written is lost.
func (l *Log) flush() {
	for {
		if l.partial { // a full disk has cut the last line off
			if _, err := l.out.Write([]byte("\n")); err != nil {
				l.reportFailure(err)
				return // the queue waits, and is bounded
			}
			l.partial = false
		}
		b := l.take()
		if b.lines == 0 {
			return
		}
		n, err := l.out.Write(b.text)
		if n > 0 {
			l.partial = b.text[n-1] != '\n'
		}
		lost := int64(bytes.Count(b.text[n:], []byte("\n")))
		l.written.Add(b.lines - min(lost, b.lines))
		if err != nil {
			l.lose(b, n, lost)
			l.reportFailure(err)
			return
		}
	}
}

// batch is some lines that are written at once.
type batch struct {
	text    []byte
	lines   int64 // in text
	note    int   // bytes of the first line if that says how many are missing
	missing int64 // what that line says
}

// take takes the queue, after a line that says how many lines are missing before it.
func (l *Log) take() (b batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missing > 0 {
		b = batch{text: droppedLine(time.Now(), l.missing), lines: 1, missing: l.missing}
		b.note = len(b.text)
	}
	b.text, b.lines = append(b.text, l.queue.Bytes()...), b.lines+l.lines
	l.queue.Reset()
	l.lines, l.missing = 0, 0
	return b
}

// lose counts the lines of b that could not be written after its first n bytes. A line about missing ones is written again.
func (l *Log) lose(b batch, n int, lost int64) {
	if n < b.note {
		lost = max(lost-1, 0)
	} else {
		b.missing = 0
	}
	l.failures.Add(1)
	l.dropped.Add(lost)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.missing += lost + b.missing
}

func (l *Log) reportFailure(err error) {
	if !l.reported.IsZero() && time.Since(l.reported) < reportEvery {
		return
	}
	l.reported = time.Now()
	l.report(err)
}

// Stats are counts since the start.
type Stats struct {
	Written int64 // lines
	Dropped int64 // lines that were not written: the log fell behind, could not be written, or too many requests were refused
	Failing bool  // writing failed at least once
}

// Stats returns a snapshot.
func (l *Log) Stats() Stats {
	if l == nil {
		return Stats{}
	}
	return Stats{Written: l.written.Load(), Dropped: l.dropped.Load(), Failing: l.failures.Load() > 0}
}
