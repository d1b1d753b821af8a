package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/sidecar"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// write creates a file in a temporary folder and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newOrigin(t testing.TB) string {
	t.Helper()
	return sqlitetest.New(t, `CREATE TABLE cnf_metrics (cnf_id TEXT PRIMARY KEY, value REAL, raw BLOB); CREATE TABLE no_key (k TEXT);
		INSERT INTO cnf_metrics VALUES ('CNF-001', 1.5, x'00ff'), ('a/b c', 2.5, x'01')`)
}

func newConfigFile(t testing.TB) string {
	t.Helper()
	return write(t, "ringside.yaml", `
origins: {db: {driver: sqlite, dsn: `+newOrigin(t)+`}}
datasets:
  metrics: {origin: db, table: cnf_metrics, key: cnf_id, columns: [cnf_id, value]}
  raw: {origin: db, table: cnf_metrics, key: cnf_id, value: raw}
listen: {http: 127.0.0.1:0, grpc: 127.0.0.1:0, metrics: 127.0.0.1:0, admin: 127.0.0.1:0}
node: {id: node-1}
`)
}

// begin runs a sidecar until the end of the test.
func begin(t testing.TB, change func(*config.Config)) sidecar.Addrs {
	t.Helper()
	c, err := config.Source{File: newConfigFile(t), Getenv: os.LookupEnv, Drivers: drivers.All()}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan sidecar.Addrs, 1), make(chan error, 1)
	go func() { done <- sidecar.Run(ctx, c, zap.NewNop(), func(a sidecar.Addrs) { ready <- a }) }()
	select {
	case addrs := <-ready:
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return addrs
	case err := <-done:
		cancel()
		t.Fatalf("the sidecar did not start: %v", err)
	}
	return sidecar.Addrs{}
}

// execute runs one command line; variables in it, such as $H, are replaced by names.
func execute(line string, names map[string]string) (code int, stdout, stderr string) {
	args := strings.Fields(line)
	for i := range args {
		args[i] = os.Expand(args[i], func(name string) string { return names[name] })
	}
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestCommandLines(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	addrs := begin(t, func(c *config.Config) { c.Listen.Unix = socket })
	unused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unused.Close()
	noPEM := write(t, "no.pem", "no PEM")
	names := map[string]string{
		"H": addrs.HTTP, "G": addrs.GRPC, "A": addrs.Admin, "M": addrs.Metrics,
		"U": "unix:" + socket, "N": unused.Addr().String(),
		"C": newConfigFile(t), "BAD": write(t, "bad.yaml", "ring: {min: 5000}\nnodes: 1\n"),
		"NOTABLE": write(t, "t.yaml", "origins: {db: {driver: sqlite, dsn: "+newOrigin(t)+"}}\n"+
			"datasets: {a: {origin: db, table: nope, key: k}, b: {origin: db, table: cnf_metrics, key: id}}"),
		"W": write(t, "w.yaml", "origins: {db: {driver: sqlite, dsn: "+newOrigin(t)+"}}\n"+
			"datasets: {a: {origin: db, table: no_key, key: k, writable: true, feed: {kind: poll}}}"),
		"NOQUERY": write(t, "q.yaml", "origins: {db: {driver: sqlite, dsn: "+newOrigin(t)+"}}\n"+
			"datasets: {a: {origin: db, query: SELECT nope FROM cnf_metrics WHERE cnf_id = ?}}"),
		"NOMETRIC": write(t, "m.yaml", "origins: {db: {driver: sqlite, dsn: "+newOrigin(t)+"}}\n"+
			"datasets: {a: {origin: db, table: cnf_metrics, key: cnf_id, version: value, writable: true}}\ncnf_metrics: a"),
		"UNUSABLE": write(t, "o.yaml", "origins: {db: {driver: sqlite, dsn: no.db}}\n"+
			"datasets: {a: {origin: db, table: t, key: k}}"),
		"NOETCD": write(t, "e.yaml", "peer_tls: {insecure: true}\nmembership: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}"),
		"ALONE": write(t, "l.yaml", "peer_tls: {insecure: true}\nmembership: {static: [\"127.0.0.1:1\"]}\nlisten: {peer: 127.0.0.1:0, http: 127.0.0.1:0, "+
			"grpc: 127.0.0.1:0, metrics: 127.0.0.1:0, admin: 127.0.0.1:0}"),
		"UNUSED": write(t, "u.yaml", "origins: {db: {driver: sqlite, dsn: a}}"),
		"NOCERT": write(t, "n.yaml", "peer_tls: {cert_file: "+noPEM+", key_file: "+noPEM+", ca_file: "+noPEM+"}"),
		"SECRET": write(t, "s.yaml", "origins: {db: {driver: postgres, dsn: \"postgres://u:canary-77@127.0.0.1:1/db\"}}\n"+
			"datasets: {a: {origin: db, table: t, key: k}}"),
	}
	for _, test := range []struct {
		line           string
		code           int
		stdout, stderr string // parts; "" wants nothing there
	}{
		{"get metrics CNF-001 --http $H", 0, "{\"cnf_id\":\"CNF-001\",\"value\":1.5}\n", ""},
		{"get metrics CNF-001 --http $U", 0, `{"cnf_id":"CNF-001","value":1.5}`, ""},
		{"get metrics CNF-001 --http $H -o json", 0, `"cache_status": "ringside`, ""},
		{"get raw CNF-001 --http $H -o json", 0, `"value_base64": "AP8="`, ""},
		{"get metrics CNF-002 --http $H", 1, "", "metrics CNF-002: "},
		{"get nope CNF-001 --http $H", 1, "", "dataset"},
		{"get metrics CNF-001 --http $N", 1, "", "no sidecar is listening on $N: is `ringside run` running? If it listens elsewhere, set --http"},
		{"get metrics CNF-001 --http unix:/no/socket", 1, "", "no sidecar is listening on unix:/no/socket"},
		{"get metrics CNF-001 --http http://$H", 2, "", `--http: want host:port, without http://`},
		{"get metrics CNF-001 --http 7070", 2, "", `want host:port`},
		{"get metrics CNF-001 --http $G", 1, "", "request to $G failed; is it the http listener of a sidecar?"},
		{"get metrics", 2, "", "want DATASET KEY; got 1 argument; see `ringside get --help`"},
		{"get metrics CNF-001 -o xml", 2, "", "want text or json"},
		{"get --nope", 2, "", "unknown flag: --nope; see `ringside get --help`"},
		{"explain metrics CNF-001 --admin $A", 0, "node-1 (this sidecar)", ""},
		{"explain metrics CNF-001 --admin $A -o json", 0, `"route_key": "metrics/CNF-001"`, ""},
		{"explain nope CNF-001 --admin $A", 1, "", "no dataset"},
		{"explain metrics CNF-001 --admin $N", 1, "", "--admin"},
		{"ring --admin $A", 0, "node-1 *", ""},
		{"ring --admin $A -o json", 0, `"self": "node-1"`, ""},
		{"ring --members a:1,b:1 user:1", 2, "", "has no slash"},
		{"ring --members a:1,b:1,c:1 x/1 x/2", 0, "x/2 ", ""},
		{"ring --members a:1 x/1", 0, "x/1 a:1\n", ""},
		{"ring --members 10.0.0.5,b:1 x/1", 2, "", `host:port of each member, because the ring hashes it; got "10.0.0.5"`},
		{"ring --members a:1,b:1 x/1 -o json", 0, `"route_key": "x/1"`, ""},
		{"ring --members a:1,a:1 x/1", 2, "", "same hash key"},
		{"ring --members a:1,b:1 --min 9 --max 3 x/1", 2, "", "minimum size 9"},
		{"ring --members a:1,b:1", 2, "", "at least one ROUTE_KEY"},
		{"ring x/1", 2, "", "require --members"},
		{"healthcheck --metrics $M", 0, "", ""},
		{"healthcheck --metrics $N", 1, "", "--metrics"},
		{"healthcheck --probe startupz --metrics $M", 0, "", ""},
		{"healthcheck --probe livez --metrics $M", 0, "", ""},
		{"healthcheck --probe metrics --metrics $M", 2, "", "want startupz, livez or readyz"},
		{"wait --metrics $M --timeout 5s", 0, "", ""},
		{"wait --metrics $N --timeout -1s", 2, "", "--timeout: want more than 0s; got -1s"},
		{"wait --metrics $N --timeout 1ms", 1, "", "not ready after 1ms"},
		{"validate -c $C", 0, "ok, 1 origin, 2 datasets", ""},
		{"validate -c $BAD", 78, "", "bad.yaml:2:1: unknown field \"nodes\""},
		{"validate -c $NOTABLE", 78, "", "t.yaml:2:35: datasets.a.table: nope: "},
		{"validate -c $NOTABLE", 78, "", "t.yaml:2:91: datasets.b.key: there is no column \"id\": it has cnf_id, value, raw"},
		{"validate -c $NOQUERY", 78, "", "q.yaml:2:35: datasets.a.query: "},
		{"validate -c $NOMETRIC", 78, "", "m.yaml:3:14: cnf_metrics: "},
		{"validate -c $UNUSABLE", 1, "", "open no.db: no such file or directory; the database file must exist"},
		{"validate -c $NOTABLE --offline", 0, "ok", ""},
		{"validate -c $W", 1, "", "writes: key: column \"k\" of table no_key is not unique"},
		{"validate -c $W", 1, "", "feed: change feed not installed or not readable: ringside_changes does not exist"},
		{"validate -c $SECRET --timeout 2s", 1, "", "origin \"db\""},
		{"validate -c $C --set memory=1", 78, "", "--set memory: memory: want 1MiB or more; got 1 "},
		{"validate --offline -c $NOCERT", 1, "", "peer_tls: certificate "},
		{"validate -c $NOTABLE --timeout 1ns", 1, "", "not completed within 1ns; increase --timeout"},
		{"validate -c $NOETCD", 1, "", "membership.etcd: http://127.0.0.1:1: list /ringside/default/members/: "},
		{"validate -c $NOETCD --offline", 0, "ok", "warning: there are no datasets"},
		{"run -c $ALONE", 78, "", "not in the static list of members"},
		{"validate -c $UNUSED", 0, "ok", "warning: origins.db is used by no dataset"},
		{"validate -c /no/ringside.yaml", 78, "", "create one with `ringside config example > ringside.yaml`"},
		{"run -c /no/ringside.yaml", 78, "", "create one with `ringside config example > ringside.yaml`"},
		{"run -c $C --log-level loud", 2, "", "for \"--log-level\" flag: want one of debug, info, warn, error"},
		{"run -c $C --log-format xml", 2, "", "for \"--log-format\" flag: want one of json, console"},
		{"validate -c $C --set $UNSET", 2, "", "--set: want path=value"},
		{"validate -c $C --set datasets.metrics.ttl", 2, "", "--set: want path=value"},
		{"config show -c $C --set =canary", 2, "", "--set: want path=value"},
		{"run -c $C --set listen.http=$H", 1, "", "listen.http: $H is in use"},
		{"config example", 0, "# ringside.yaml", ""},
		{"config schema", 0, "http://json-schema.org/draft-07/schema#", ""},
		{"config show -c $C", 0, "id: node-1", ""},
		{"config show -c $C --set node.id=n2 -o json", 0, `"id": "n2"`, ""},
		{"config show -c $SECRET", 0, "[hidden]", ""},
		{"version", 0, "ringside ", ""},
		{"version -o json", 0, `"go": "go`, ""},
		{"", 0, "Usage:", ""},
		{"nonsense", 2, "", "unknown command"},
		{"config nonsense", 2, "", "unknown command"},
	} {
		t.Run(test.line, func(t *testing.T) {
			code, stdout, stderr := execute(test.line, names)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, stream := range [][2]string{{stdout, test.stdout}, {stderr, test.stderr}} {
				want := os.Expand(stream[1], func(name string) string { return names[name] })
				if want == "" && stream[0] != "" || !strings.Contains(stream[0], want) {
					t.Errorf("printed %q, want %q in it", stream[0], want)
				}
			}
			if strings.Contains(stdout+stderr, "canary") {
				t.Errorf("a secret was printed: %s%s", stdout, stderr)
			}
		})
	}
}

func TestJSONOutputIsJSON(t *testing.T) {
	addrs := begin(t, nil)
	names := map[string]string{"H": addrs.HTTP, "A": addrs.Admin, "C": newConfigFile(t)}
	for _, line := range []string{
		"get metrics CNF-001 --http $H", "explain metrics CNF-001 --admin $A", "ring --admin $A",
		"ring --members a:1,b:1 x/1",
		"config show -c $C", "version",
	} {
		if _, stdout, stderr := execute(line+" -o json", names); !json.Valid([]byte(stdout)) {
			t.Errorf("%s: not JSON: %s%s", line, stdout, stderr)
		}
	}
}

// Keys with slashes and spaces reach the sidecar unchanged.
func TestGetEscapesKeys(t *testing.T) {
	addrs := begin(t, nil)
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"get", "metrics", "a/b c", "--http", addrs.HTTP}, nil, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if !strings.Contains(out.String(), `"a/b c"`) {
		t.Errorf("got %s", out.String())
	}
}

func TestEnvironmentNamesListenersAndFile(t *testing.T) {
	addrs := begin(t, nil)
	t.Setenv("RINGSIDE_HTTP", addrs.HTTP)
	t.Setenv("RINGSIDE_CONFIG", newConfigFile(t))
	t.Setenv("RINGSIDE_NODE_ID", "from-env")
	for line, want := range map[string]string{"get metrics CNF-001": "CNF-001", "config show": "id: from-env"} {
		if code, stdout, stderr := execute(line, nil); code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%s: %d %s%s", line, code, stdout, stderr)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	lines := &readyWriter{then: cancel}
	if code := run(ctx, []string{"run", "-c", newConfigFile(t)}, nil, lines, lines); code != 0 {
		t.Errorf("exit code %d: %s", code, lines)
	}
}

// readyWriter calls then when the sidecar logs that it is ready.
type readyWriter struct {
	bytes.Buffer
	then func()
}

func (w *readyWriter) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(`"msg":"the sidecar is ready"`)) {
		w.then()
	}
	return w.Buffer.Write(p)
}

// commands returns cmd and all its subcommands.
func commands(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		list = append(list, commands(sub)...)
	}
	return list
}

var quotedWord = regexp.MustCompile(`'[^']*'`)

// Every command has an example that parses and that needs no further quoting in a shell.
func TestHelpTextsHaveExamplesThatParse(t *testing.T) {
	for _, cmd := range commands(newRoot()) {
		if cmd.HasSubCommands() || !cmd.Runnable() || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s has no example or no short text", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			if strings.ContainsAny(quotedWord.ReplaceAllString(line, ""), "{}\"*$;") {
				t.Errorf("the example needs quoting in a shell: %s", line)
			}
			line, _, _ = strings.Cut(strings.TrimSpace(line), " && ")
			line, _, _ = strings.Cut(line, " > ")
			_, line, ok := strings.Cut(line, "ringside ")
			if !ok {
				t.Errorf("%s: the example %q does not call ringside", cmd.CommandPath(), line)
				continue
			}
			root := newRoot()
			found, rest, err := root.Find(strings.Fields(line))
			if err != nil {
				t.Errorf("%q: %v", line, err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%q: %v", line, err)
				continue
			}
			if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}

// pflag's StringArray forgets what was in its list when --set is first used.
func TestSetKeepsTheLogFlags(t *testing.T) {
	cmd := &cobra.Command{}
	source := configFlags(cmd)
	cmd.Flags().Func("log-format", "", assign(source, "log.format", "console"))
	err := cmd.ParseFlags([]string{"--log-format", "console", "--set", "ring.min=5", "--set", "ring.max=6"})
	if want := "log.format=console ring.min=5 ring.max=6"; err != nil || strings.Join(source.Set, " ") != want {
		t.Errorf("got %q, %v; want %q", source.Set, err, want)
	}
}
