package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// audit runs ringside audit, and returns its result and its exit code.
func audit(t testing.TB, s *rig.Sidecar, dataset string) (a adminapi.Audit, code int) {
	t.Helper()
	cmd := exec.Command(rig.Binary(t), "audit", dataset, "--admin", s.Admin, "-o", "json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	} else if ok {
		code = exit.ExitCode()
	}
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("audit %s: %v\n%s%s", dataset, err, out, stderr.String())
	}
	return a, code
}

// wantAudit audits a dataset of one sidecar, and compares the result of each entry that differs.
func (w *traffic) wantAudit(dataset string, want map[string]kv.Verdict) {
	w.t.Helper()
	a, code := audit(w.t, w.sidecars[0], dataset)
	wantCode, got := 0, map[string]adminapi.Finding{}
	for _, f := range a.Findings {
		got[f.Key] = f
	}
	for key, v := range want {
		if got[key].Result != v.String() || got[key].Cached.ETag == got[key].Database.ETag {
			w.t.Errorf("%s of %s: got %+v, want %v", key, dataset, got[key], v)
		}
		if v.Broken() {
			wantCode = 1
		}
	}
	if len(got) != len(want) || code != wantCode || !a.Complete {
		w.t.Errorf("%s: got exit code %d and %+v, want %d and %v", dataset, code, a, wantCode, want)
	}
}

// Each of these faults is made on purpose: a write that bypasses Ringside without a change feed, a removed trigger, and a row that
// gets another value at the same version.
func TestAuditFindsFaultsThatAreMadeOnPurpose(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const feed = ", feed: {kind: poll, interval: 100ms}, verify_rate: 20"
		p := times{ttl: time.Hour, localTTL: time.Second, loadTimeout: 5 * time.Second, staleIfError: time.Hour, dataset: feed}
		p.datasets = "  plain: {origin: db, table: versioned, key: id, version: ver, ttl: 1h, load_timeout: 5s, verify_rate: 20}"
		p.prepare = (*traffic).applyFeeds
		w := newTraffic(t, e, 1, 20, p)
		rig.Eventually(t, time.Minute, w.feedsLive)
		datasets := []string{"plain", "versioned", "unversioned"}
		for _, dataset := range datasets {
			for i := 0; i < w.keys; i += 2 {
				w.readAll(dataset, w.key(i))
			}
			w.wantAudit(dataset, nil)
		}
		write := func(table, key, set string) {
			w.exec(fmt.Sprintf(`UPDATE %s SET value = 'other'%s WHERE id = '%s'`, table, set, key))
		}

		write("versioned", "key-0", ", ver = ver + 1") // the feed reports it to one of two datasets
		w.wantAudit("plain", map[string]kv.Verdict{"key-0": kv.StaleWithinPromise})
		w.wantAudit("versioned", nil)

		write("versioned", "key-2", "")
		w.wantAudit("plain", map[string]kv.Verdict{"key-0": kv.StaleWithinPromise, "key-2": kv.DifferentAtSameVersion})

		w.dropTriggers()
		write("versioned", "key-4", ", ver = ver + 1")
		write("unversioned", "key-6", "")
		w.exec(`DELETE FROM unversioned WHERE id = 'key-8'`)
		w.readAll("versioned", "key-0", "key-2")
		a, code := audit(t, w.sidecars[0], "versioned")
		if code != 1 || a.Counts[kv.OlderThanPromised.String()] != 1 {
			t.Errorf("got exit code %d and %+v, want key-4 older than promised", code, a)
		}
		w.wantAudit("unversioned", map[string]kv.Verdict{"key-6": kv.OlderThanPromised, "key-8": kv.OlderThanPromised})

		// The comparisons that go on all the time find the same.
		rig.Eventually(t, time.Minute, func() error {
			for _, dataset := range datasets {
				w.readAll(dataset, "key-10")
			}
			for dataset, v := range map[string]kv.Verdict{"plain": kv.DifferentAtSameVersion, "unversioned": kv.OlderThanPromised} {
				if w.sidecars[0].Metric("ringside_verified_entries_total", `dataset="`+dataset+`"`, `result="`+v.String()+`"`) == 0 {
					return fmt.Errorf("no %v of %s is counted yet", v, dataset)
				}
			}
			return nil
		})
	})
}

// readAll reads keys of a dataset through the first sidecar.
func (w *traffic) readAll(dataset string, keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		response, err := w.client.Get(w.sidecars[0].URL(dataset, key))
		if err != nil {
			w.t.Fatal(err)
		}
		response.Body.Close()
	}
}

// dropTriggers removes the triggers of the change feeds.
func (w *traffic) dropTriggers() {
	w.t.Helper()
	if w.engine.numbers {
		w.exec(`ALTER TABLE versioned DISABLE TRIGGER USER`)
		w.exec(`ALTER TABLE unversioned DISABLE TRIGGER USER`)
		return
	}
	rows, err := w.sql.Query(`SELECT trigger_name FROM information_schema.triggers WHERE event_object_table IN ('versioned', 'unversioned')`)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			w.t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil || len(names) == 0 {
		w.t.Fatalf("got the triggers %v, %v", names, err)
	}
	for _, name := range names {
		w.exec("DROP TRIGGER `" + name + "`")
	}
}

// In a healthy cluster, whatever clients and writers that bypass it do, nothing is found.
func TestAuditFindsNothingInAHealthyCluster(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		p := patient
		p.dataset = ", feed: {kind: poll, interval: 100ms}, verify_rate: 200"
		p.datasets = "  plain: {origin: db, table: versioned, key: id, version: ver, ttl: 2s, load_timeout: 5s, verify_rate: 200}"
		p.prepare = (*traffic).applyFeeds
		w := newTraffic(t, e, 3, 30, p)
		rig.Eventually(t, time.Minute, w.feedsLive)
		c := w.startClients(1, 7)
		compared := map[string]int64{}
		for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
			w.readAll("plain", w.key(0), w.key(2), w.key(4))
			w.cut()
			for _, s := range w.sidecars {
				for _, dataset := range []string{"versioned", "unversioned", "plain"} {
					a, code := audit(t, s, dataset)
					if a.Broken() > 0 {
						t.Errorf("%s on %s: got exit code %d and %+v", dataset, s.ID, code, a)
					}
					for result, n := range a.Counts {
						compared[result] += n
					}
				}
			}
		}
		c.stop()
		for _, s := range w.sidecars {
			for _, v := range []kv.Verdict{kv.OlderThanPromised, kv.DifferentAtSameVersion} {
				if n := s.Metric("ringside_verified_entries_total", `result="`+v.String()+`"`); n > 0 {
					t.Errorf("%s counts %v entries as %v", s.ID, n, v)
				}
			}
		}
		t.Logf("%s: audits compared %v", e.name, compared)
		if compared[kv.Same.String()] == 0 {
			t.Error("nothing was compared")
		}
	})
}
