package sidecar

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// verification returns what a sidecar has found by itself.
func (r *running) verification(t testing.TB) (v adminapi.Verification) {
	t.Helper()
	status, body := get(r.at.Admin, "/api/verification?dataset=metrics")
	if err := json.Unmarshal([]byte(body), &v); status != 200 || err != nil {
		t.Fatalf("got %d %s: %v", status, body, err)
	}
	return v
}

func (r *running) audit(t testing.TB, query string) (a adminapi.Audit) {
	t.Helper()
	status, body := get(r.at.Admin, "/api/audit?dataset=metrics"+query)
	if err := json.Unmarshal([]byte(body), &a); status != 200 || err != nil {
		t.Fatalf("got %d %s: %v", status, body, err)
	}
	return a
}

// The faults that e2e makes on the other databases, on SQLite.
func TestFaultsOfSQLiteAreFound(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	o.apply()
	m := o.member(newMemoryDirectory(), "a", polled+", verify_rate: 20")
	waitFor(t, m.feedLive)
	for i := range rowsOfTruth {
		awaitGet(t, []*running{m}, pathOf(i), `"value":0`)
	}
	if a := m.audit(t, ""); !a.Complete || a.Counts[kv.Same.String()] != rowsOfTruth || len(a.Findings) != 0 {
		t.Errorf("got %+v, want all rows the same", a)
	}
	if a := m.audit(t, "&keys=3"); !a.Complete || a.Counts[kv.Same.String()] != 3 {
		t.Errorf("got %+v, want 3 rows", a)
	}
	for query, want := range map[string]int{"dataset=none": 404, "dataset=metrics&keys=0": 400, "dataset=metrics&keys=x": 400, "": 404} {
		if status, body := get(m.at.Admin, "/api/audit?"+query); status != want {
			t.Errorf("%s: got %d %s, want %d", query, status, body, want)
		}
	}
	rows, err := o.db.Query(`SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'cnf_metrics'`)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil || len(names) == 0 {
		t.Fatalf("got the triggers %v, %v", names, err)
	}
	for _, name := range names {
		o.exec(`DROP TRIGGER "` + name + `"`)
	}
	o.exec(`UPDATE cnf_metrics SET value = 1, ver = 2 WHERE cnf_id = ?`, keyOf(0))
	o.exec(`UPDATE cnf_metrics SET value = 1 WHERE cnf_id = ?`, keyOf(1))
	o.exec(`DELETE FROM cnf_metrics WHERE cnf_id = ?`, keyOf(2))
	got := map[string]string{}
	for _, f := range m.audit(t, "").Findings {
		got[f.Key] = f.Result
	}
	want := map[string]kv.Verdict{keyOf(0): kv.OlderThanPromised, keyOf(1): kv.DifferentAtSameVersion, keyOf(2): kv.OlderThanPromised}
	for key, v := range want {
		if got[key] != v.String() || len(got) != len(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	waitFor(t, func() bool {
		_, _ = get(m.at.HTTP, pathOf(5))
		time.Sleep(10 * time.Millisecond)
		v := m.verification(t)
		return v.Counts[kv.OlderThanPromised.String()] > 0 && len(v.Findings) > 0 && v.WorstAge > 0
	})
}
