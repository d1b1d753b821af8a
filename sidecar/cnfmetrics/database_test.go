package cnfmetrics

import (
	"database/sql"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	_ "modernc.org/sqlite"

	"github.com/ringside-cache/ringside/deploy/schema"
	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/drivers"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// database is a real one, with a connection of its own.
type database struct {
	*sql.DB
	driver, dsn string
}

// TestDatabases runs each test on one server of each kind, with the table empty.
func TestDatabases(t *testing.T) {
	for name, start := range map[string]func(testing.TB) database{
		"postgres": startPostgres, "mysql8": startMySQL, "mariadb": startMariaDB, "sqlite": startSQLite,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			d.file(t, d.driver+".sql")
			d.file(t, d.driver+".sql") // it may be there already
			s := newSidecar(t, d.open(t))
			t.Run("Seed", func(t *testing.T) { testSeed(t, d, s) })
			t.Run("Foreign", func(t *testing.T) { testRowsOfOtherPrograms(t, d, s) })
			for test, run := range map[string]func(*testing.T, database, client){
				"Life": testLife, "Forms": testForms, "Conditions": testConditions, "Idempotency": testIdempotency,
				"Paging": testPagingWhileRowsChange, "Filters": testFilters, "Race": testRace, "Versions": testVersions,
			} {
				t.Run(test, func(t *testing.T) {
					eachProtocol(t, s, func(t *testing.T, client client) { d.empty(t, s); run(t, d, client) })
				})
			}
		})
	}
}

func startPostgres(tb testing.TB) database {
	dsn := rig.Postgres(tb)
	return database{connect(tb, "pgx", dsn), "postgres", dsn}
}

func startMySQL(tb testing.TB) database {
	dsn := rig.MySQL(tb)
	return database{connect(tb, "mysql", dsn), "mysql", dsn}
}

func startMariaDB(tb testing.TB) database {
	dsn := rig.MariaDB(tb)
	return database{connect(tb, "mysql", dsn), "mysql", dsn}
}

func startSQLite(tb testing.TB) database {
	path := filepath.Join(tb.TempDir(), "rows.db")
	d := database{connect(tb, "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"), "sqlite", path}
	d.exec(tb, "PRAGMA journal_mode = WAL")
	return d
}

func connect(tb testing.TB, driver, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

func (d database) exec(tb testing.TB, statement string, args ...any) {
	tb.Helper()
	if _, err := d.Exec(statement, args...); err != nil {
		tb.Fatalf("%.200s: %v", statement, err)
	}
}

func (d database) file(tb testing.TB, name string) {
	tb.Helper()
	statement, err := schema.Files.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	d.exec(tb, string(statement))
}

// rows are the table as a sidecar has it.
type rows struct {
	origin.Origin
	origin.Writer
	origin.Lister
}

func (d database) open(tb testing.TB) rows {
	tb.Helper()
	db, err := drivers.All().Open(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	ds := origin.Dataset{Name: "cnf-metrics", Table: "cnf_metrics", Key: []string{"cnf_id"}, Version: "ver"}
	var r rows
	if r.Origin, err = db.Dataset(ds); err != nil {
		tb.Fatal(err)
	}
	if r.Writer, err = db.(origin.WritableSource).Writer(ds); err != nil {
		tb.Fatal(err)
	}
	if r.Lister, err = db.(origin.ListableSource).Lister(ds); err != nil {
		tb.Fatal(err)
	}
	return r
}

// empty bypasses the cache, and invalidates it.
func (d database) empty(t *testing.T, s *sidecar) {
	t.Helper()
	d.exec(t, "DELETE FROM cnf_metrics")
	if _, err := s.dataset.Invalidate(t.Context(), kv.Scope{}); err != nil {
		t.Fatal(err)
	}
}

func testSeed(t *testing.T, d database, s *sidecar) {
	d.file(t, "seed.sql")
	d.file(t, "seed.sql")
	eachProtocol(t, s, func(t *testing.T, d client) {
		page, err := d.list(&cnfmetricsv1.ListCnfMetricsRequest{Status: "unknown"})
		if err != nil || len(page.GetMetrics()) != 14 || len(page.GetUnreadable()) != 0 {
			t.Fatalf("%v, %v", page, err)
		}
		for _, m := range page.GetMetrics() {
			// What the seed has can be written again: the rules are no stricter than the table.
			if _, err := d.update(updateOf(m)); err != nil {
				t.Errorf("%v: %v", m, err)
			}
		}
	})
}

func testRowsOfOtherPrograms(t *testing.T, d database, s *sidecar) {
	d.empty(t, s)
	insert := "INSERT INTO cnf_metrics (cnf_id, timestamp, metric_type, value, unit, status) VALUES "
	d.exec(t, insert+"('whole', '2026-01-02 03:04:05', 'cpu.total', 12, 'percent', 'ok')")
	bad := map[string]string{}
	switch d.driver {
	case "postgres":
		d.exec(t, insert+"('nan', now(), 'cpu.total', 'NaN', 'percent', 'ok')")
		d.exec(t, insert+"('never', 'infinity', 'cpu.total', 1, 'percent', 'ok')")
		bad = map[string]string{"nan": "column value", "never": "column timestamp"}
	case "mysql":
		d.exec(t, "SET SESSION sql_mode = ''")
		d.exec(t, insert+"('never', '0000-00-00', 'cpu.total', 1, 'percent', 'ok')")
		bad = map[string]string{"never": "column timestamp"}
	case "sqlite":
		d.exec(t, insert+"('text', '2026-01-02 03:04:05', 'cpu.total', 'much', 'percent', 'ok')")
		bad = map[string]string{"text": "column value"}
	}
	eachProtocol(t, s, func(t *testing.T, d client) {
		found, err := d.show(showOf("whole"))
		if err != nil || found.GetMetric().GetValue() != 12 || found.GetMetric().GetVersion() != 1 {
			t.Errorf("%v, %v", found, err)
		}
		for id, column := range bad {
			_, err := d.show(showOf(id))
			if wantProblem(t, id, err, "unreadable-row"); !strings.Contains(fmt.Sprint(err), column) {
				t.Errorf("%s: %v", id, err)
			}
		}
		page, err := d.list(&cnfmetricsv1.ListCnfMetricsRequest{})
		if err != nil || len(page.GetMetrics()) != 1 || len(page.GetUnreadable()) != len(bad) {
			t.Errorf("%v, %v", page, err)
		}
	})
}

// The life of a metric: each response has its current state, and so has each read after it.
func testLife(t *testing.T, _ database, d client) {
	m := sample("CNF-001")
	made := mustCreate(t, d, m)
	wantShown(t, d, made, m)
	_, err := d.create(createOf(m))
	wantProblem(t, "create again", err, "exists")

	m.Value, m.Status, m.Timestamp.Seconds = 99, "critical", m.GetTimestamp().GetSeconds()+1
	changed, err := d.update(updateOf(m))
	if err != nil || changed.GetVersion() <= made.GetVersion() {
		t.Fatalf("%v, %v", changed, err)
	}
	wantShown(t, d, changed, m)

	version, err := d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: m.GetCnfId()})
	if err != nil || version <= changed.GetVersion() {
		t.Fatalf("%d, %v", version, err)
	}
	_, err = d.show(showOf(m.GetCnfId()))
	wantProblem(t, "show", err, "not-found")
	_, err = d.update(updateOf(m))
	wantProblem(t, "update", err, "not-found")
	_, err = d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: m.GetCnfId()})
	wantProblem(t, "delete", err, "not-found")
	if again := mustCreate(t, d, m); again.GetVersion() < version {
		t.Errorf("version %d came after %d", again.GetVersion(), version)
	}
}

// wantShown fails unless the response, the cached metric and the row in the database are equal to want.
func wantShown(t *testing.T, d client, said, want *cnfmetricsv1.CnfMetric) {
	t.Helper()
	want = with(want, func(m *cnfmetricsv1.CnfMetric) { m.Version = said.GetVersion() })
	if !proto.Equal(said, want) {
		t.Errorf("said %v, want %v", said, want)
	}
	for _, noCache := range []bool{false, true} {
		found, err := d.show(&cnfmetricsv1.ShowCnfMetricRequest{CnfId: want.GetCnfId(), NoCache: noCache})
		if err != nil || !proto.Equal(found.GetMetric(), want) {
			t.Errorf("no_cache %v: %v, %v, want %v", noCache, found.GetMetric(), err, want)
		}
	}
}

// forms are metrics that a database may store in another form.
func forms() []*cnfmetricsv1.CnfMetric {
	var list []*cnfmetricsv1.CnfMetric
	add := func(change func(*cnfmetricsv1.CnfMetric)) {
		list = append(list, with(sample(fmt.Sprintf("form/%d", len(list))), change))
	}
	for _, v := range []float64{
		0, 1, -1, 0.1, 1.0 / 3, math.MaxFloat64, -math.MaxFloat64, 0x1p-1022, 1e21, 1e-7, 1<<53 + 1, math.Pi,
	} {
		add(func(m *cnfmetricsv1.CnfMetric) { m.Value = v })
	}
	for _, at := range []time.Time{
		time.Unix(0, 0), time.Unix(0, 1000), lastSecond, time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),
		time.Date(2024, 2, 29, 23, 59, 59, 999999000, time.UTC), time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC),
	} {
		add(func(m *cnfmetricsv1.CnfMetric) { m.Timestamp = timestamppb.New(at) })
	}
	for _, id := range []string{
		"CASE", "case", "Case", "é", "e\u0301", "e", "網元", "🛰️", "a'b\"c`d\\e%f_g", "<&>", "a/b//c/../d", "null", "\u2028",
		strings.Repeat("🛰", 191), "x y", "ß", "ss", "0", "00", "1e3",
	} {
		add(func(m *cnfmetricsv1.CnfMetric) { m.CnfId = id })
	}
	for _, unit := range []string{"µs", "%", "B/s", strings.Repeat("☃", 64)} {
		add(func(m *cnfmetricsv1.CnfMetric) { m.Unit = unit })
	}
	add(func(m *cnfmetricsv1.CnfMetric) { m.MetricType = "process.cpu:" + strings.Repeat("☃", 179) })
	return list
}

func testForms(t *testing.T, _ database, d client) {
	var ids []string
	for _, m := range forms() {
		made := mustCreate(t, d, m)
		wantShown(t, d, made, m)
		again, err := d.update(updateOf(made)) // what was answered is taken
		if err != nil {
			t.Fatalf("%v: %v", made, err)
		}
		wantShown(t, d, again, m)
		ids = append(ids, m.GetCnfId())
	}
	slices.Sort(ids)
	if listed := listAll(t, d, &cnfmetricsv1.ListCnfMetricsRequest{PageSize: 7}, nil); !slices.Equal(listed, ids) {
		t.Errorf("listed %q, want %q", listed, ids)
	}
}

// listAll reads all pages, and calls between after each.
func listAll(t *testing.T, d client, q *cnfmetricsv1.ListCnfMetricsRequest, between func()) (ids []string) {
	t.Helper()
	for {
		page, err := d.list(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.GetMetrics() {
			ids = append(ids, m.GetCnfId())
		}
		if page.GetNextPageToken() == "" {
			return ids
		}
		q = proto.CloneOf(q)
		q.PageToken = page.GetNextPageToken()
		if between != nil {
			between()
		}
	}
}

func testConditions(t *testing.T, _ database, d client) {
	first := mustCreate(t, d, sample("a"))
	second, err := d.update(updateOf(first))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.update(updateOf(first))
	wantProblem(t, "update of an old version", err, "conflict")
	_, err = d.update(updateOf(with(first, func(m *cnfmetricsv1.CnfMetric) { m.Version = math.MaxInt64 })))
	wantProblem(t, "update of a version to come", err, "conflict")
	_, err = d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: "a", Version: first.GetVersion()})
	wantProblem(t, "delete of an old version", err, "conflict")
	wantShown(t, d, second, first)
	_, err = d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: "a", Version: second.GetVersion()})
	wantProblem(t, "delete", err, "")
	_, err = d.update(updateOf(second))
	wantProblem(t, "update of what is gone", err, "conflict")
	_, err = d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: "a", Version: second.GetVersion()})
	wantProblem(t, "delete of what is gone", err, "conflict")
}

func testIdempotency(t *testing.T, _ database, d client) {
	id := fmt.Sprintf("%T once", d)
	made, err := d.create(&cnfmetricsv1.CreateCnfMetricRequest{Metric: sample("a"), IdempotencyId: id})
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.create(&cnfmetricsv1.CreateCnfMetricRequest{Metric: sample("a"), IdempotencyId: id})
	if err != nil || !proto.Equal(made, again) {
		t.Errorf("%v, %v, want %v", again, err, made)
	}
	other := with(sample("a"), func(m *cnfmetricsv1.CnfMetric) { m.Value = 7 })
	_, err = d.create(&cnfmetricsv1.CreateCnfMetricRequest{Metric: other, IdempotencyId: id})
	wantProblem(t, "another change with the same id", err, "invalid-request")
}

// insert writes many rows at once.
func (d database) insert(t *testing.T, ids []string) {
	t.Helper()
	for some := range slices.Chunk(ids, 500) {
		values := make([]string, len(some))
		for i, id := range some {
			values[i] = fmt.Sprintf("('%s', '2026-01-02 03:04:05', 'cpu.total', %d, 'percent', 'ok')", id, i)
		}
		d.exec(t, "INSERT INTO cnf_metrics (cnf_id, timestamp, metric_type, value, unit, status) VALUES "+
			strings.Join(values, ", "))
	}
}

// Rows that exist all the time are listed once each, in order, whatever happens to others.
func testPagingWhileRowsChange(t *testing.T, db database, d client) {
	var stay, all []string
	for i := range 2500 {
		all = append(all, fmt.Sprintf("m%05d", i))
		if i%3 != 0 {
			stay = append(stay, all[i])
		}
	}
	db.insert(t, all)
	round := 0
	listed := listAll(t, d, &cnfmetricsv1.ListCnfMetricsRequest{PageSize: 1000}, func() {
		round++
		for i := range 10 { // before and behind where the next page begins
			if _, err := d.remove(&cnfmetricsv1.DeleteCnfMetricRequest{CnfId: all[3*(80*i+round)]}); err != nil {
				t.Fatal(err)
			}
			mustCreate(t, d, sample(fmt.Sprintf("m%05d-%d", 250*i, round)))
			if _, err := d.update(updateOf(sample(stay[160*i]))); err != nil {
				t.Fatal(err)
			}
		}
	})
	if round != 2 || !slices.IsSorted(listed) || len(slices.Compact(slices.Clone(listed))) != len(listed) {
		t.Errorf("%d pages, %d rows", round+1, len(listed))
	}
	for _, id := range stay {
		if _, found := slices.BinarySearch(listed, id); !found {
			t.Errorf("%s was not listed", id)
		}
	}
}

func testFilters(t *testing.T, _ database, d client) {
	for i, kind := range []string{"cpu.total", "cpu.total", "process.cpu:ü", "process.cpu:U"} {
		for _, status := range []string{"ok", "warn"} {
			mustCreate(t, d, with(sample(fmt.Sprint(i, status)), func(m *cnfmetricsv1.CnfMetric) {
				m.MetricType, m.Status = kind, status
			}))
		}
	}
	for _, c := range []struct {
		kind, status string
		want         []string
	}{
		{"cpu.total", "", []string{"0ok", "0warn", "1ok", "1warn"}},
		{"", "warn", []string{"0warn", "1warn", "2warn", "3warn"}},
		{"cpu.total", "ok", []string{"0ok", "1ok"}},
		{"process.cpu:ü", "", []string{"2ok", "2warn"}},
		{"process.cpu:u", "", nil}, // the columns tell cases apart on all databases
		{"CPU.TOTAL", "", nil},
		{"cpu.total ", "", nil},
		{"' OR 1=1 --", "", nil},
		{"", "WARN", nil},
	} {
		got := listAll(t, d, &cnfmetricsv1.ListCnfMetricsRequest{MetricType: c.kind, Status: c.status, PageSize: 3}, nil)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q %q: %q, want %q", c.kind, c.status, got, c.want)
		}
	}
}

// Of several changes of one version, one succeeds.
func testRace(t *testing.T, _ database, d client) {
	m := mustCreate(t, d, sample("a"))
	for range 5 {
		var group sync.WaitGroup
		results := make(chan *cnfmetricsv1.CnfMetric, 4)
		for i := range cap(results) {
			group.Go(func() {
				made, err := d.update(updateOf(with(m, func(m *cnfmetricsv1.CnfMetric) { m.Value = float64(i) })))
				if err == nil {
					results <- made
				} else if problemOf(err) != "conflict" {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if len(results) != 1 {
			t.Fatalf("%d changes were made", len(results))
		}
		m = <-results
		wantShown(t, d, m, m)
	}
}

// A change that bypasses the sidecar is visible with no_cache, and with its version.
func testVersions(t *testing.T, db database, d client) {
	made := mustCreate(t, d, sample("a"))
	db.exec(t, "UPDATE cnf_metrics SET value = 77, ver = ver + 1")
	_, err := d.show(&cnfmetricsv1.ShowCnfMetricRequest{CnfId: "a", MinVersion: made.GetVersion() + 2})
	wantProblem(t, "a version that is not there", err, "version-not-reached")
	found, err := d.show(&cnfmetricsv1.ShowCnfMetricRequest{CnfId: "a", MinVersion: made.GetVersion() + 1})
	if err != nil || found.GetMetric().GetValue() != 77 {
		t.Errorf("%v, %v", found, err)
	}
}
