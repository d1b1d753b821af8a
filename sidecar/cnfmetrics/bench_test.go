package cnfmetrics

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// BenchmarkShow is a hit without a listener.
func BenchmarkShow(b *testing.B) {
	s := newSidecar(b, origintest.New(map[string]string{"CNF-001": string(encodeRow(sample("CNF-001")))}))
	b.Run("dataset", func(b *testing.B) { // what both others rest on
		for b.ReportAllocs(); b.Loop(); {
			if _, err := s.dataset.Get(b.Context(), "CNF-001", kv.ReadOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("grpc", func(b *testing.B) {
		for b.ReportAllocs(); b.Loop(); {
			if _, err := s.service.ShowCnfMetric(b.Context(), showOf("CNF-001")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("http", func(b *testing.B) {
		for b.ReportAllocs(); b.Loop(); {
			w := httptest.NewRecorder()
			s.service.ServeHTTP(w, httptest.NewRequest(http.MethodGet, pathOf("CNF-001"), nil))
			if w.Code != http.StatusOK {
				b.Fatal(w.Code)
			}
		}
	})
}

func BenchmarkBatchOf1000(b *testing.B) {
	rows, ids := map[string]string{}, []string{}
	for i := range maxBatch {
		id := fmt.Sprintf("CNF-%04d", i)
		rows[id], ids = string(encodeRow(sample(id))), append(ids, id)
	}
	s := newSidecar(b, origintest.New(rows))
	q := &cnfmetricsv1.BatchShowCnfMetricsRequest{CnfIds: ids}
	for b.ReportAllocs(); b.Loop(); {
		if _, err := s.service.BatchShowCnfMetrics(context.Background(), q); err != nil {
			b.Fatal(err)
		}
	}
}
