package sidecar

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

// sweepInterval is how often dead entries are dropped that nobody asked for again. Memory is bounded without it; it
// gives back to the live entries what the dead ones hold.
const sweepInterval = 30 * time.Second

// watch starts what goes on beside the reads: summing up failures, sweeping, and following the configuration.
func (p *process) watch(context.Context) error {
	p.background = []*task{
		p.spawn("report failures", p.report),
		p.spawn("sweep", p.sweep),
		p.spawn("follow the configuration", p.followConfig),
	}
	return nil
}

func (p *process) unwatch(context.Context) {
	for _, t := range p.background {
		t.stop()
	}
}

func (p *process) sweep(ctx context.Context) error {
	return each(ctx, sweepInterval, func() {
		for _, d := range p.datasets {
			d.Sweep()
		}
	})
}

// each calls do at every interval until ctx is done.
func each(ctx context.Context, interval time.Duration, do func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			do()
		}
	}
}

// reportInterval is how often failures are summed up.
const reportInterval = 10 * time.Second

// report writes one line per interval and dataset in which something failed, however many reads and writes that were.
func (p *process) report(ctx context.Context) error {
	last := make([]failures, len(p.datasets))
	return each(ctx, reportInterval, func() {
		for i, d := range p.datasets {
			now := failuresOf(d.Stats())
			p.logFailures(d.Name(), now.since(last[i]))
			last[i] = now
		}
	})
}

// failures of a dataset since its start.
type failures struct{ queries, hops, refused, errors, writes, unknown int64 }

func failuresOf(s *cache.Stats) failures {
	return failures{
		s.LoadErrors.Load(), s.PeerFetchErrors.Load(), s.Refused.Load(), s.Error.Load(),
		s.WriteErrors.Load(), s.WritesUnknown.Load(),
	}
}

func (f failures) since(before failures) failures {
	return failures{
		f.queries - before.queries, f.hops - before.hops, f.refused - before.refused, f.errors - before.errors,
		f.writes - before.writes, f.unknown - before.unknown,
	}
}

func (p *process) logFailures(dataset string, f failures) {
	complaints := p.origins[p.config.Datasets[dataset].Origin].complaints[dataset]
	load, write := complaints.loads.take(), complaints.writes.take()
	if f == (failures{}) && write == nil { // a write for another member is counted there
		return
	}
	fields := []zap.Field{
		zap.String("dataset", dataset), zap.Duration("within", reportInterval), zap.Int64("loads_failed", f.queries),
		zap.Int64("hops_unanswered", f.hops), zap.Int64("refused", f.refused), zap.Int64("reads_failed", f.errors),
		zap.Int64("writes_failed", f.writes), zap.Int64("writes_unknown", f.unknown),
	}
	for name, err := range map[string]error{"last_load_error": load, "last_write_error": write} {
		if err != nil {
			fields = append(fields, zap.NamedError(name, err))
		}
	}
	if f.hops > 0 {
		if err := p.dataset(dataset).Stats().LastPeerFetchError.Load(); err != nil {
			fields = append(fields, zap.NamedError("last_hop_error", *err))
		}
	}
	p.log.Warn("failures", fields...)
}
