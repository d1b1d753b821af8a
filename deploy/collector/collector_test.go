package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/deploy/collector/table"
	"github.com/ringside-cache/ringside/deploy/collector/telemetry"
	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/sidecar/logging"
	"go.uber.org/zap"
)

// This test binary also acts as the program, and as a process for it to observe.
func TestMain(m *testing.M) {
	switch os.Getenv("COLLECTOR_TEST") {
	case "program":
		main()
		os.Exit(0)
	case "large process":
		ballast := make([]byte, 128<<20)
		for i := range ballast {
			ballast[i] = 1
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // until stdin is closed
		os.Exit(int(ballast[0] - 1))
	}
	os.Exit(m.Run())
}

func self(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "COLLECTOR_TEST="+role)
	return cmd
}

// waitFor polls a condition that has no channel: rows of a database, or the log of a program.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs the program in this process; stop ends it like a signal and returns its error.
func start(t *testing.T, log io.Writer, args ...string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, args, log) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func sqliteFile(t *testing.T) (path string, db *sql.DB) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "rows.db")
	uri := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(5000)"
	db, err := sql.Open("sqlite", uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return path, db
}

// status returns the status of a row, "absent" if there is none, or the error of the database.
func status(db *sql.DB, id string) string {
	var status string
	err := db.QueryRow("SELECT status FROM cnf_metrics WHERE cnf_id = '" + id + "'").Scan(&status)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "absent"
	case err != nil:
		return err.Error()
	}
	return status
}

func version(db *sql.DB) (ver int64) {
	_ = db.QueryRow("SELECT ver FROM cnf_metrics WHERE cnf_id = 'CNF-001'").Scan(&ver) // 0 while the database is unavailable
	return ver
}

func TestOnce(t *testing.T) {
	path, db := sqliteFile(t)
	for range 2 {
		var log lines
		err := run(t.Context(), []string{"--driver=sqlite", "--dsn=" + path, "--interval=100ms", "--once", "--create"}, &log)
		if err != nil || log.String() != "" {
			t.Fatalf("got %v, and the log %q", err, log.String())
		}
		if s := status(db, "CNF-001"); s == "absent" {
			t.Error("there is no row CNF-001")
		}
	}
}

func TestOnceWithoutTableFails(t *testing.T) {
	path, _ := sqliteFile(t)
	err := run(t.Context(), []string{"--driver=sqlite", "--dsn=" + path, "--interval=100ms", "--once"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "cnf_metrics") {
		t.Errorf("got %v", err)
	}
}

func TestDSNFromFile(t *testing.T) {
	path, db := sqliteFile(t)
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte("\n"+path+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--driver=sqlite", "--dsn-file=" + file, "--interval=100ms", "--once", "--create", "--prefix=n1/"}
	if err := run(t.Context(), args, io.Discard); err != nil {
		t.Fatal(err)
	}
	if status(db, "n1/CNF-001") == "absent" || status(db, "CNF-001") != "absent" {
		t.Error("the prefix is not before the ids")
	}
}

func TestFlags(t *testing.T) {
	for _, args := range []string{
		"", "--driver=sqlite", "--dsn=x --dsn-file=y", "--dsn=x rest", "--dsn=x --interval=99ms", "--dsn=x --top=-1",
		"--dsn=x --top=251", "--dsn=x --prefix=" + strings.Repeat("x", 65), "--what", "--dsn=x --interval=soon",
	} {
		if err := run(t.Context(), strings.Fields(args), io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
	for _, args := range []string{
		"--driver=oracle --dsn=secret", "--driver=sqlite --dsn-file=/none/such", "--driver=sqlite --dsn-file=secret",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard)
		if err == nil || errors.Is(err, errUsage) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

// A process ends: its row gets the status gone and is deleted later.
func TestEndedProcess(t *testing.T) {
	path, db := sqliteFile(t)
	tab, err := table.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	child := self(t, "large process")
	stdin, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("proc/%d/rss", child.Process.Pid)
	newCollector := func(keep time.Duration) *collector {
		return &collector{
			sampler: telemetry.NewSampler("", telemetry.MaxTop), census: telemetry.NewCensus(keep), table: tab,
			log: zap.NewNop(), interval: minInterval, create: true,
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { newCollector(time.Hour).run(ctx) })
	waitFor(t, "the row of a running process", func() bool { return status(db, id) == telemetry.OK })
	stdin.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	waitFor(t, "the row of an ended process", func() bool { return status(db, id) == telemetry.Gone })
	cancel()
	running.Wait()

	ctx, cancel = context.WithCancel(t.Context())
	running.Go(func() { newCollector(0).run(ctx) })
	waitFor(t, "the end of a row that an earlier run has left", func() bool { return status(db, id) == "absent" })
	cancel()
	running.Wait()
}

// The collector does not touch rows of other writers.
func TestRowsOfOtherWritersStay(t *testing.T) {
	path, db := sqliteFile(t)
	args := []string{"--driver=sqlite", "--dsn=" + path, "--interval=100ms", "--create", "--top=0"}
	if err := run(t.Context(), append(args, "--once"), io.Discard); err != nil {
		t.Fatal(err)
	}
	others := []string{"CNF-900", "CNF-015", "app/1", "node-2/proc/1/rss", "proc"}
	for _, id := range append(others, "proc/0/rss") {
		_, err := db.Exec("INSERT INTO cnf_metrics VALUES (?, '2026-01-01 00:00:00', 't', 1, 'u', 'ok', 1)", id)
		if err != nil {
			t.Fatal(err)
		}
	}
	stop := start(t, io.Discard, args...)
	waitFor(t, "the first batch", func() bool { return status(db, "proc/0/rss") == telemetry.Gone })
	for _, id := range others {
		if s := status(db, id); s != telemetry.OK {
			t.Errorf("%s is %s", id, s)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestDatabaseOutage(t *testing.T) {
	for _, engine := range rig.Engines {
		t.Run(engine.Name, func(t *testing.T) {
			t.Parallel()
			d := engine.Start(t)
			db, err := sql.Open(engine.SQLDriver, d.DSN)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			d.Stop()
			var log lines
			// As a process, so that the output of drivers on stderr is included.
			program := self(t, "program", "--driver="+engine.Driver, "--dsn="+d.DSN, "--interval=100ms", "--create")
			program.Stderr = &log
			if err := program.Start(); err != nil {
				t.Fatal(err)
			}
			for outage := range 3 {
				waitFor(t, "log line of the outage", func() bool { return log.count("does not accept rows") == outage+1 })
				if outage < 2 {
					d.Start()
				} else {
					d.Thaw()
				}
				waitFor(t, "log line of the recovery", func() bool { return log.count("accepts rows again") == outage+1 })
				var before int64 // the first query may use a closed connection
				waitFor(t, "rows", func() bool { before = version(db); return before > 0 })
				waitFor(t, "new rows", func() bool { return version(db) > before })
				switch outage {
				case 0:
					d.Kill()
				case 1:
					d.Freeze() // with the connections left open
				}
			}
			err = program.Process.Signal(syscall.SIGTERM)
			if err = errors.Join(err, program.Wait()); err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), "\n"); n != 6 {
				t.Errorf("three outages are %d lines in the log:\n%s", n, log.String())
			}
		})
	}
}

func newLogger(t *testing.T, out io.Writer) *zap.Logger {
	t.Helper()
	log, err := logging.New("json", "info", out)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestOutageIsLoggedOnceAndRetriedLessOften(t *testing.T) {
	var log lines
	c := &collector{log: newLogger(t, &log), interval: time.Second}
	for outage := range 2 {
		for try := range 20 {
			most := min(time.Second<<(try+1), maxPause)
			if pause := c.away(errors.New("refused")); pause < most/2 || pause >= most {
				t.Errorf("outage %d, try %d: a pause of %v, want one from %v to %v", outage, try, pause, most/2, most)
			}
		}
		c.back()
		c.back()
	}
	if n := strings.Count(log.String(), "\n"); n != 4 {
		t.Errorf("two outages are %d lines in the log:\n%s", n, log.String())
	}
}

func TestDroppedTableIsRecreated(t *testing.T) {
	path, db := sqliteFile(t)
	var log lines
	stop := start(t, &log, "--driver=sqlite", "--dsn="+path, "--interval=100ms", "--create")
	waitFor(t, "the first rows", func() bool { return version(db) > 0 })
	if _, err := db.Exec("DROP TABLE cnf_metrics"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "log line of the recovery", func() bool { return log.count("accepts rows again") == 1 })
	if err := stop(); err != nil || version(db) == 0 {
		t.Errorf("got %v and version %d", err, version(db))
	}
}

func TestSignalEndsTheProgram(t *testing.T) {
	path, db := sqliteFile(t)
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		var out strings.Builder
		cmd := self(t, "program", "--driver=sqlite", "--dsn="+path, "--create", "--interval=100ms")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := version(db)
		waitFor(t, "rows", func() bool { return version(db) > before })
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || out.String() != "" {
			t.Errorf("%v: %v; it said %q", sig, err, out.String())
		}
	}
}

func TestExitStatus(t *testing.T) {
	for args, want := range map[string]int{
		"--help": 0, "--what": 2, "--dsn=x --driver=oracle": 1, "--dsn=/none/such --driver=sqlite --once --interval=100ms": 1,
	} {
		cmd := self(t, "program", strings.Fields(args)...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%q: status %d, want %d; %v, it said %s", args, got, want, err, out)
		}
	}
}
