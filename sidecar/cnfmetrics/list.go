package cnfmetrics

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/origin"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// The sizes of a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

// ListCnfMetrics implements cnfmetrics.v1.CnfMetricsService.
func (s *Service) ListCnfMetrics(
	ctx context.Context, q *cnfmetricsv1.ListCnfMetricsRequest,
) (*cnfmetricsv1.ListCnfMetricsResponse, error) {
	query, wrong := listQuery(q)
	if wrong != nil {
		return nil, invalid(wrong)
	}
	memory, err := s.reserve(query.Limit)
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	rows, err := s.lister.List(ctx, query)
	if err != nil {
		return nil, s.listError(err)
	}
	page := &cnfmetricsv1.ListCnfMetricsResponse{}
	for _, row := range rows {
		m, err := decodeRow(row.Key, row.Value.Data, row.Value.Version)
		if err != nil {
			page.Unreadable = append(page.Unreadable, s.unreadableRow(row.Key, err)) //guard:unreadable-row-hides-list
			continue
		}
		page.Metrics = append(page.Metrics, m)
	}
	if len(rows) == query.Limit {
		page.NextPageToken = pageToken{rows[len(rows)-1].Key, q.GetMetricType(), q.GetStatus()}.String()
	}
	return page, nil
}

func (s *Service) unreadableRow(id string, err error) *cnfmetricsv1.UnreadableRow {
	return &cnfmetricsv1.UnreadableRow{CnfId: id, Message: s.errorOf(err).Detail}
}

// listError turns an error of the origin, which no dataset has classified, into what clients see.
func (s *Service) listError(err error) *apierror.Error {
	var wrong *origin.ValueError
	switch {
	case refused(err):
		return s.from(err)
	case errors.As(err, &wrong):
		return invalid(violations{{Field: wrong.Column, Detail: wrong.Reason}})
	case kv.KindOf(err) == kv.KindInternal: //guard:unavailable-database-is-defect
		err = &kv.Error{Kind: kv.KindUnavailable, RetryAfter: listRetryAfter, Err: fmt.Errorf("list: %w", err)}
	}
	return s.datasetError(err, "page_token", conflict)
}

func listQuery(q *cnfmetricsv1.ListCnfMetricsRequest) (origin.ListQuery, violations) {
	query := origin.ListQuery{Limit: cmp.Or(int(q.GetPageSize()), defaultPage), Where: map[string]string{}}
	var wrong violations
	if query.Limit < 1 || query.Limit > maxPage {
		wrong.add("page_size", "is not between 1 and %d, or 0 for %d", maxPage, defaultPage)
	}
	filter := func(column, value string, maxLength int) {
		if value != "" && wrong.checkText(column, value, maxLength) {
			query.Where[column] = value
		}
	}
	filter("metric_type", q.GetMetricType(), maxType)
	filter("status", q.GetStatus(), maxStatus)
	if q.GetPageToken() == "" {
		return query, wrong
	}
	token, ok := parsePageToken(q.GetPageToken())
	switch {
	case !ok:
		wrong.add("page_token", "is not a token that a page returned")
	case token.MetricType != q.GetMetricType() || token.Status != q.GetStatus(): //guard:page-continues-another-list
		wrong.add("page_token", "belongs to other filters; start at the first page")
	}
	query.After = token.After
	return query, wrong
}

// pageToken is where the next page begins. It includes the filters, so that they cannot change between pages.
type pageToken struct {
	After      string `json:"after"`
	MetricType string `json:"metric_type,omitempty"`
	Status     string `json:"status,omitempty"`
}

func (t pageToken) String() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings always marshal
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parsePageToken(s string) (t pageToken, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return t, err == nil && json.Unmarshal(b, &t) == nil && t.After != ""
}
