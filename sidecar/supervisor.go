package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/internal/cgroup"
	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
	"github.com/ringside-cache/ringside/sidecar/internal/saved"
)

// supervisor is the parent of this process, and by it the process before and the one after this one. The zero value is none.
type supervisor struct {
	inherit.Passed
	replaced atomic.Bool // the next process waits for the entries of this one
}

// say sends a line. If that fails, the parent has ended, and this process ends with it.
func (s *supervisor) say(line string) {
	if s.Control != nil {
		_, _ = io.WriteString(s.Control, line+"\n")
	}
}

// obey calls stop when this process is to be replaced, until ctx is done.
func (s *supervisor) obey(ctx context.Context, stop func()) error {
	if s.Control == nil {
		return nil
	}
	defer interruptible(ctx, s.Control.SetReadDeadline)()
	for lines := bufio.NewScanner(s.Control); lines.Scan(); {
		if lines.Text() == inherit.Replace {
			s.replaced.Store(true)
			// Until this process has ended, there are two of them in the memory of the container.
			debug.SetGCPercent(replacedGCPercent)
			debug.FreeOSMemory()
			stop()
		}
	}
	return nil
}

// replacedGCPercent is how much garbage a process may have that is being replaced.
const replacedGCPercent = 20

// interruptible ends reads and writes when ctx is done, until the returned function is called.
func interruptible(ctx context.Context, setDeadline func(time.Time) error) (end func()) {
	stop := context.AfterFunc(ctx, func() { _ = setDeadline(time.Unix(1, 0)) }) // it fails for a file that never blocks
	return func() { stop() }
}

// restoreEntries waits until the previous process does not serve applications any more, and takes over what it has saved. Without
// that, this process starts without entries.
func (r *run) restoreEntries(ctx context.Context) error {
	if r.supervisor.Previous == nil {
		return nil
	}
	defer r.supervisor.Previous.Close()
	r.supervisor.say(inherit.Prepared)
	defer interruptible(ctx, r.supervisor.Previous.SetReadDeadline)()
	began := time.Now()
	restored, err := r.parts.datasets.Restore(r.supervisor.Previous, r.parts.memory.left)
	switch {
	case ctx.Err() != nil, errors.Is(err, saved.ErrNothing):
	case err != nil:
		r.log.Warn("the entries of the previous process cannot be read; starting without them", zap.Error(err))
	default:
		r.log.Info("the entries of the previous process are in memory, as stale values", zap.Int("entries", restored.Entries),
			zap.Int64("bytes", restored.Bytes), zap.Int("omitted", restored.Omitted), zap.Duration("took", time.Since(began)))
	}
	return nil
}

// restoreShare is the part of the memory that is left for entries. The rest is for the garbage that both processes make meanwhile: with
// all of it, the kernel ended the old process while it saved (128 MiB, full memory).
const restoreShare = 0.6

// left returns how many bytes entries may have while another process still has its own.
func (m memory) left() int64 {
	left, limited := cgroup.MemoryLeft(os.DirFS("/"))
	if !limited {
		return m.entries
	}
	return min(m.entries, int64(float64(max(left-processMemory, 0))*restoreShare))
}

// saveEntries saves all entries for the next process, if there is one. Nothing may serve applications any more.
func (r *run) saveEntries(ctx context.Context) {
	if !r.supervisor.replaced.Load() {
		return
	}
	defer r.supervisor.Next.Close() // the next process has waited for it
	defer interruptible(ctx, r.supervisor.Next.SetWriteDeadline)()
	began := time.Now()
	if err := r.parts.datasets.Save(r.supervisor.Next); err != nil {
		r.log.Warn("the entries cannot be saved for the next process; it starts without them", zap.Error(err))
		return
	}
	r.log.Info("the entries are saved for the next process", zap.Duration("took", time.Since(began)))
}

// fail tells the parent why this process ends.
func (s *supervisor) fail(err error) error {
	if err != nil {
		s.say(inherit.Failed + fmt.Sprintf("%q", err.Error()))
	}
	return err
}
