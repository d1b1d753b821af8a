package sidecar

import (
	"net/http"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// A read of a cached key needs no memory beyond that of its connection.
func TestColdReadsAreRefusedWithoutMemory(t *testing.T) {
	t.Parallel()
	c := load(t, newFile(t, ""))
	r := begin(t, c, nil)
	status := func(key string) int {
		t.Helper()
		resp, err := http.Get("http://" + r.at.HTTP + "/v1/metrics/" + key)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			t.Error("got 429 without Retry-After")
		}
		return resp.StatusCode
	}
	if got := status("CNF-001"); got != http.StatusOK {
		t.Fatalf("got status %d, want 200", got)
	}
	taken := takeAll(r.parts.budget, budget.Calls)
	if got := status("b"); got != http.StatusTooManyRequests {
		t.Errorf("got status %d for a cold key without memory for calls, want 429", got)
	}
	if got := status("CNF-001"); got != http.StatusOK {
		t.Errorf("got status %d for a cached key, want 200", got)
	}
	r.parts.budget.Return(budget.Calls, taken)
	if got := status("b"); got != http.StatusOK && got != http.StatusNotFound {
		t.Errorf("got status %d for a cold key with memory again, want 200 or 404", got)
	}
}

// takeAll takes all bytes that a use can get.
func takeAll(b *budget.Budget, u budget.Use) (taken int64) {
	for n := b.Total(); n > 0; n /= 2 {
		for b.Take(u, n) {
			taken += n
		}
	}
	return taken
}
