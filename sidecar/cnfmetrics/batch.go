package cnfmetrics

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// maxBatch is how many ids a batch may have.
const maxBatch = 1000

// BatchShowCnfMetrics implements cnfmetrics.v1.CnfMetricsService.
func (s *Service) BatchShowCnfMetrics(
	ctx context.Context, q *cnfmetricsv1.BatchShowCnfMetricsRequest,
) (*cnfmetricsv1.BatchShowCnfMetricsResponse, error) {
	ids := q.GetCnfIds()
	if wrong := checkBatch(ids); wrong != nil {
		return nil, invalid(wrong)
	}
	memory, err := s.reserve(len(ids))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	outcomes, err := s.showAll(ctx, ids)
	if err != nil {
		return nil, err
	}
	results := make([]*cnfmetricsv1.BatchShowResult, len(ids))
	for i, o := range outcomes {
		results[i] = s.result(ids[i], o)
	}
	return &cnfmetricsv1.BatchShowCnfMetricsResponse{Results: results}, nil
}

func (s *Service) result(id string, o outcome) *cnfmetricsv1.BatchShowResult {
	if o.err == nil {
		return &cnfmetricsv1.BatchShowResult{CnfId: id, Result: &cnfmetricsv1.BatchShowResult_Found{Found: o.found}}
	}
	e := s.errorOf(o.err)
	m := &cnfmetricsv1.Error{Code: int32(e.Type.Code), Reason: e.Type.Reason, Message: e.Detail, Id: e.ID}
	if e.RetryAfter > 0 {
		m.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return &cnfmetricsv1.BatchShowResult{CnfId: id, Result: &cnfmetricsv1.BatchShowResult_Error{Error: m}}
}

// outcome is the result of one id of a batch.
type outcome struct {
	found *cnfmetricsv1.ShowCnfMetricResponse
	err   error
}

// showAll reads all ids, in their order. It does not read those that are not valid. An error is about the whole batch: its
// caller may not read.
func (s *Service) showAll(ctx context.Context, ids []string) ([]outcome, error) {
	outcomes := make([]outcome, len(ids))
	var keys []string
	var at []int // :: index in keys → index in ids
	for i, id := range ids {
		if wrong := checkShow(&cnfmetricsv1.ShowCnfMetricRequest{CnfId: id}); wrong != nil {
			outcomes[i].err = invalid(wrong)
			continue
		}
		keys, at = append(keys, id), append(at, i)
	}
	for n, r := range s.dataset.GetMany(ctx, keys, kv.ReadOptions{}, kv.BatchLimit{Bytes: min(kv.DefaultBatchBytes, len(keys)*rowBytes)}) {
		if refused(r.Err) {
			return nil, s.from(r.Err)
		}
		outcomes[at[n]].found, outcomes[at[n]].err = s.shown(keys[n], r.Answer, r.Err)
	}
	return outcomes, nil
}
