package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/ring/routekey"
)

// A composite key in every interface: the path of HTTP, the key text elsewhere.
func TestCompositeKeys(t *testing.T) {
	origin := sqlitetest.New(t, `CREATE TABLE users (realm TEXT, name TEXT, secret TEXT, ver INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (realm, name));
		INSERT INTO users (realm, name, secret) VALUES ('example.org', 'alice', '1'), ('a/b', '100%', '2'), ('', 'bob', '3');
		CREATE TABLE plain (k TEXT PRIMARY KEY, v TEXT); INSERT INTO plain VALUES ('a%2Fb', 'escaped'), ('a/b', 'slash')`)
	config := write(t, "ringside.yaml", `
origins: {db: {driver: sqlite, dsn: `+origin+`}}
datasets:
  users: {origin: db, table: users, key: [realm, name], value: secret, version: ver, writable: true, ttl: 1h, gap_ttl: 1h,
    feed: {kind: poll, interval: 10ms}}
  plain: {origin: db, table: plain, key: k, value: v}
listen: {http: 127.0.0.1:0, grpc: 127.0.0.1:0, metrics: 127.0.0.1:0, admin: 127.0.0.1:0}
`)
	names := map[string]string{"C": config}
	if code, out, errs := execute("changes apply users -c $C", names); code != 0 {
		t.Fatal(out, errs)
	}
	addrs, _ := beginFile(t, config)
	names["H"], names["A"] = addrs.HTTP, addrs.Admin
	for _, test := range []struct{ line, stdout, stderr string }{
		{"get users example.org/alice --http $H", "1\n", ""},
		{"get users a%2Fb/100%25 --http $H", "2\n", ""},
		{"get users /bob --http $H", "3\n", ""},
		{"get plain a%2Fb --http $H", "escaped\n", ""},
		{"get plain a/b --http $H", "slash\n", ""},
		{"get users alice --http $H", "", "1 of 2 components: want realm/name"},
		{"put users a%2Fb/100%25 22 --http $H", "written, version 1\n", ""},
		{"put users a%2Fb/new%2Fone 4 --create --http $H", "written", ""},
		{"get users a%2Fb/new%2Fone --http $H", "4\n", ""},
		{"delete users a%2Fb/new%2Fone --http $H", "deleted", ""},
		{"explain users a%2Fb/100%25 --admin $A", "users/a%2Fb/100%25", ""},
		{"invalidate users a%2Fb/100%25 --http $H", "invalidated on 1 member\n", ""},
		{"invalidate users --prefix example.org/ --http $H", "invalidated on 1 member\n", ""},
		{"validate -c $C", "ok", ""},
	} {
		_, stdout, stderr := execute(test.line, names)
		if !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) || test.stderr == "" && stderr != "" {
			t.Errorf("%s: printed %q, %q; want %q, %q", test.line, stdout, stderr, test.stdout, test.stderr)
		}
	}
	for _, test := range []struct{ method, path, body, want string }{
		{"GET", "users/example.org/alice", "", "200 1"},
		{"GET", "users/a%2Fb/100%25", "", "200 22"},
		{"GET", "users/a%2fb/%31%30%30%25", "", "200 22"}, // another spelling of the same path
		{"GET", "users//bob", "", "200 3"},
		{"GET", "users/a/b/100%25", "", "400 "},
		{"GET", "users/alice", "", "400 "},
		{"GET", "users/a%252Fb/100%25", "", "404 "}, // a realm with the text %2F
		{"POST", "users:batchGet", `{"keys": ["example.org/alice", "a%2Fb/100%25", "alice", "a%2fb/100%25"]}`, `200 {"results":[{"key":"example.org/alice"`},
	} {
		r, err := http.NewRequest(test.method, "http://"+addrs.HTTP+"/v1/"+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		if test.body == "" {
			r.Body = nil
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got := resp.Status[:4] + string(body)
		if !strings.HasPrefix(got, test.want) || strings.HasPrefix(test.want, "400") && !strings.Contains(got, "of 2 components: want realm/name") {
			t.Errorf("%s %s: %s; want %s", test.method, test.path, got, test.want)
		}
		if test.method == "POST" && (strings.Count(got, "invalid-key") != 2 || !strings.Contains(got, "component realm")) {
			t.Errorf("a batch: %s; want two invalid keys", got)
		}
	}
	// Proxies hash the path after /v1/, members the key.
	for path, key := range map[string]string{"users/a%2Fb/100%25": "a%2Fb/100%25", "users//bob": "/bob", "users/%C3%A4%20/b": "ä /b"} {
		if got := routekey.Format("users", key); got != path {
			t.Errorf("key %q has the route key %q; its path is %q", key, got, path)
		}
	}
	sqlitetest.Exec(t, origin, "UPDATE users SET secret = '33' WHERE name = 'bob'; UPDATE users SET secret = '222' WHERE realm = 'a/b'")
	for path, want := range map[string]string{"//bob": "33", "/a%2Fb/100%25": "222"} {
		got := ""
		for deadline := time.Now().Add(20 * time.Second); got != want && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			resp, err := http.Get("http://" + addrs.HTTP + "/v1/users" + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			got = string(body)
		}
		if got != want {
			t.Errorf("%s is %q after the feed reported a change; want %q", path, got, want)
		}
	}
}
