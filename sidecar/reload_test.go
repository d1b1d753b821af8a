package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/logging"
)

// reload applies a configuration with the same listeners, and returns the last line of the log.
func (r *running) reload(text string) string {
	r.parts.reloader.reload(func() (config.Config, error) {
		c, err := r.config.Source().Parse([]byte(text))
		c.Listen = r.config.Listen
		return c, err
	})
	last := r.logs.All()[r.logs.Len()-1]
	return last.Message + " " + fmt.Sprint(last.ContextMap())
}

// reloaded fails unless the configuration is in use.
func (r *running) reloaded(t testing.TB, text string) {
	t.Helper()
	if last := r.reload(text); !strings.Contains(last, "the configuration was reloaded") {
		t.Errorf("got %s", last)
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withField adds a field to the dataset metrics of newFile.
func withField(text, line string) string {
	return strings.Replace(text, "    key: cnf_id\n", "    key: cnf_id\n    "+line+"\n", 1)
}

func TestReload(t *testing.T) {
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good := read(t, file)
	policy := func() kv.Policy { return r.dataset().Policy() }
	with := func(line string) string { return withField(good, line) }

	r.reloaded(t, with("ttl: 3s"))
	if policy().TTL != 3*time.Second || r.parts.reloader.stats().OK != 1 || r.parts.reloader.stats().LastFailed {
		t.Errorf("after a good reload: %+v %+v", policy(), r.parts.reloader.stats())
	}
	added := "\n  other: {origin: db, table: t, key: k, ttl: 4s"
	for text, want := range map[string]string{
		with("ttl: 4"):                                                 "want a duration",
		with("ttl: 4s\n    load_timeout: 5s"):                          "load_timeout or write_timeout of more than 4.5s",
		with("ttl: 1h\n    local_ttl: 31s"):                            "local_ttl of more than 30s",
		with("ttl: 4s") + "\nring: {min: 100}\n":                       "only after a restart; restart, or revert them: ring.min",
		with("ttl: 4s") + "\nhosts: [a]\n":                             "hosts",
		with("ttl: 4s") + "\ncnf_metrics: metrics\n":                   "cnf_metrics",
		with("ttl: 4s" + added + ", load_timeout: 1m}"):                "load_timeout or write_timeout",
		with("ttl: 4s" + added + "}\n  a: {origin: no}"):               "no origin is named",
		with("ttl: 4s"+added+"}") + "\ntokens: {t: {file: /dev/null}}": "no token",
		"origins: {}\n": "restart",
	} {
		failed := r.parts.reloader.stats().Failed
		last := r.reload(text)
		if policy().TTL != 3*time.Second || len(r.parts.datasets.All()) != 1 {
			t.Fatalf("the refused configuration\n%s\nis in use", text)
		}
		if s := r.parts.reloader.stats(); s.Failed != failed+1 || !s.LastFailed || !strings.Contains(last, want) {
			t.Errorf("%+v, log %s; want a failure with %q", s, last, want)
		}
	}
	r.reloaded(t, good)
	if policy().TTL != 10*time.Second || r.parts.reloader.stats().LastFailed {
		t.Errorf("after going back: %+v %+v", policy(), r.parts.reloader.stats())
	}
	wantGet(t, r.at.HTTP, row, 200, rowJSON)
}

func TestReloadAddsAndRemovesDatasets(t *testing.T) {
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good := read(t, file)
	one, other := newOrigin(t), "/v1/other/CNF-001"
	added := strings.Replace(good, "origins:\n", "origins:\n  db2: {driver: sqlite, dsn: "+one+"}\n", 1)
	added = strings.Replace(added, "datasets:\n", "datasets:\n  other: {origin: db2, table: cnf_metrics, key: cnf_id, value: value, writable: true}\n", 1)
	wantGet(t, r.at.HTTP, row, 200, rowJSON)
	wantGet(t, r.at.HTTP, other, 404, "unknown-dataset")

	r.reloaded(t, added)
	wantGet(t, r.at.HTTP, other, 200, "1.5")
	wantGet(t, r.at.HTTP, "/v1/datasets", 200, `"other"`)
	wantGet(t, r.at.Admin, "/api/explain?dataset=other&key=CNF-001", 200, `"cached":true`)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_requests_total{dataset="other",result="load"} 1`)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_origin_max_in_flight{origin="db2"}`)
	if status, _, body := send(t, "PUT", r.at.HTTP, other, "2"); status != 200 {
		t.Errorf("PUT: %d %s", status, body)
	}
	wantGet(t, r.at.HTTP, other, 200, "2")
	total := r.parts.memory.entries
	if got := r.dataset().Memory().MaxBytes; got != total/2 {
		t.Errorf("a dataset of two has %d bytes of %d, want half", got, total)
	}

	r.reloaded(t, good)
	wantGet(t, r.at.HTTP, other, 404, "unknown-dataset")
	wantGet(t, r.at.Admin, "/api/explain?dataset=other&key=CNF-001", 404, "unknown-dataset")
	if _, body := get(r.at.Metrics, "/metrics"); strings.Contains(body, `dataset="other"`) || strings.Contains(body, `"db2"`) {
		t.Error("the metrics have the removed dataset or its origin")
	}
	if got := r.dataset().Memory().MaxBytes; got != total {
		t.Errorf("the only dataset has %d bytes, want %d", got, total)
	}
	if s := r.dataset().Stats(); s.Load.Load() != 1 {
		t.Errorf("the dataset that did not change was loaded %d times, want once", s.Load.Load())
	}
}

// What is cached stays right when only the way to the rows changes; other rows must not be answered from it.
func TestReloadKeepsEntriesOfTheSameRows(t *testing.T) {
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good := read(t, file)
	wantGet(t, r.at.HTTP, row, 200, rowJSON)
	loads := func() int64 { return r.dataset().Stats().LoadsBegun.Load() }
	for _, text := range []string{
		withField(good, "writable: true"), withField(good, "writable: true\n    memory_share: 50%"),
		withField(good, "alias: [METRICS]\n    absent: {status: 403}\n    headers: {X-Id: cnf_id}\n    content_type: application/x"),
		strings.Replace(good, "sqlite,", "sqlite, max_in_flight: 3, breaker: {failures: 9},", 1),
		strings.ReplaceAll(strings.ReplaceAll(good, "  db:", "  database:"), "origin: db", "origin: database"), good,
	} {
		r.reloaded(t, text)
		wantGet(t, r.at.HTTP, row, 200, rowJSON)
		if n := loads(); n != 1 {
			t.Fatalf("%d loads after a reload of\n%s\nwant 1", n, text)
		}
	}
	for i, change := range []struct{ text, want string }{
		{withField(good, "columns: [cnf_id]"), `{"cnf_id":"CNF-001"}`},
		{withField(good, "value: value"), "1.5"},
		{dsnField.ReplaceAllString(good, "dsn: "+newOrigin(t)), rowJSON},
	} {
		r.reloaded(t, change.text)
		wantGet(t, r.at.HTTP, row, 200, change.want)
		if n := loads(); n != int64(i)+2 {
			t.Errorf("%d loads, want %d: the rows have changed", n, i+2)
		}
	}
}

var dsnField = regexp.MustCompile(`dsn: [^}]+`)

// What HTTP clients see changes with a reload.
func TestReloadOfWhatHTTPClientsSee(t *testing.T) {
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good := read(t, file)
	want := func(path string, status int, body string) {
		t.Helper()
		wantGet(t, r.at.HTTP, path, status, body)
	}
	want("/v1/METRICS/CNF-001", 404, "unknown-dataset")
	for range 2 {
		r.reloaded(t, withField(good, `alias: [METRICS]
    paths: ["/m/{cnf_id}"]
    body: '{"result": {value}}'
    absent: {status: 200, body: '{"result": false}'}`))
		want("/v1/METRICS/CNF-001", 200, rowJSON)
		want("/m/CNF-001", 200, `{"result": `+rowJSON+`}`)
		want("/m/none", 200, `{"result": false}`)
		r.reloaded(t, good)
		want("/v1/METRICS/CNF-001", 404, "unknown-dataset")
		want("/m/CNF-001", 404, "no-such-route")
		want("/v1/metrics/none", 404, "not-found")
	}
	if last := r.reload(withField(good, "alias: [METRICS, metrics]")); !strings.Contains(last, "is also the name or an alias") {
		t.Errorf("got %s", last)
	}
}

func TestReloadFollowsADSNFile(t *testing.T) {
	file, dsn := newFile(t, "cnf_metrics: metrics\n"), filepath.Join(t.TempDir(), "dsn")
	write(t, dsn, newOrigin(t)+"\n")
	text := dsnField.ReplaceAllString(read(t, file), "dsn_file: "+dsn)
	write(t, file, text)
	r := begin(t, load(t, file), nil)
	wantGet(t, r.at.HTTP, row, 200, rowJSON)
	o := newTruth(t)
	o.exec(`UPDATE cnf_metrics SET value = 7`)
	write(t, dsn, o.path)
	wantGet(t, r.at.HTTP, row, 200, rowJSON)
	r.reloaded(t, text)
	wantGet(t, r.at.HTTP, row, 200, `"value":7`)
	write(t, dsn, canary+"?_pragma=1=2=3&")
	if last := r.reload(text); strings.Contains(last, canary) {
		t.Errorf("the log has the connection string: %s", last)
	}
}

func TestReloadStartsAndStopsFeeds(t *testing.T) {
	t.Parallel()
	o := newTruth(t)
	o.apply()
	members := o.three(newMemoryDirectory(), "") // two of them read the feed
	for _, m := range members {
		without := read(t, m.config.Source().File)
		m.reloaded(t, strings.Replace(without, "ttl: 1h", "ttl: 1h"+polled, 1))
	}
	for _, m := range members {
		waitFor(t, m.feedLive)
	}
	awaitGet(t, members, pathOf(1), `"value":0`)
	o.exec(`UPDATE cnf_metrics SET value = 3, ver = ver + 1`)
	awaitGet(t, members, pathOf(1), `"value":3`)
	for _, m := range members {
		m.reloaded(t, read(t, m.config.Source().File))
		wantGet(t, m.at.Metrics, "/metrics", 200, `ringside_change_feed_gap{dataset="metrics"} 0`)
		if m.parts.datasets.ReadsFeed("metrics") || m.feedLive() {
			t.Error("a feed without a configuration is live")
		}
	}
}

// events returns a function that returns the next event of a watch; "end" at its end.
func events(t *testing.T, addr, path string) func() string {
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	return func() string {
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				return text
			}
		}
		return "end"
	}
}

func TestWatchFollowsAReload(t *testing.T) {
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good := read(t, file)
	next := events(t, r.at.HTTP, "/v1/metrics:watch?key=CNF-001")
	want := func(kinds ...string) {
		t.Helper()
		for _, kind := range kinds {
			if got := next(); got != kind {
				t.Fatalf("got event %q, want %q", got, kind)
			}
		}
	}
	want("state", "current")
	r.reloaded(t, withField(good, "columns: [cnf_id]"))
	want("reset", "state", "current")
	r.reloaded(t, strings.Replace(good, "  metrics:", "  renamed:", 1))
	want("end")
}

// With an older configuration, the owner does not know the dataset.
func TestDatasetThatOtherMembersDoNotKnowIsRead(t *testing.T) {
	t.Parallel()
	o, d := newTruth(t), newMemoryDirectory()
	members := o.three(d, "")
	for i, m := range members {
		text := strings.Replace(read(t, m.config.Source().File), "datasets:\n",
			"datasets:\n  other: {origin: db, table: cnf_metrics, key: cnf_id, version: ver, writable: true}\n", 1)
		m.reloaded(t, text)
		for k := range rowsOfTruth {
			wantGet(t, m.at.HTTP, "/v1/other/"+keyOf(k), 200, keyOf(k))
		}
		if status, _, body := send(t, "PUT", m.at.HTTP, "/v1/other/"+keyOf(i), `{"value": 7}`); status != 200 {
			t.Errorf("PUT: %d %s", status, body)
		}
		for _, reader := range members[:i+1] {
			awaitGet(t, []*running{reader}, "/v1/other/"+keyOf(i), `"value":7`)
		}
	}
}

// Readers never notice a reload.
func TestReadsDuringManyReloads(t *testing.T) {
	t.Parallel()
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good := read(t, file)
	more := strings.Replace(good, "datasets:\n", "datasets:\n  other: {origin: db, table: cnf_metrics, key: cnf_id}\n", 1)
	texts := []string{
		more, withField(more, "columns: [cnf_id, value]"), strings.Replace(good, "sqlite,", "sqlite, max_in_flight: 3,", 1),
		dsnField.ReplaceAllString(good, "dsn: "+newOrigin(t)), good,
	}
	var stop atomic.Bool
	var reads atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for !stop.Load() {
				resp, err := client.Get("http://" + r.at.HTTP + row)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("after %d reads: %v, %v", reads.Load(), resp, err)
					return
				}
				resp.Body.Close()
				reads.Add(1)
				wantGet(t, r.at.Metrics, "/metrics", 200, "")
			}
		})
	}
	for i := range 100 {
		r.reloaded(t, texts[i%len(texts)])
	}
	for seen := reads.Load(); reads.Load() < seen+100 && !t.Failed(); time.Sleep(time.Millisecond) {
	}
	stop.Store(true)
	readers.Wait()
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_config_reloads_total{result="ok"} 100`)
}

func TestChangedFileIsReloaded(t *testing.T) {
	t.Parallel()
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good, _ := os.ReadFile(file)
	write(t, file, strings.Replace(string(good), "    key: cnf_id\n", "    key: cnf_id\n    ttl: 3s\n", 1))
	waitFor(t, func() bool { return r.dataset().Policy().TTL == 3*time.Second })
}

func TestReloadChangesTheLevelOfTheLog(t *testing.T) {
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	log, err := logging.New("json", "info", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r.parts.reloader.log = log
	r.reload(read(t, file) + "\nlog: {level: debug}\n")
	if !log.Core().Enabled(zap.DebugLevel) {
		t.Error("the level is not debug after the reload")
	}
}
