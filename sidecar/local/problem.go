package local

import (
	"errors"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

var errBatchBytes = errors.New("batch answer too large")

// fail turns an error of a dataset into what clients see.
func (s *Server) fail(err error) *apierror.Error {
	if errors.Is(err, errBatchBytes) {
		s.stats.BatchTruncated.Add(1)
		return apierror.New(apierror.BatchTooLarge,
			"the values before this key fill the response; request this key in another batch")
	}
	e := apierror.From(err, s.defect)
	if e.Type == apierror.TypeOf(cache.KindCanceled) && s.draining.Err() != nil {
		e.Type, e.Detail = apierror.Stopping, "the sidecar is stopping; retry with another one, or with this one after its restart"
	}
	return e
}

func (s *Server) defect(err error) {
	s.stats.Defects.Add(1)
	s.config.Defect(err)
}

func unknownDataset(name string, all []Served) *apierror.Error {
	return &apierror.Error{Type: apierror.UnknownDataset, Datasets: nearNames(name, all),
		Detail: "no dataset of this name is configured; GET /v1/datasets lists the configured ones"}
}

func invalidKey(err error) *apierror.Error {
	return apierror.New(apierror.TypeOf(cache.KindInvalidKey), err.Error())
}

func invalidBatch(err error) *apierror.Error { return apierror.New(apierror.InvalidBatch, err.Error()) }

func invalidRequest(err error) *apierror.Error {
	return apierror.New(apierror.MalformedRequest, err.Error())
}

func absent() *apierror.Error {
	return apierror.New(apierror.NotFound, "the origin has no such key; this result is cached like a value")
}
