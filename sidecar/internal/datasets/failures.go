package datasets

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// reportInterval is the time between two log lines about failures of a dataset.
const reportInterval = 10 * time.Second

// FailureLog writes one line per interval and dataset in which reads or writes failed, however many did.
type FailureLog struct {
	set  *Set
	last map[string]failures // :: dataset → at the last report
	// growing has the datasets whose table of changes could not be pruned at the last report.
	growing map[string]bool // :: dataset → yes
}

// NewFailureLog returns a FailureLog of the datasets of s.
func NewFailureLog(s *Set) *FailureLog {
	return &FailureLog{s, map[string]failures{}, map[string]bool{}}
}

// Run reports at intervals until ctx is done.
func (l *FailureLog) Run(ctx context.Context) error { return task.Every(ctx, reportInterval, l.Report) }

// Report logs what failed since the last report. It must not be called while Run runs.
func (l *FailureLog) Report() {
	now := l.set.current.Load()
	last := make(map[string]failures, len(now.list))
	for _, d := range now.list {
		last[d.Name()] = failuresOf(d.Stats())
		since := last[d.Name()].since(l.last[d.Name()])
		l.set.logDataErrors(d, since.dataErrors)
		since.dataErrors = 0
		l.set.logFailures(now, d, since)
		l.reportPruning(now, d.Name())
	}
	l.last = last
}

// reportPruning logs once that the table of changes grows, until it is pruned again.
func (l *FailureLog) reportPruning(of *generation, dataset string) {
	err := of.origins.LogStats(dataset).PruneError
	if err != nil && !l.growing[dataset] {
		l.set.config.Log.Warn("deleting old rows of the table of changes failed; it grows until this succeeds",
			zap.String("dataset", dataset), zap.Error(err))
	}
	l.growing[dataset] = err != nil
}

// failures of a dataset since the start.
type failures struct{ loads, fetches, refused, reads, writes, unknown, dataErrors int64 }

func failuresOf(s *kv.Stats) failures {
	return failures{
		s.LoadErrors.Load(), s.PeerFetchErrors.Load(), s.Refused.Load(), s.Error.Load(),
		s.WriteErrors.Load(), s.WritesUnknown.Load(), s.AllDataErrors(),
	}
}

func (f failures) since(before failures) failures {
	return failures{
		f.loads - before.loads, f.fetches - before.fetches, f.refused - before.refused, f.reads - before.reads,
		f.writes - before.writes, f.unknown - before.unknown, f.dataErrors - before.dataErrors,
	}
}

// logDataErrors writes one line for n loads of keys whose rows cannot be their value.
func (s *Set) logDataErrors(d *cache.Dataset, n int64) {
	last := d.Stats().LastDataError.Load()
	if n == 0 || last == nil { //guard:data-errors-are-logged-without-an-end
		return
	}
	s.config.Log.Warn("rows in the database cannot be the values of their keys; correct the rows",
		zap.String("dataset", d.Name()), zap.Duration("interval", reportInterval), zap.Int64("loads", n),
		zap.String("last_key", printable.Text(last.Key)), zap.NamedError("last_data_error", last.Err))
}

func (s *Set) logFailures(of *generation, d *cache.Dataset, f failures) {
	load, write := of.origins.TakeErrors(d.Name())
	if f == (failures{}) && write == nil { // the member that requested the write counts it
		return
	}
	fields := []zap.Field{
		zap.String("dataset", d.Name()), zap.Duration("interval", reportInterval), zap.Int64("loads_failed", f.loads),
		zap.Int64("peer_fetches_failed", f.fetches), zap.Int64("refused", f.refused), zap.Int64("reads_failed", f.reads),
		zap.Int64("writes_failed", f.writes), zap.Int64("writes_unknown", f.unknown),
	}
	for name, err := range map[string]error{"last_load_error": load, "last_write_error": write} {
		if err != nil {
			fields = append(fields, zap.NamedError(name, err))
		}
		if traced, ok := errors.AsType[*kv.TracedError](err); ok {
			fields = append(fields, zap.String(name+"_trace_id", traced.TraceID))
		}
	}
	if f.fetches > 0 {
		if err := d.Stats().LastPeerFetchError.Load(); err != nil {
			fields = append(fields, zap.NamedError("last_peer_fetch_error", *err))
		}
	}
	s.config.Log.Warn("loads, peer fetches, reads or writes of a dataset failed", fields...)
}
