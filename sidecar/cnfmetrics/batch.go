package cnfmetrics

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/durationpb"

	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// maxBatch bounds the ids of a batch.
const maxBatch = 1000

// maxReadersPerBatch is how many misses of one batch are under way at once. It is more than an origin's usual batch, so
// that one call can fill one query.
const maxReadersPerBatch = 128

// BatchShowCnfMetrics implements cnfmetrics.v1.CnfMetricsService.
func (s *Service) BatchShowCnfMetrics(
	ctx context.Context, q *cnfmetricsv1.BatchShowCnfMetricsRequest,
) (*cnfmetricsv1.BatchShowCnfMetricsResponse, error) {
	ids := q.GetCnfIds()
	if wrong := checkBatch(ids); wrong != nil {
		return nil, invalid(wrong)
	}
	results := make([]*cnfmetricsv1.BatchShowResult, len(ids))
	for i, o := range s.showAll(ctx, ids) {
		results[i] = s.result(ids[i], o)
	}
	return &cnfmetricsv1.BatchShowCnfMetricsResponse{Results: results}, nil
}

func (s *Service) result(id string, o outcome) *cnfmetricsv1.BatchShowResult {
	if o.err == nil {
		return &cnfmetricsv1.BatchShowResult{CnfId: id, Result: &cnfmetricsv1.BatchShowResult_Found{Found: o.found}}
	}
	e := s.errorOf(o.err)
	m := &cnfmetricsv1.Error{Code: int32(e.Type.Code), Reason: e.Type.Reason, Message: e.Detail}
	if e.RetryAfter > 0 {
		m.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return &cnfmetricsv1.BatchShowResult{CnfId: id, Result: &cnfmetricsv1.BatchShowResult_Error{Error: m}}
}

// outcome is the answer to one id of a batch.
type outcome struct {
	found *cnfmetricsv1.ShowCnfMetricResponse
	err   error
}

// batch is the reading of many metrics.
type batch struct {
	service  *Service
	ctx      context.Context
	ids      []string
	options  cache.ReadOptions
	next     atomic.Int64 // index of the next id to read
	outcomes []outcome    // each is written by the one reader that took its index
}

// showAll answers all ids, in order, each on its own. The caller reads, too, so that a batch goes on when all other
// readers are taken.
func (s *Service) showAll(ctx context.Context, ids []string) []outcome {
	b := &batch{service: s, ctx: ctx, ids: ids, outcomes: make([]outcome, len(ids))}
	b.options = s.dataset.Prefetch(ids, cache.ReadOptions{})
	var readers sync.WaitGroup
	for range min(len(ids), maxReadersPerBatch) - 1 {
		if !s.takeReader() {
			break
		}
		readers.Go(func() {
			defer s.stats.BatchReaders.Add(-1)
			b.read()
		})
	}
	b.read()
	readers.Wait()
	return b.outcomes
}

func (s *Service) takeReader() bool {
	if s.stats.BatchReaders.Add(1) > int64(s.maxReaders) { //guard:goroutines-batches-metrics-without-bound
		s.stats.BatchReaders.Add(-1)
		return false
	}
	return true
}

func (b *batch) read() {
	for i := b.next.Add(1) - 1; i < int64(len(b.ids)); i = b.next.Add(1) - 1 {
		b.outcomes[i] = b.service.showOne(b.ctx, b.ids[i], b.options)
	}
}

// showOne makes an error of a panic: it may happen in a goroutine of which the listener knows nothing.
func (s *Service) showOne(ctx context.Context, id string, options cache.ReadOptions) (o outcome) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-batch-metrics-ends-process
			o = outcome{err: fmt.Errorf("panic while reading a metric of a batch: %v\n%s", p, debug.Stack())}
		}
	}()
	found, err := s.show(ctx, &cnfmetricsv1.ShowCnfMetricRequest{CnfId: id}, options)
	return outcome{found, err}
}
