package warnings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar/config"
)

func TestCredentialsInClearTextAreWarnedOf(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("c4n4ry"), 0o600); err != nil {
		t.Fatal(err)
	}
	dsnFile := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsnFile, []byte("postgres://u:c4n4ry@db.example/d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	origin := func(driver, dsn string) string {
		return "origins: {db: {driver: " + driver + ", dsn: \"" + dsn + "\"}}"
	}
	etcd := func(rest string) string {
		return "peer_tls: {insecure: true}\nmembership: {etcd: {endpoints: [" + rest + "}}"
	}
	const ofDB, ofEtcd = "origins.db: the password of the database may be sent in clear text", "the password of etcd is sent in clear text"
	for name, tt := range map[string]struct{ text, want string }{
		"default":          {origin("postgres", "postgres://u:c4n4ry@db.example/d"), ofDB},
		"dsn_file":         {"origins: {db: {driver: postgres, dsn_file: " + dsnFile + "}}", ofDB},
		"disable":          {origin("postgres", "postgres://u:c4n4ry@10.0.0.1/d?sslmode=disable"), ofDB},
		"allow":            {origin("postgres", "postgres://u:c4n4ry@db/d?sslmode=allow"), ofDB},
		"prefer":           {origin("postgres", "host=db user=u password=c4n4ry sslmode=prefer"), ofDB},
		"second host":      {origin("postgres", "postgres://u:c4n4ry@127.0.0.1,db.example/d?sslmode=disable"), ofDB},
		"require":          {origin("postgres", "postgres://u:c4n4ry@db.example/d?sslmode=require"), ""},
		"verify-full":      {origin("postgres", "postgres://u:c4n4ry@db.example/d?sslmode=verify-full"), ""},
		"loopback":         {origin("postgres", "postgres://u:c4n4ry@127.0.0.1/d?sslmode=disable"), ""},
		"socket":           {origin("postgres", "host=/run/postgresql user=u password=c4n4ry"), ""},
		"no password":      {origin("postgres", "postgres://u@db.example/d"), ""},
		"mysql":            {origin("mysql", "u:c4n4ry@tcp(db.example:3306)/d"), ofDB},
		"mysql false":      {origin("mysql", "u:c4n4ry@tcp(db.example:3306)/d?tls=false"), ofDB},
		"mysql preferred":  {origin("mysql", "u:c4n4ry@tcp(db.example:3306)/d?tls=preferred"), ofDB},
		"mysql true":       {origin("mysql", "u:c4n4ry@tcp(db.example:3306)/d?tls=true"), ""},
		"mysql loopback":   {origin("mysql", "u:c4n4ry@tcp(127.0.0.1:3306)/d"), ""},
		"mysql socket":     {origin("mysql", "u:c4n4ry@unix(/run/mysqld.sock)/d"), ""},
		"sqlite":           {origin("sqlite", "/tmp/a.db"), ""},
		"etcd over http":   {etcd("\"http://etcd:2379\"], username: u, password_file: " + password), ofEtcd},
		"etcd over https":  {etcd("\"https://etcd:2379\"], username: u, password_file: " + password), ""},
		"etcd on loopback": {etcd("\"http://127.0.0.1:2379\"], username: u, password_file: " + password), ""},
		"etcd, anonymous":  {etcd("\"http://etcd:2379\"]"), ""},
		"token":            {"tokens: {a: {file: " + password + "}}\nlisten: {http: \"0.0.0.0:7070\"}", "clients on other hosts send them in clear text"},
		"token, loopback":  {"tokens: {a: {file: " + password + "}}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Source{File: "ringside.yaml", Drivers: drivers.All(), Getenv: func(string) (string, bool) { return "", false }}.Parse([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(Of(c), "\n")
			if tt.want == "" && strings.Contains(got, "clear text") || !strings.Contains(got, tt.want) || strings.Contains(got, "c4n4ry") {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}
