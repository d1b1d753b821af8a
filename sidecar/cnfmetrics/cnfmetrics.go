// Package cnfmetrics is the CNF metric model: the typed service cnfmetrics.v1 over one dataset, for gRPC and, with the same
// methods, for HTTP with JSON. It reads and writes through the dataset, and has no listener of its own.
package cnfmetrics

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/origin"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Dataset is what this package needs from a cache.Dataset, whose values are rows of the table cnf_metrics as JSON objects.
type Dataset interface {
	Get(ctx context.Context, key string, o kv.ReadOptions) (kv.Answer, error)
	// GetMany answers reads of many keys, in their order, with as few loads and peer fetches as possible. The values are
	// limited; keys beyond get kv.ErrBatchBytes.
	GetMany(ctx context.Context, keys []string, o kv.ReadOptions, limit kv.BatchLimit) []kv.Result
	Write(ctx context.Context, c kv.Change) (kv.Answer, error)
}

// Config configures a Service.
type Config struct {
	Dataset Dataset
	// Lister lists the rows of the same table.
	Lister origin.Lister
	// Budget limits the memory of batches and pages; nil means no limit.
	Budget *budget.Budget
	// Errors has the texts of errors that clients do not see. May be nil.
	Errors *apierror.Log
}

// Service is cnfmetrics.v1.CnfMetricsService, and an http.Handler for the paths below /cnfmetrics/. It is safe for
// concurrent use. The errors of its methods are *apierror.Error; each call ends with its context.
type Service struct {
	cnfmetricsv1.UnimplementedCnfMetricsServiceServer
	dataset Dataset
	lister  origin.Lister
	budget  *budget.Budget
	errors  *apierror.Log
}

// Columns returns the columns of the table of the metrics, except the version.
func Columns() []string {
	return []string{"cnf_id", "timestamp", "metric_type", "value", "unit", "status"}
}

// New returns the service of c.
func New(c Config) *Service {
	return &Service{dataset: c.Dataset, lister: c.Lister, budget: c.Budget, errors: c.Errors}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	cnfmetricsv1.RegisterCnfMetricsServiceServer(r, s)
}

// rowBytes is what a row of a batch or page takes: as JSON, decoded, and in the response. The first prepaidRows are prepaid
// by the connection.
const rowBytes, prepaidRows = 1 << 10, 8

// reserve takes the memory of n rows until the response is complete; the caller closes the loan.
func (s *Service) reserve(n int) (*budget.Loan, error) {
	loan := s.budget.Loan(budget.Responses)
	if n > prepaidRows && !loan.Grow(int64(n)*rowBytes) { //guard:rows-take-no-memory
		return nil, s.datasetError(kv.ErrNoMemory, "", conflict)
	}
	return &loan, nil
}

// ShowCnfMetric implements cnfmetrics.v1.CnfMetricsService.
func (s *Service) ShowCnfMetric(
	ctx context.Context, q *cnfmetricsv1.ShowCnfMetricRequest,
) (*cnfmetricsv1.ShowCnfMetricResponse, error) {
	return s.show(ctx, q, kv.ReadOptions{NoCache: q.GetNoCache(), MinVersion: q.GetMinVersion()})
}

func (s *Service) show(
	ctx context.Context, q *cnfmetricsv1.ShowCnfMetricRequest, o kv.ReadOptions,
) (*cnfmetricsv1.ShowCnfMetricResponse, error) {
	if wrong := checkShow(q); wrong != nil {
		return nil, invalid(wrong)
	}
	a, err := s.dataset.Get(ctx, q.GetCnfId(), o)
	return s.shown(q.GetCnfId(), a, err)
}

// shown returns the response to a read.
func (s *Service) shown(id string, a kv.Answer, err error) (*cnfmetricsv1.ShowCnfMetricResponse, error) {
	switch {
	case err != nil:
		return nil, s.datasetError(err, "cnf_id", conflict)
	case a.NotFound:
		return nil, apierror.New(apierror.NotFound, noSuchMetric)
	}
	m, err := decodeRow(id, a.Value, a.Version)
	if err != nil {
		return nil, err
	}
	return &cnfmetricsv1.ShowCnfMetricResponse{
		Metric:    m,
		Freshness: &cnfmetricsv1.Freshness{Age: durationpb.New(a.Age), Stale: a.Stale},
	}, nil
}

// CreateCnfMetric implements cnfmetrics.v1.CnfMetricsService.
func (s *Service) CreateCnfMetric(
	ctx context.Context, q *cnfmetricsv1.CreateCnfMetricRequest,
) (*cnfmetricsv1.CreateCnfMetricResponse, error) {
	if wrong := checkCreate(q); wrong != nil {
		return nil, invalid(wrong)
	}
	m, err := s.put(ctx, q.GetMetric(), kv.Condition{Absent: true}, q.GetIdempotencyId(), apierror.AlreadyExists) //guard:create-replaces-existing-metric
	if err != nil {
		return nil, err
	}
	return &cnfmetricsv1.CreateCnfMetricResponse{Metric: m}, nil
}

// UpdateCnfMetric implements cnfmetrics.v1.CnfMetricsService.
func (s *Service) UpdateCnfMetric(
	ctx context.Context, q *cnfmetricsv1.UpdateCnfMetricRequest,
) (*cnfmetricsv1.UpdateCnfMetricResponse, error) {
	if wrong := checkUpdate(q); wrong != nil {
		return nil, invalid(wrong)
	}
	condition, onConflict := requireExisting(q.GetMetric().GetVersion())
	m, err := s.put(ctx, q.GetMetric(), condition, q.GetIdempotencyId(), onConflict)
	if err != nil {
		return nil, err
	}
	return &cnfmetricsv1.UpdateCnfMetricResponse{Metric: m}, nil
}

// DeleteCnfMetric implements cnfmetrics.v1.CnfMetricsService.
func (s *Service) DeleteCnfMetric(
	ctx context.Context, q *cnfmetricsv1.DeleteCnfMetricRequest,
) (*cnfmetricsv1.DeleteCnfMetricResponse, error) {
	if wrong := checkDelete(q); wrong != nil {
		return nil, invalid(wrong)
	}
	condition, onConflict := requireExisting(q.GetVersion())
	change := kv.Change{Key: q.GetCnfId(), Delete: true, If: condition, ID: q.GetIdempotencyId()}
	a, err := s.dataset.Write(ctx, change)
	if err != nil {
		return nil, s.datasetError(err, "cnf_id", onConflict)
	}
	return &cnfmetricsv1.DeleteCnfMetricResponse{Version: a.Version}, nil
}

// requireExisting returns the condition that a metric exists, in one version unless that is 0, and the type of the error if
// it is not met.
func requireExisting(version int64) (kv.Condition, apierror.Type) {
	if version == 0 {
		return kv.Condition{Present: true}, apierror.NotFound //guard:update-recreates-deleted-metric
	}
	return kv.Condition{Version: version}, conflict //guard:update-overwrites-other-change
}

// put writes a metric and returns it as the database has it after the write.
func (s *Service) put(
	ctx context.Context, m *cnfmetricsv1.CnfMetric, condition kv.Condition, idempotency string, onConflict apierror.Type,
) (*cnfmetricsv1.CnfMetric, error) {
	a, err := s.dataset.Write(ctx, kv.Change{
		Key: m.GetCnfId(), Value: encodeRow(m), If: condition, ID: idempotency,
	})
	if err != nil {
		return nil, s.datasetError(err, "metric.cnf_id", onConflict)
	}
	return decodeRow(m.GetCnfId(), a.Value, a.Version)
}
