package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/e2e/rig"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// canaries are secrets :: place → text. None of them may be in any output.
type canaries map[string]string

// at returns the secret of a place.
func (c canaries) at(place string) string {
	if c[place] == "" {
		c[place] = fmt.Sprintf("c4n4ry%02dx", len(c))
	}
	return c[place]
}

// found lists the secrets in the outputs :: name → text.
func (c canaries) found(outputs map[string]string) (list []string) {
	for name, text := range outputs {
		for place, secret := range c {
			if strings.Contains(text, secret) {
				list = append(list, place+" in "+name)
			}
		}
	}
	return list
}

func TestPromiseE3NoSecretIsInAnyOutput(t *testing.T) {
	secrets, outputs, dir := canaries{}, map[string]string{}, t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := peertest.NewAuthority(t)
	identity := peertest.WriteFiles(t, ca.Issue(t, nil), ca.PEM())
	key, err := os.ReadFile(identity.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	secrets["TLS key"] = strings.Split(string(key), "\n")[1]

	live := postgresWith(t, secrets)
	t.Setenv("CANARY_DSN", "host=127.0.0.1 port=1 user=u dbname=d connect_timeout=1 password="+secrets.at("DSN in the environment"))
	config := fmt.Sprintf(`
log: {level: debug}
pprof: true
audit: {file: %q}
tokens: {t: {file: %q}}
peer_tls: {cert_file: %q, key_file: %q, ca_file: %q}
membership: {etcd: {endpoints: ["http://127.0.0.1:1"], username: u, password_file: %q}}
origins:
  live: {driver: postgres, dsn_file: %q}
  denied: {driver: mysql, dsn: %q}
  dead: {driver: postgres, dsn: "${CANARY_DSN}"}
  lite: {driver: sqlite, dsn: "/no/such/folder/a.db"}
datasets:
  live: {origin: live, table: rows, key: id, version: ver, writable: true}
  denied: {origin: denied, table: rows, key: id, allow: {read: ["token:t"]}}
  dead: {origin: dead, table: rows, key: id}
  lite: {origin: lite, table: rows, key: id}
`,
		filepath.Join(dir, "audit.log"), file("token", secrets.at("token")+"-0123456789abcdef\n"),
		identity.CertFile, identity.KeyFile, identity.CAFile, file("etcd", secrets.at("etcd password")),
		file("dsn", strings.Replace(live, "//", "//u:"+secrets.at("DSN file")+"@", 1)),
		strings.Replace(rig.MySQL(t), "ringside:ringside@", "ringside:"+secrets.at("DSN in the file")+"@", 1))
	s := rig.NewSidecar(t, "m", config)
	s.Start()
	for name, text := range requestsWithSecrets(t, s, secrets) {
		outputs[name] = text
	}
	time.Sleep(11 * time.Second) // the interval of the failure log
	for _, path := range []string{
		"/api/state", "/api/ring", "/api/cluster", "/api/history", "/api/explain?dataset=live&key=other", "/api/explain?dataset=dead&key=a",
		"/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1",
	} {
		outputs["admin "+path] = body(t, "http://"+s.Admin+path)
	}
	outputs["metrics"] = body(t, "http://"+s.Metrics+"/metrics")
	s.Stop()
	outputs["log"] = s.Log()
	if text, err := os.ReadFile(filepath.Join(dir, "audit.log")); err == nil {
		outputs["audit log"] = string(text)
	}
	for name, text := range commandsWithSecrets(t, file, config, secrets) {
		outputs[name] = text
	}
	for _, expected := range []string{"loads, peer fetches, reads or writes of a dataset failed", "a request failed"} {
		if !strings.Contains(outputs["log"], expected) {
			t.Errorf("the log has no line %q: the test checks nothing", expected)
		}
	}
	found := secrets.found(outputs)
	for _, one := range found {
		t.Error("found: " + one)
	}
	report(t, promise{
		number: "E3", n: len(secrets) * len(outputs), held: len(found) == 0,
		done:   fmt.Sprintf("secrets in %d places looked for in %d outputs (logs, errors, metrics, admin, commands)", len(secrets), len(outputs)),
		figure: fmt.Sprintf("%d found", len(found)),
	})
}

// postgresWith returns a DSN without account of a table whose row has secrets.
func postgresWith(t *testing.T, secrets canaries) (dsn string) {
	t.Helper()
	dsn = rig.Postgres(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{
		"CREATE TABLE rows (id TEXT PRIMARY KEY, n INTEGER, secret TEXT, ver BIGINT)",
		"INSERT INTO rows VALUES ('" + secrets.at("key of a row") + "', 1, '" + secrets.at("value of a row") + "', 1)",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	return regexp.MustCompile(`//[^@/]*@`).ReplaceAllString(dsn, "//")
}

// requestsWithSecrets sends requests with secrets and returns what failed requests return.
func requestsWithSecrets(t *testing.T, s *rig.Sidecar, secrets canaries) map[string]string {
	t.Helper()
	outputs := map[string]string{}
	send := func(name, method, target, content string, header ...string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.HTTP+target, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		if host := r.Header.Get("Host"); host != "" {
			r.Host = host
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode < 400 {
			text = nil // the value of the row is for the client
		}
		outputs["HTTP "+name] = fmt.Sprint(resp.Status, resp.Header, string(text))
	}
	value := `{"n":"` + secrets.at("value of a write") + `","secret":"x"}`
	token := "Bearer " + secrets["token"] + "-0123456789abcdef"
	send("of a row", "GET", "/v1/live/"+secrets["key of a row"], "")
	send("of a database that rejects the password", "GET", "/v1/denied/a", "", "Authorization", token)
	send("of a database that is down", "GET", "/v1/dead/a", "")
	send("of a file that does not exist", "GET", "/v1/lite/a", "")
	send("with another token", "GET", "/v1/denied/a", "", "Authorization", "Bearer "+secrets.at("unknown token"))
	send("with a basic password", "GET", "/v1/denied/a", "", "Authorization", "Basic "+secrets.at("basic password"))
	send("with a query", "GET", "/v1/live/a?password="+secrets.at("query parameter"), "")
	send("with a cookie", "GET", "/v1/dead/a", "", "Cookie", "session="+secrets.at("cookie"))
	send("with another host", "GET", "/v1/live/a", "", "Host", secrets.at("host")+".example")
	send("with an invalid column", "PUT", "/v1/live/a", value)
	send("with invalid JSON", "PUT", "/v1/live/a", `{"secret":"`+secrets.at("value that is no JSON"))
	send("with an unknown column", "PUT", "/v1/live/a", `{"n":1,"secret":{"x":"`+secrets.at("nested value")+`"}}`)
	send("with an idempotency key", "PUT", "/v1/dead/a", `{"n":1}`, "Idempotency-Key", `"`+secrets.at("idempotency key")+`"`)
	send("with an ETag", "PUT", "/v1/live/a", `{"n":1}`, "If-Match", `"`+secrets.at("ETag")+`"`)
	send("of a watch", "GET", "/v1/live:watch?key=a&key=", "", "Last-Event-ID", secrets.at("resume token"))
	send("of a batch", "POST", "/v1/dead:batchGet", `{"keys":["a"],"x":"`+secrets.at("value in a batch")+`"}`)
	for _, dataset := range []string{"dead", "denied", "lite"} {
		outputs["gRPC "+dataset] = getOverGRPC(t, s, dataset, secrets.at("gRPC metadata"))
	}
	return outputs
}

func getOverGRPC(t *testing.T, s *rig.Sidecar, dataset, secret string) string {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret), 10*time.Second)
	defer cancel()
	_, err = ringsidev1.NewCacheClient(conn).Get(ctx, &ringsidev1.GetRequest{Dataset: dataset, Key: "a"})
	if err == nil {
		t.Errorf("gRPC %s: got a value, want an error", dataset)
	}
	return fmt.Sprint(err, status.Convert(err).Details())
}

// commandsWithSecrets runs commands with right and wrong configurations and returns what they print.
func commandsWithSecrets(t *testing.T, file func(name, text string) string, config string, secrets canaries) map[string]string {
	t.Helper()
	outputs := map[string]string{}
	run := func(name string, args ...string) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, rig.Binary(t), args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		_ = cmd.Run() // most fail
		if out.Len() == 0 {
			t.Errorf("%s printed nothing", name)
		}
		outputs[name] = out.String()
	}
	good := file("good.yaml", config)
	run("config show", "config", "show", "-c", good)
	run("config show as JSON", "config", "show", "-c", good, "-o", "json")
	run("validate", "validate", "-c", good, "--timeout", "5s")
	run("validate with --set", "validate", "-c", good, "--offline", "--set", "origins.live.dsn=postgres://u:"+secrets.at("DSN in --set")+"@127.0.0.1/d")
	for name, text := range map[string]string{
		"password with @":       "origins: {db: {driver: postgres, dsn: \"postgres://u:p@" + secrets.at("password with @") + "/x@127.0.0.1/d\"}}",
		"password with @ mysql": "origins: {db: {driver: mysql, dsn: \"u:p@tcp(" + secrets.at("password with @ of MySQL") + "/x@tcp(127.0.0.1)/d\"}}",
		"unknown driver":        "origins: {db: {driver: oracle, dsn: \"" + secrets.at("DSN of another driver") + "\"}}",
		"DSN in driver":         "origins: {db: {driver: \"postgres://u:" + secrets.at("DSN in the field driver") + "@h/d\"}}",
		"broken YAML":           "origins: {db: {driver: postgres, dsn: \"postgres://u:" + secrets.at("DSN in broken YAML") + "@h/d\"",
		"unknown field":         "origins: {db: {driver: postgres, password: \"" + secrets.at("unknown field") + "\"}}",
		"DSN as a list":         "origins: {db: {driver: postgres, dsn: [\"" + secrets.at("DSN as a list") + "\"]}}",
	} {
		path := file("bad.yaml", text)
		run("validate, "+name, "validate", "-c", path, "--offline")
		run("run, "+name, "run", "-c", path)
	}
	return outputs
}

func body(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return string(text)
}
