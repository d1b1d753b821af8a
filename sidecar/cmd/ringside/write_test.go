package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/sidecar"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// newWritable creates a SQLite database with one row of version 1, and a configuration of a writable dataset.
func newWritable(t testing.TB) (origin, config string) {
	t.Helper()
	origin = sqlitetest.New(t, `CREATE TABLE cnf_metrics (
			cnf_id TEXT PRIMARY KEY, value REAL, unit TEXT NOT NULL DEFAULT '%', raw BLOB, ver INTEGER NOT NULL);
		INSERT INTO cnf_metrics VALUES ('CNF-001', 1.5, '%', x'00ff', 1);
		CREATE TABLE sessions (id INTEGER PRIMARY KEY, user TEXT NOT NULL, ver INTEGER)`)
	return origin, write(t, "ringside.yaml", `
origins: {db: {driver: sqlite, dsn: `+origin+`}}
datasets:
  metrics:
    {origin: db, table: cnf_metrics, key: cnf_id, columns: [cnf_id, value, unit], version: ver, writable: true, feed: {kind: poll}}
  raw: {origin: db, table: cnf_metrics, key: cnf_id, value: raw, version: ver, writable: true}
  fixed: {origin: db, table: cnf_metrics, key: cnf_id}
  sessions: {origin: db, table: sessions, key: id, columns: [id, user], version: ver, writable: true}
listen: {http: 127.0.0.1:0, grpc: 127.0.0.1:0, metrics: 127.0.0.1:0, admin: 127.0.0.1:0}
node: {id: node-1}
`)
}

// beginFile runs a sidecar with a configuration file. end stops it and waits.
func beginFile(t testing.TB, file string, set ...string) (addrs sidecar.Addrs, end func()) {
	t.Helper()
	c, err := config.Source{File: file, Getenv: os.LookupEnv, Set: set, Drivers: drivers.All()}.Load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan sidecar.Addrs, 1), make(chan error, 1)
	go func() { done <- sidecar.Run(ctx, c, zap.NewNop(), func(a sidecar.Addrs) { ready <- a }) }()
	select {
	case addrs = <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("the sidecar did not start: %v", err)
	}
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return addrs, end
}

// The lines run in order, each on the state that the previous ones have left.
func TestWriteCommandLines(t *testing.T) {
	_, config := newWritable(t)
	addrs, _ := beginFile(t, config)
	row := write(t, "row.json", `{"value": 4}`)
	noKey := filepath.Join(t.TempDir(), "nokey.db")
	sqlitetest.Exec(t, noKey, "CREATE TABLE t (k TEXT, v REAL, ver INTEGER)")
	names := map[string]string{"H": addrs.HTTP, "A": addrs.Admin, "F": row, "C": config, "BIG": big(t),
		"GOOD": write(t, "good.jsonl", "\n"+`{"key":"L-4","value":{"value":4}}`),
		"ROWS": write(t, "rows.jsonl", `{"key":"L-1","value":{"value":1}}
{"key":"L-2","value":{"value":2}}
{"key":"L-9","value":{"value":9}}]}
{"key":"L-3","value":{"volume":2}}
{"key":"L-1","value":{"value":9},"ifVersion":7}
{"key":"L-2","value":{"value":3}}
{"keys":["a"]}
{"key":"L-5"}
`),
		"NOKEY": write(t, "nokey.yaml", "origins: {db: {driver: sqlite, dsn: "+noKey+"}}\n"+
			"datasets: {a: {origin: db, table: t, key: k, version: ver, writable: true}}")}
	for _, test := range []struct {
		line           string
		code           int
		stdout, stderr string
	}{
		{`put metrics CNF-001 {"value":2} --http $H`, 0, "written, version 2\n", ""},
		{"get metrics CNF-001 --http $H", 0, `{"cnf_id":"CNF-001","value":2,"unit":"%"}`, ""},
		{`put metrics CNF-001 {"value":3} --http $H --if-version 2 -o json`, 0, `"version": "3"`, ""},
		{`put metrics CNF-001 {"value":9} --http $H --if-version 2`, 1, "", "metrics CNF-001: The row does not meet the condition"},
		{`put metrics CNF-001 {"value":9} --http $H --create`, 1, "", "Precondition failed"},
		{`put metrics CNF-404 {"value":9} --http $H --if-match *`, 1, "", "Precondition failed"},
		{`put metrics CNF-001 {"value":9} --http $H --if-match none`, 1, "", "Precondition failed"},
		{"put metrics CNF-001 --file $F --http $H --idempotency-key w1", 0, "written, version 4\n", ""},
		{"put metrics CNF-001 --file $F --http $H --idempotency-key w1", 0, "written, version 4\n", ""},
		{`put metrics CNF-001 {"volume":1} --http $H`, 1, "", "Invalid value: column volume: "},
		{`put metrics CNF-001 nonsense --http $H`, 1, "", "Invalid value"},
		{`put fixed CNF-001 {"value":1} --http $H`, 1, "", "The dataset is read-only"},
		{`put nope CNF-001 {"value":1} --http $H`, 1, "", "dataset"},
		{"put raw CNF-001 text --http $H", 0, "written, version 5\n", ""},
		{"get raw CNF-001 --http $H", 0, "text\n", ""},
		{"put metrics CNF-001 --http $H", 2, "", "give VALUE, - for stdin, or --file; see `ringside put --help`"},
		{"put metrics CNF-001 {} --file $F --http $H", 2, "", "not both"},
		{"put metrics CNF-001 --file /no/file --http $H", 1, "", "/no/file"},
		{"put metrics CNF-001 --file $BIG --http $H", 1, "", "larger than the limit of 1048576 bytes"},
		{"put metrics CNF-001 {} --create --if-version 1 --http $H", 2, "", "at most one of"},
		{"put metrics CNF-001 {} --if-version -1 --http $H", 2, "", "for \"--if-version\" flag: want a row version"},
		{"put metrics CNF-001 {} --if-version 0 --http $H", 2, "", "a whole number from 1"},
		{`put metrics CNF-001 {"value":9} --if-match $UNSET --http $H`, 2, "", "--if-match is empty: nothing was sent"},
		{`put metrics CNF-001 {"value":9} --idempotency-key $UNSET --http $H`, 2, "", "--idempotency-key is empty"},
		{`put metrics CNF-001 {"value":9} --file $UNSET --http $H`, 2, "", "--file is empty"},
		{"delete metrics CNF-001 --if-match $UNSET --http $H", 2, "", "--if-match is empty"},
		{"get metrics CNF-001 --no-cache --http $H", 0, `"value":4`, ""},
		{"put metrics CNF-001 {} --http 127.0.0.1:1", 1, "", "no sidecar is listening"},
		{"delete metrics CNF-001 --http $H --if-version 1", 1, "", "does not meet the condition"},
		{"delete metrics CNF-001 --http $H -o json", 0, `"deleted": true`, ""},
		{"get metrics CNF-001 --http $H", 1, "", "no such key"},
		{"delete metrics CNF-001 --http $H", 0, "deleted", ""},
		{"put metrics --from $ROWS --http $H", 1, "written 3 rows, failed 5\n", "rows.jsonl:3: not a row"},
		{"get metrics L-1 --http $H", 0, `"value":1,"unit":"%"`, ""},
		{"get metrics L-2 --http $H", 0, `"value":3,"unit":"%"`, ""},
		{"put metrics --from $ROWS -o json --http $H", 1, `"failed": 5`, "rows.jsonl:4: L-3: Invalid value: column volume: "},
		{"put metrics --from $ROWS --http $H", 1, "failed 5", "rows.jsonl:5: L-1: The row does not meet the condition"},
		{"put metrics --from $ROWS --http $H", 1, "failed 5", "metrics: 5 of 8 rows were not written"},
		{"put metrics --from $GOOD --http $H", 0, "written 1 rows, failed 0\n", ""},
		{"put metrics --from /no/file --http $H", 1, "", "/no/file"},
		{"put metrics --from $BIG --http $H", 1, "", "token too long; neither this line nor later ones were sent"},
		{"put nope --from $GOOD --http $H", 1, "", "good.jsonl:2-2: Unknown dataset"},
		{"put fixed --from $GOOD --http $H", 1, "", "good.jsonl:2-2: The dataset is read-only"},
		{"put metrics CNF-1 --from $GOOD --http $H", 2, "", "not both"},
		{"put metrics --from $GOOD --if-version 1 --http $H", 2, "", "--if-version is for one row"},
		{"put metrics --from $UNSET --http $H", 2, "", "--from is empty"},
		{"put metrics --http $H", 2, "", "give KEY and VALUE, or --from FILE"},
		{"put metrics --from $GOOD --http 127.0.0.1:1", 1, "", "no sidecar is listening"},
		{"get sessions 1 --http $H", 1, "", "no such key"},
		{`append sessions {"user":"alice"} --http $H --idempotency-key s1`, 0, "appended 1, version ", ""},
		{`append sessions {"user":"alice"} --http $H --idempotency-key s1`, 0, "appended 1, version ", ""},
		{`get sessions 1 --http $H`, 0, `{"id":1,"user":"alice"}`, ""},
		{`append sessions {"user":"bob"} --http $H -o json`, 0, `"key": "2"`, ""},
		{`append sessions {"id":3,"user":"bob"} --http $H`, 1, "", "sessions: Invalid value: column id: the database generates the key"},
		{`append metrics {"unit":"%"} --http $H`, 1, "", "the database generates no key for column cnf_id"},
		{`append fixed {} --http $H`, 1, "", "The dataset is read-only"},
		{`append sessions --http $H`, 2, "", "give VALUE, - for stdin, or --file"},
		{`append sessions {} --http $H --idempotency-key $UNSET`, 2, "", "--idempotency-key is empty"},
		{`append sessions {} --http 127.0.0.1:1`, 1, "", "no sidecar is listening"},
		{"invalidate metrics CNF-001 a --http $H", 0, "invalidated on 1 member\n", ""},
		{"invalidate metrics --prefix CNF- --http $H", 0, "invalidated on 1 member\n", ""},
		{"invalidate metrics --all --http $H -o json", 0, `"members": 1`, ""},
		{"invalidate metrics --http $H", 2, "", "give exactly one of KEYs, --prefix and --all"},
		{"invalidate metrics a --all --http $H", 2, "", "exactly one of"},
		{"invalidate nope --all --http $H", 1, "", "invalidate nope: "},
		{"get fixed CNF-001 --no-cache --http $H", 1, "", "no such key"},
		{"top --once --interval 500ms --admin $A", 0, "\nraw", ""},
		{"top --once --interval 500ms --admin $A", 0, "feed gap", ""},
		{"top --once --interval 500ms --admin $A", 0, "node-1  ok", ""},
		{"top --once --interval 1ms --admin $A", 2, "", "--interval: want 500ms or more"},
		{"top --once --admin 127.0.0.1:1", 1, "", "no sidecar is listening"},
		{"watch metrics --http $H", 2, "", "want DATASET KEY... | --prefix PREFIX | --all; got 1 argument"},
		{"watch nope a --http $H", 1, "", "watch nope: "},
		{"watch metrics a --http 127.0.0.1:1", 1, "", "no sidecar is listening"},
		{"changes sql metrics -c $C", 0, "CREATE TRIGGER", ""},
		{"validate -c $C", 1, "", "ringside changes apply metrics"},
		{"validate -c $NOKEY", 1, "", "unique"},
		{"changes apply metrics -c $C", 0, "metrics: change feed installed\n", ""},
		{"validate -c $C", 0, "ok", ""},
		{"changes sql metrics --remove -c $C", 0, "DROP TRIGGER", ""},
		{"changes remove metrics -c $C", 0, "metrics: change feed removed\n", ""},
		{"changes sql raw -c $C", 1, "", "ringside changes sql: dataset raw has no feed in the configuration"},
		{"changes apply nope -c $C", 1, "", `no dataset is named "nope"; the datasets are: fixed, metrics, raw, sessions`},
		{"changes sql", 2, "", "want DATASET; got 0 arguments"},
		{"changes", 0, "Usage:", ""},
	} {
		t.Run(test.line, func(t *testing.T) {
			code, stdout, stderr := execute(test.line, names)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, stream := range [][2]string{{stdout, test.stdout}, {stderr, test.stderr}} {
				if stream[1] == "" && stream[0] != "" || !strings.Contains(stream[0], stream[1]) {
					t.Errorf("printed %q, want %q in it", stream[0], stream[1])
				}
			}
		})
	}
}

func big(t *testing.T) string { return write(t, "big", strings.Repeat("x", 1<<20+1)) }

func TestPutReadsStdin(t *testing.T) {
	_, config := newWritable(t)
	addrs, _ := beginFile(t, config)
	var out, errs bytes.Buffer
	stdin := strings.NewReader(`{"value": 7}`)
	if code := run(t.Context(), []string{"put", "metrics", "a/b c", "-", "--http", addrs.HTTP}, stdin, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if code, stdout, _ := execute("get metrics a/b%20c --http "+addrs.HTTP, nil); code != 1 {
		t.Errorf("the key was escaped twice: %s", stdout)
	}
	var got bytes.Buffer
	if code := run(t.Context(), []string{"get", "metrics", "a/b c", "--http", addrs.HTTP}, nil, &got, &errs); code != 0 ||
		!strings.Contains(got.String(), `"value":7`) {
		t.Errorf("got %s%s", got.String(), errs.String())
	}
}

// A connection that closes without a response leaves the outcome of a write unknown.
func TestPutWithoutResponseReportsUnknownOutcome(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	})}
	go server.Serve(ln)
	defer server.Close()
	code, _, stderr := execute(`put metrics CNF-001 {"value":2} --http `+ln.Addr().String(), nil)
	if code != 1 || !strings.Contains(stderr, "outcome unknown") {
		t.Errorf("exit code %d, printed %q", code, stderr)
	}
}

// printed collects the output of a command. A test waits for parts of it.
type printed struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *printed) await(t *testing.T, n int, part string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); strings.Count(p.String(), part) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%q was not printed %d times:\n%s", part, n, p)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestWatchContinuesAfterARestartOfTheSidecar(t *testing.T) {
	origin, config := newWritable(t)
	addrs, end := beginFile(t, config)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs printed
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"watch", "metrics", "CNF-001", "CNF-002", "--http", addrs.HTTP}, nil, &out, &errs)
	}()
	out.await(t, 1, "current\n")
	out.await(t, 1, `state CNF-001 version=1 {"cnf_id":"CNF-001","value":1.5,"unit":"%"}`+"\n")
	out.await(t, 1, "state CNF-002 not found\n")
	if c, _, stderr := execute(`put metrics CNF-001 {"value":2} --http `+addrs.HTTP, nil); c != 0 {
		t.Fatal(stderr)
	}
	out.await(t, 1, "state CNF-001 version=2 ")
	end()
	errs.await(t, 1, "interrupted")
	sqlitetest.Exec(t, origin, "UPDATE cnf_metrics SET value = 3, ver = ver + 1")
	beginFile(t, config, "listen.http="+addrs.HTTP)
	out.await(t, 1, "reset\n")
	out.await(t, 1, "state CNF-001 version=3 ")
	out.await(t, 2, "current\n")
	interrupt()
	if c := <-code; c != 0 {
		t.Errorf("exit code %d: %s", c, &errs)
	}
}

func TestWatchPrintsJSON(t *testing.T) {
	_, config := newWritable(t)
	addrs, _ := beginFile(t, config)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs printed
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"watch", "raw", "CNF-001", "-o", "json", "--http", addrs.HTTP}, nil, &out, &errs)
	}()
	out.await(t, 1, `"event":"current"`)
	interrupt()
	<-code
	for line := range strings.Lines(out.String()) {
		var e struct{ Event, Token string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event == "" || e.Token == "" {
			t.Errorf("%q is not an event: %v", line, err)
		}
	}
}

func TestTopEndsWhenItIsInterrupted(t *testing.T) {
	_, config := newWritable(t)
	addrs, _ := beginFile(t, config)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs printed
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"top", "--interval", "500ms", "--admin", addrs.Admin}, nil, &out, &errs)
	}()
	out.await(t, 2, "MEMBER")
	interrupt()
	if c := <-code; c != 0 {
		t.Errorf("exit code %d: %s", c, &errs)
	}
	if strings.Contains(out.String(), "\x1b[2J") {
		t.Error("the screen was cleared although the output is not a terminal")
	}
}
