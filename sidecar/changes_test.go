package sidecar

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/deploy/schema"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
)

// truth is a database that a test writes to directly, bypassing the cache.
type truth struct {
	t    testing.TB
	path string
	db   *sql.DB
}

const rowsOfTruth = 30

func keyOf(i int) string { return fmt.Sprintf("CNF-%03d", i) }

func pathOf(i int) string { return "/v1/metrics/" + keyOf(i) }

// newTruth makes a SQLite database with rows of the value 0 and version 1.
func newTruth(t testing.TB) *truth {
	t.Helper()
	path := filepath.Join(t.TempDir(), "origin.db")
	o := &truth{t, path, sqlitetest.Open(t, path)}
	o.exec(`PRAGMA journal_mode = wal; CREATE TABLE cnf_metrics (cnf_id TEXT PRIMARY KEY, value REAL, ver INTEGER NOT NULL)`)
	for i := range rowsOfTruth {
		o.exec(`INSERT INTO cnf_metrics VALUES (?, 0, 1)`, keyOf(i))
	}
	return o
}

func (o *truth) exec(statement string, args ...any) {
	o.t.Helper()
	if _, err := o.db.Exec(statement, args...); err != nil {
		o.t.Fatal(err)
	}
}

// file writes a configuration in which nothing expires during a test, so that only invalidations change a response. dataset
// has further fields of the dataset, each after a comma.
func (o *truth) file(dataset, more string) string {
	o.t.Helper()
	path := filepath.Join(o.t.TempDir(), "ringside.yaml")
	if !strings.Contains(dataset, "local_ttl") {
		dataset += ", local_ttl: 1h"
	}
	write(o.t, path, fmt.Sprintf(`
origins: {db: {driver: sqlite, dsn: %s}}
datasets:
  metrics:
    {origin: db, table: cnf_metrics, key: cnf_id, version: ver, writable: true, ttl: 1h%s}
`, o.path, dataset)+allPortsFree+more)
	return path
}

// member runs a sidecar that finds others in d.
func (o *truth) member(d ring.Directory, id, dataset string) *running {
	o.t.Helper()
	c := load(o.t, o.file(dataset, "membership: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}\nnode: {id: "+id+"}"))
	c.Listen.Peer, c.Listen.XDS = "127.0.0.1:0", "127.0.0.1:0"
	return begin(o.t, c, func(r *run) { r.directory = d })
}

// three runs as many members on one ring.
func (o *truth) three(d ring.Directory, dataset string) []*running {
	o.t.Helper()
	members := []*running{o.member(d, "a", dataset), o.member(d, "b", dataset), o.member(d, "c", dataset)}
	for _, m := range members {
		waitFor(o.t, func() bool { return m.ring().Len() == len(members) })
	}
	return members
}

// send returns status, version and body of an answer.
func send(t testing.TB, method, addr, path, body string, header ...string) (status int, version, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Ringside-Version"), string(b)
}

func wantPut(t testing.TB, addr, path, body, version string) {
	t.Helper()
	id := rand.Text()
	status, got, text := send(t, "PUT", addr, path, body, "Idempotency-Key", id)
	// On a busy machine a member may miss its pings, so that the outcome of a write is unknown: a client then repeats it.
	for range 5 {
		if !strings.Contains(text, "outcome-unknown") {
			break
		}
		status, got, text = send(t, "PUT", addr, path, body, "Idempotency-Key", id)
	}
	if status != 200 || got != version {
		t.Errorf("PUT %s: %d, version %s, %s; want 200 and version %s", path, status, got, text, version)
	}
}

// awaitGet waits until all members answer with part.
func awaitGet(t testing.TB, members []*running, path, part string) {
	t.Helper()
	for _, m := range members {
		waitFor(t, func() bool {
			status, body := get(m.at.HTTP, path)
			return status == 200 && strings.Contains(body, part)
		})
	}
}

func TestWriteThroughOneMemberIsReadThroughAll(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	members := o.three(newMemoryDirectory(), "")
	for i := range rowsOfTruth {
		for _, m := range members {
			wantGet(t, m.at.HTTP, pathOf(i), 200, `"value":0`)
		}
	}
	for i := range rowsOfTruth {
		through := members[i%len(members)]
		wantPut(t, through.at.HTTP, pathOf(i), `{"value": 7}`, "2")
		wantGet(t, through.at.HTTP, pathOf(i), 200, `"value":7`) // its own write, immediately
		awaitGet(t, members, pathOf(i), `"value":7`)
	}
	status, _, text := send(t, "PUT", members[0].at.HTTP, pathOf(0), `{"value": 8}`, "Ringside-If-Version", "1")
	if status != 409 {
		t.Errorf("a write of an outdated version: %d %s", status, text)
	}
	status, _, text = send(t, "DELETE", members[1].at.HTTP, pathOf(0), "", "Ringside-If-Version", "2")
	if status != 204 {
		t.Errorf("DELETE: %d %s", status, text)
	}
	for _, m := range members {
		waitFor(t, func() bool { status, _ := get(m.at.HTTP, pathOf(0)); return status == 404 })
	}
	wantGet(t, members[0].at.Metrics, "/metrics", 200, `ringside_writes_total{dataset="metrics",result="conflict"} 1`)
}

// A client is not on the ring and gets no broadcasts, but it subscribes to the invalidations of owners.
func TestClientWritesAndReceivesInvalidations(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	d := newMemoryDirectory()
	members := []*running{o.member(d, "a", ""), o.member(d, "b", "")}
	waitFor(t, func() bool { return members[0].ring().Len() == 2 && members[1].ring().Len() == 2 })
	c := load(t, o.file("", fmt.Sprintf("membership: {xds: [%q]}\nnode: {id: client}", members[0].at.XDS)))
	client := begin(t, c, nil)
	waitFor(t, func() bool { return client.ring().ID() == members[0].ring().ID() })
	for i := range 10 {
		wantGet(t, client.at.HTTP, pathOf(i), 200, `"value":0`)
		wantPut(t, members[0].at.HTTP, pathOf(i), `{"value": 1}`, "2")
		awaitGet(t, []*running{client}, pathOf(i), `"value":1`)
		wantPut(t, client.at.HTTP, pathOf(i), `{"value": 2}`, "3")
		wantGet(t, client.at.HTTP, pathOf(i), 200, `"value":2`)
		awaitGet(t, members, pathOf(i), `"value":2`)
	}
}

// polled has a feed that is read often.
const polled = ", feed: {kind: poll, interval: 10ms}"

// apply makes the triggers.
func (o *truth) apply() {
	o.t.Helper()
	if err := ApplyChanges(o.t.Context(), load(o.t, o.file(polled, "")), "metrics"); err != nil {
		o.t.Fatal(err)
	}
}

func (r *running) feedLive() bool {
	live, _ := r.dataset().FeedLive()
	return live
}

func TestWritesAroundTheCacheArriveThroughTheFeed(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	o.apply()
	members := o.three(newMemoryDirectory(), polled)
	for _, m := range members {
		waitFor(t, m.feedLive)
	}
	for i := range rowsOfTruth {
		awaitGet(t, members, pathOf(i), `"value":0`)
	}
	o.exec(`UPDATE cnf_metrics SET value = 3, ver = ver + 1`)
	for i := range rowsOfTruth {
		awaitGet(t, members, pathOf(i), `"value":3`)
	}
	o.exec(`DELETE FROM cnf_metrics WHERE cnf_id = ?`, keyOf(0))
	for _, m := range members {
		waitFor(t, func() bool { status, _ := get(m.at.HTTP, pathOf(0)); return status == 404 })
	}
}

// A client receives the feed from two members, whether or not they read it, and not only from its readers.
func TestClientGetsChangesThroughRelays(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	o.apply()
	members := o.three(newMemoryDirectory(), polled)
	c := load(t, o.file(polled, fmt.Sprintf("membership: {xds: [%q]}\nnode: {id: client}", members[0].at.XDS)))
	client := begin(t, c, nil)
	relays := func() (n int) {
		for _, m := range members {
			if m.parts.pool.RelaysFeeds() {
				n++
			}
		}
		return n
	}
	waitFor(t, func() bool { return client.feedLive() && relays() == 2 })
	for i := range rowsOfTruth {
		awaitGet(t, []*running{client}, pathOf(i), `"value":0`)
	}
	o.exec(`UPDATE cnf_metrics SET value = 3, ver = ver + 1`)
	for i := range rowsOfTruth {
		awaitGet(t, []*running{client}, pathOf(i), `"value":3`)
	}
	for i, m := range members[1:] { // the first one is the directory of the client
		if m.parts.pool.RelaysFeeds() {
			m.end(t)
			members = slices.Delete(members, i+1, i+2)
			break
		}
	}
	waitFor(t, func() bool { return client.feedLive() && relays() == 2 })
	o.exec(`UPDATE cnf_metrics SET value = 4, ver = ver + 1`)
	for i := range rowsOfTruth {
		awaitGet(t, []*running{client}, pathOf(i), `"value":4`)
	}
}

// During a gap, entries live for gap_ttl, which loads the database just when members come and go.
func TestReaderThatLeavesHandsOverWithoutAGap(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	o.apply()
	d := newMemoryDirectory()
	members := o.three(d, polled)
	for _, m := range members {
		waitFor(t, m.feedLive)
	}
	var leaving *running
	var stay []*running
	for _, m := range members {
		if leaving == nil && m.parts.pool.Elected("metrics") {
			leaving = m
		} else {
			stay = append(stay, m)
		}
	}
	waitFor(t, func() bool { return leaving.parts.datasets.ReadsFeed("metrics") })
	d.leaving = func(ring.Member) {
		if !leaving.parts.datasets.ReadsFeed("metrics") {
			t.Error("it has handed the feed back before others could take over")
		}
	}
	leaving.end(t)
	d.leaving = nil
	for _, m := range stay {
		waitFor(t, func() bool { return m.parts.datasets.ReadsFeed("metrics") })
		if n := m.dataset().Stats().FeedGaps.Load(); n != 0 || !m.feedLive() {
			t.Errorf("%s: %d gaps", m.parts.members.Self().ID, n)
		}
		awaitGet(t, stay, pathOf(1), `"value":0`)
	}
	o.exec(`UPDATE cnf_metrics SET value = 4, ver = ver + 1`)
	awaitGet(t, stay, pathOf(1), `"value":4`)
}

func TestGapInTheFeedIsBoundedAndEnds(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	o.apply()
	r := begin(t, load(t, o.file(polled+", gap_ttl: 100ms", "")), nil)
	waitFor(t, r.feedLive)
	wantGet(t, r.at.HTTP, pathOf(1), 200, `"value":0`)
	o.exec(`ALTER TABLE ringside_changes RENAME TO elsewhere`) // SQLite has the triggers follow
	waitFor(t, func() bool { return !r.feedLive() })
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_change_feed_gap{dataset="metrics"} 1`)
	o.exec(`UPDATE cnf_metrics SET value = 5, ver = ver + 1`)
	awaitGet(t, []*running{r}, pathOf(1), `"value":5`)
	o.exec(`ALTER TABLE elsewhere RENAME TO ringside_changes`)
	waitFor(t, r.feedLive)
	o.exec(`UPDATE cnf_metrics SET value = 6, ver = ver + 1`)
	awaitGet(t, []*running{r}, pathOf(1), `"value":6`)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_change_feed_gap{dataset="metrics"} 0`)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_change_feed_gaps_total{dataset="metrics"} 1`)
	if n := r.logs.FilterMessage("the change feed failed; retrying").Len(); n != 1 {
		t.Errorf("the gap was logged %d times, want once", n)
	}
}

func TestPoliciesOfWritesAndGapsReload(t *testing.T) {
	o := newTruth(t)
	r := begin(t, load(t, o.file(polled, "")), nil)
	reload := func(dataset string) {
		r.parts.reloader.reload(func() (config.Config, error) { return load(t, o.file(dataset, "")), nil })
	}
	reload(polled + ", gap_ttl: 3s, write_timeout: 4s")
	if p := r.dataset().Policy(); p.GapTTL != 3*time.Second || p.WriteTimeout != 4*time.Second {
		t.Errorf("got %+v", p)
	}
	for dataset, want := range map[string]string{
		polled + ", write_timeout: 5s": "write_timeout of more than 4.5s",
	} {
		reload(dataset)
		last := r.logs.All()[r.logs.Len()-1]
		if !strings.Contains(fmt.Sprint(last.ContextMap()["error"]), want) {
			t.Errorf("%s: got %v, want %q", dataset, last.ContextMap(), want)
		}
	}
}

// In the other order, the outcome of an undisturbed write would be reported as unknown.
func TestWriteUnderWayEndsBeforeTheSidecarDoes(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	r := begin(t, load(t, o.file("", "")), nil)
	lock, err := o.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	if _, err := lock.Exec(`UPDATE cnf_metrics SET value = 1 WHERE cnf_id = 'CNF-009'`); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int)
	go func() {
		status, _, _ := send(t, "PUT", r.at.HTTP, pathOf(1), `{"value": 7}`)
		answered <- status
	}()
	waitFor(t, func() bool { return r.parts.datasets.Origins().Load("db").InFlight == 1 })
	r.cancel()
	waitFor(t, r.stopping.Load)
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	if status := <-answered; status != 200 {
		t.Errorf("the write was answered with %d", status)
	}
	var value float64
	err = o.db.QueryRow(`SELECT value FROM cnf_metrics WHERE cnf_id = ?`, keyOf(1)).Scan(&value)
	if err != nil || value != 7 {
		t.Errorf("the row has %v, %v", value, err)
	}
}

func TestInvalidationReachesAllMembers(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	members := o.three(newMemoryDirectory(), "")
	for i := range 10 {
		awaitGet(t, members, pathOf(i), `"value":0`)
	}
	o.exec(`UPDATE cnf_metrics SET value = 9, ver = ver + 1`)
	status, _, text := send(t, "POST", members[0].at.HTTP, "/v1/metrics:invalidate", `{"prefix": "CNF-"}`)
	if status != 200 || !strings.Contains(text, `"members":3`) {
		t.Errorf("%d %s", status, text)
	}
	for i := range 10 {
		for _, m := range members {
			wantGet(t, m.at.HTTP, pathOf(i), 200, `"value":9`)
		}
	}
}

// A former owner keeps the entries that it loaded, and gets no invalidations for them from the new owner. It trusts them no
// longer than a copy.
func TestFormerOwnerSeesWhatTheNewOneWrites(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	d := newMemoryDirectory()
	a := o.member(d, "a", ", local_ttl: 100ms")
	for i := range rowsOfTruth {
		wantGet(t, a.at.HTTP, pathOf(i), 200, `"value":0`)
	}
	b := o.member(d, "b", "")
	waitFor(t, func() bool { return a.ring().Len() == 2 && b.ring().Len() == 2 })
	for i := range rowsOfTruth {
		wantPut(t, b.at.HTTP, pathOf(i), `{"value": 1}`, "2")
	}
	for i := range rowsOfTruth {
		awaitGet(t, []*running{a}, pathOf(i), `"value":1`)
	}
}

func TestMissedInvalidationsExpireTheCopiesOfThatMember(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	d := newMemoryDirectory()
	a, b := o.member(d, "a", ""), o.member(d, "b", "")
	waitFor(t, func() bool { return a.ring().Len() == 2 && b.ring().Len() == 2 })
	for i := range rowsOfTruth {
		wantGet(t, a.at.HTTP, pathOf(i), 200, `"value":0`)
	}
	copies := func() (n int) {
		for i := range rowsOfTruth {
			if e := a.dataset().Explain(keyOf(i)); e.Local && e.Fresh > 0 {
				n++
			}
		}
		return n
	}
	waitFor(t, func() bool { return a.parts.pool.Stats().Subscriptions == 1 })
	for i := range rowsOfTruth { // copies from before the subscription expired when it began
		wantGet(t, a.at.HTTP, pathOf(i), 200, `"value":0`)
	}
	if copies() == 0 {
		t.Fatal("a has no copies of what b owns")
	}
	a.parts.datasets.Missed("nobody")
	if copies() == 0 {
		t.Error("copies of another member were ended")
	}
	a.parts.datasets.Missed("b")
	if n := copies(); n != 0 {
		t.Errorf("%d copies are left", n)
	}
}

func TestTypedServiceReadsAndWritesItsDataset(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	text, err := schema.Files.ReadFile("sqlite.sql")
	if err != nil {
		t.Fatal(err)
	}
	o.exec("DROP TABLE cnf_metrics")
	o.exec(string(text))
	o.exec(`INSERT INTO cnf_metrics VALUES ('CNF-001', '2026-01-02 03:04:05', 'cpu_usage', 1.5, '%', 'normal', 1)`)
	r := begin(t, load(t, o.file("", "cnf_metrics: metrics")), nil)
	wantGet(t, r.at.HTTP, "/cnfmetrics/v1/metrics/CNF-001", 200, `cpu_usage`)
	wantGet(t, r.at.HTTP, "/cnfmetrics/v1/metrics", 200, `CNF-001`)
	wantGet(t, r.at.HTTP, pathOf(1), 200, `"value":1.5`)
	without := begin(t, load(t, o.file("", "")), nil)
	wantGet(t, without.at.HTTP, "/cnfmetrics/v1/metrics/CNF-001", 404, "")
}

// The owner logs why the database rejected a write: the application that wrote may be in another pod.
func TestWritesThatTheDatabaseRejectsAreLogged(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	r := begin(t, load(t, o.file("", "")), nil)
	o.exec(`CREATE TRIGGER no BEFORE UPDATE ON cnf_metrics BEGIN SELECT no_such_function(); END`)
	if status, _, text := send(t, "PUT", r.at.HTTP, pathOf(1), `{"value": 7}`); status/100 != 5 {
		t.Errorf("%d %s", status, text)
	}
	if status, _, text := send(t, "PUT", r.at.HTTP, pathOf(1), `{"volume": 7}`); status != 422 {
		t.Errorf("%d %s", status, text)
	}
	failures := datasets.NewFailureLog(r.parts.datasets)
	failures.Report()
	failures.Report()
	all := r.logs.FilterMessage(failureMessage).All()
	if len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].ContextMap()["last_write_error"]), "no_such_function") {
		t.Errorf("want the reason once, got %v", all)
	}
}
