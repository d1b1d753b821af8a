package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

// environ is an environment for Source.Getenv.
type environ map[string]string

func (e environ) get(name string) (string, bool) {
	value, ok := e[name]
	return value, ok
}

// problemsOf loads text as the file ringside.yaml and returns what is wrong with it, a line each.
func problemsOf(t testing.TB, text string, env environ, set ...string) []string {
	t.Helper()
	_, err := Source{File: "ringside.yaml", Getenv: env.get, Set: set, Drivers: drivers.All()}.Parse([]byte(text))
	var e *Error
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("the error is a %T, want a *Error: %v", err, err)
	}
	var lines []string
	if e != nil {
		for _, p := range e.Problems {
			lines = append(lines, p.String())
		}
	}
	return lines
}

func mustParse(t testing.TB, text string, env environ, set ...string) Config {
	t.Helper()
	c, err := Source{File: "ringside.yaml", Getenv: env.get, Set: set, Drivers: drivers.All()}.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const oneDataset = `
origins:
  db: {driver: sqlite, dsn: test.db}
datasets:
  metrics:
    origin: db
    table: cnf_metrics
    key: cnf_id
`

func TestProblems(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string // each a part of one problem, in order
	}{
		{
			"unknown field", "node: {idd: a}",
			[]string{`ringside.yaml:1:8: node: unknown field "idd"; want one of advertise, id, namespace, zone`},
		},
		{"unknown field at the top", "nodes: 1", []string{`ringside.yaml:1:1: unknown field "nodes"`}},
		{"each unknown field", "a: 1\nb: 2", []string{"1:1", "2:1"}},
		{
			"duplicate key", "memory: auto\nmemory: auto",
			[]string{`ringside.yaml:2:1: mapping key "memory" already defined at [1:1]`},
		},
		{"no YAML", "node: {id: \"a", []string{"ringside.yaml:1:12: "}},
		{"two documents", "memory: auto\n---\nmemory: auto", []string{"holds 2 YAML documents"}},
		{"list for a mapping", "node: [a]", []string{"ringside.yaml:1:7: node: want a mapping; got a list"}},
		{"scalar for a mapping", "node: a", []string{"node: want a mapping; got a single value"}},
		{"mapping for a scalar", "node: {id: {a: b}}", []string{"node.id: want a single value; got a mapping"}},
		{"scalar for a list", "hosts: a", []string{"hosts: want a list; got a single value"}},
		{"tag", "node: {id: !!binary aaaa}", []string{"node.id: want a single value; got a Tag"}},
		{
			"excerpt", "ring:\n  min: many",
			[]string{"ringside.yaml:2:8: ring.min: want a whole number, 0 or more; got \"many\"\n    2 |   min: many\n               ^"},
		},
		{"duration without unit", "drain_timeout: 10", []string{"drain_timeout: want a duration with a unit"}},
		{"negative duration", "drain_timeout: -1s", []string{"drain_timeout: want 0s or more; -1s is negative"}},
		{"long duration", "drain_timeout: 99999999h", []string{"drain_timeout: 99999999h is too long; at most 2562047h"}},
		{"large memory", "memory: 9999999TiB", []string{"memory: 9999999TiB is too large; at most 8388607TiB"}},
		{
			"memory without unit", "memory: 128",
			[]string{"want 1MiB or more; got 128 (a number without a unit is in bytes)"},
		},
		{"client_memory without unit", "client_memory: 128", []string{"client_memory: want 1MiB or more; got 128"}},
		{"alias without anchor", "node: *n", []string{"node: no anchor &n above"}},
		{"alias in its own anchor", "node: &n {<<: *n}", []string{"no anchor &n above"}},
		{
			"merged twice", "datasets: {a: &a {ttl: 1s}, b: {<<: *a, <<: *a}}",
			[]string{`mapping key "<<" already defined`},
		},
		{
			"merged list", "datasets: {a: &a {ttl: 1s}, b: {<<: [*a, *a]}}",
			[]string{"datasets.b: want a mapping; got a list"},
		},
		{"node id", "node: {id: a/b}", []string{"node.id: want letters"}},
		{"node id too long", "node: {id: " + strings.Repeat("a", 254) + "}", []string{"node.id: want letters"}},
		{
			"name too long", "origins: {" + strings.Repeat("a", 64) + ": {driver: sqlite, dsn: a}}",
			[]string{"at most 63"},
		},
		{
			"advertise everywhere", `node: {advertise: "0.0.0.0:7072"}`,
			[]string{"node.advertise: 0.0.0.0:7072 is not an address that other members can dial"},
		},
		{
			"port", "listen: {http: 127.0.0.1:70700}",
			[]string{"listen.http: want host:port or off; the port must be a number from 0 to 65535"},
		},
		{"no port", "listen: {http: 127.0.0.1}", []string{"listen.http: want host:port or off"}},
		{
			"port taken", "listen: {http: 127.0.0.1:7071}",
			[]string{"listen.grpc: port 7071 is also used by listen.http"},
		},
		{
			"port taken by all addresses", "listen: {http: 127.0.0.1:7073}",
			[]string{"listen.metrics: port 7073 is also used by listen.http"},
		},
		{
			"no peer listener", "listen: {peer: off}\nmembership: {static: [\"10.0.0.1:1\"]}",
			[]string{"listen.peer: is off, but there is a membership"},
		},
		{
			"feed without peer listener", "listen: {xds: 127.0.0.1:7074}",
			[]string{"listen.xds: is on, but listen.peer is off"},
		},
		{
			"half a key pair", "peer_tls: {cert_file: /dev/null, ca_file: /dev/null}",
			[]string{"peer_tls: cert_file and key_file belong together"},
		},
		{
			"peer TLS without CA", "peer_tls: {cert_file: /dev/null, key_file: /dev/null}",
			[]string{"peer_tls: mutual TLS needs"},
		},
		{
			"workload API and files", "peer_tls: {workload_api: unix:///a, cert_file: /dev/null, key_file: /dev/null, ca_file: /dev/null}",
			[]string{"peer_tls: has workload_api and files"},
		},
		{"workload API without scheme", "peer_tls: {workload_api: /run/a.sock}", []string{"peer_tls.workload_api: want the URL of a socket"}},
		{
			"identities", "peer_tls: {workload_api: unix:///a, trust_domain: A, cluster: a/b, member_path: /a, client_path: \"/{name}/a\", name: \"a b\"}",
			[]string{
				"peer_tls.trust_domain: want a name", "peer_tls.cluster: want letters", "peer_tls.member_path: want a path",
				"peer_tls.client_path: want a path", "peer_tls.name: want a DNS name",
			},
		},
		{
			"cluster of a prefix", "peer_tls: {workload_api: unix:///a}\nmembership: {etcd: {endpoints: [\"http://e:1\"], prefix: \"/ringside/a b\"}}",
			[]string{"peer_tls.cluster: want letters"},
		},
		{
			"file missing", "peer_tls: {cert_file: /dev/null, key_file: /dev/null, ca_file: /no/ca}",
			[]string{"peer_tls.ca_file: cannot be read: open /no/ca"},
		},
		{
			"both directories", "membership: {static: [\"10.0.0.1:1\"], etcd: {endpoints: [\"http://e:1\"]}}",
			[]string{"membership: set only one of etcd, dns, static and xds"},
		},
		{
			"a list without this member",
			"node: {advertise: \"10.0.0.2:1\"}\nmembership: {static: [\"10.0.0.1:1\", \"10.0.0.2:2\"]}",
			[]string{"ringside.yaml:2:22: membership.static: 10.0.0.2:1 is the address that this member advertises, but it is not in the static list"},
		},
		{
			"lists without anybody", "membership: {static: [], xds: [], etcd: {endpoints: []}}",
			[]string{
				"membership.static: is an empty list, which would leave this sidecar alone",
				"membership.xds: is an empty list", "membership.etcd.endpoints: is an empty list",
			},
		},
		{
			"names of members",
			"node: {advertise: \"a:1\"}\nmembership: {static: [\"a:1\", \"10.0.0.1:1\"]}\nlisten: {xds: 127.0.0.1:7074}",
			[]string{"node.advertise: want ip:port; \"a:1\" has a name", "membership.static[0]: want ip:port; \"a:1\" has a name"},
		},
		{
			"a client that is a member", "membership: {static: [\"10.0.0.1:1\"], xds: [\"10.0.0.1:2\"]}",
			[]string{"membership: set only one of etcd, dns, static and xds"},
		},
		{
			"feed twice", "membership: {xds: [\"10.0.0.1:1\", \"10.0.0.1:1\"]}",
			[]string{"membership.xds[1]: 10.0.0.1:1 is listed twice"},
		},
		{"two directories with DNS", "membership: {dns: a.svc, static: [\"10.0.0.1:1\"]}", []string{"membership: set only one of etcd, dns, static and xds"}},
		{"DNS name with a port", "membership: {dns: \"a.svc:7072\"}", []string{"membership.dns: want a DNS name without a port"}},
		{"address as DNS name", "membership: {dns: 10.0.0.1}", []string{"membership.dns: want a DNS name"}},
		{"DNS server with a name", "membership: {dns: a.svc, dns_server: \"a:53\"}", []string{"membership.dns_server: want ip:port"}},
		{"DNS server without a name to look up", "membership: {dns_server: \"10.0.0.1:53\"}", []string{"membership.dns_server: is set without membership.dns"}},
		{"feed without port", "membership: {xds: [\"feeds\"]}", []string{"membership.xds[0]: want host:port"}},
		{
			"peer listener of a client", "listen: {peer: \"0.0.0.0:7072\"}\nmembership: {xds: [\"10.0.0.1:1\"]}",
			[]string{"listen.peer: is on, but as a client"},
		},
		{"role", "membership: {dns: a.svc, role: owner}", []string{"membership.role: want one of auto, member, client"}},
		{"role of a sidecar that is alone", "membership: {role: client}", []string{"membership: has a role or max_members, but no etcd"}},
		{"member of an xDS publisher", "membership: {xds: [\"10.0.0.1:1\"], role: member}", []string{"membership.role: with membership.xds"}},
		{"zones without a zone", "membership: {dns: a.svc, zones: true}", []string{"1:33: membership.zones: is true, but node.zone is not set"}},
		{"zones of one", "node: {zone: a}\nmembership: {zones: true}", []string{"membership.zones: is true, but there is no etcd or dns"}},
		{
			"zones of a list", "node: {zone: a}\nmembership: {static: [\"127.0.0.1:1\"], zones: true}",
			[]string{"membership.zones: is true, but membership.static does not say in which zone a member is"},
		},
		{"too many members", "membership: {dns: a.svc, max_members: 10001}\nring: {max: 20000}", []string{"membership.max_members: want at most 10000"}},
		{
			"more members than the ring has entries", "membership: {dns: a.svc, max_members: 1025}\nring: {max: 1024}",
			[]string{"1:39: membership.max_members: is 1025, but the ring has at most 1024 entries (ring.max)"},
		},
		{
			"static members beyond the limit", "membership: {static: [\"10.0.0.1:1\", \"10.0.0.2:1\"], role: member, max_members: 1}",
			[]string{"membership.role: is member, but 1 of the listed members are beyond max_members (1)"},
		},
		{
			"etcd without endpoints", "membership: {etcd: {prefix: /a}}",
			[]string{"membership.etcd.endpoints: is missing"},
		},
		{
			"etcd endpoint", "membership: {etcd: {endpoints: [\"http://e:1\", \"e:2379\"]}}",
			[]string{"1:47: membership.etcd.endpoints[1]: want a URL"},
		},
		{
			"etcd prefix", "membership: {etcd: {endpoints: [\"http://e:1\"], prefix: a/}}",
			[]string{"membership.etcd.prefix: want a path"},
		},
		{
			"legacy prefix that ends with a slash", "membership: {etcd: {endpoints: [\"http://e:1\"], legacy_prefix: G/}}",
			[]string{"membership.etcd.legacy_prefix: want the name"},
		},
		{
			"legacy prefix above the prefix", "membership: {etcd: {endpoints: [\"http://e:1\"], legacy_prefix: /ringside}}",
			[]string{"membership.etcd.legacy_prefix: \"/ringside\" and the prefix"},
		},
		{
			"legacy prefix without endpoints", "membership: {etcd: {legacy_prefix: GroupCache}}",
			[]string{"membership.etcd.endpoints: is missing"},
		},
		{
			"lease", "membership: {etcd: {endpoints: [\"http://e:1\"], lease_ttl: 1500ms}}",
			[]string{"membership.etcd.lease_ttl: etcd counts leases in seconds"},
		},
		{
			"etcd password alone", "membership: {etcd: {endpoints: [\"http://e:1\"], password_file: /dev/null}}",
			[]string{"username and password_file belong together"},
		},
		{
			"member twice", "membership: {static: [\"10.0.0.1:1\", \"10.0.0.1:1\"]}",
			[]string{"membership.static[1]: 10.0.0.1:1 is listed twice"},
		},
		{"member without port", "membership: {static: [\"10.0.0.1:0\"]}", []string{"membership.static[0]: 10.0.0.1:0 has no port"}},
		{
			"mistyped addresses", "node: {advertise: \"10.0.0.300:7072\"}\nmembership: {static: [\"10.0.0.300:7072\"]}",
			[]string{"node.advertise: want ip:port", "membership.static[0]: want ip:port"},
		},
		{
			"members that cannot be dialed", "membership: {static: [\"169.254.169.254:80\", \"224.0.0.1:1\", \"[::ffff:127.0.0.1]:1\"]}\nnode: {advertise: \"10.0.0.1:7072\"}",
			[]string{"membership.static[0]: 169.254.169.254:80 is link-local", "membership.static[1]: 224.0.0.1:1 is a multicast",
				"membership.static: 10.0.0.1:7072 is the address", "membership.static[2]: 127.0.0.1:1 is a loopback address"},
		},
		{
			"publishers that cannot be dialed", "membership: {xds: [\"10.0.0.300:7074\", \"0.0.0.0:7074\", \":7074\", \"a:0\", \"[fe80::1%eth0]:7074\"]}",
			[]string{"membership.xds[0]: want host:port", "membership.xds[1]: 0.0.0.0:7074 is not", "membership.xds[2]: want host:port",
				"membership.xds[3]: port 0", "membership.xds[4]: "},
		},
		{"mistyped listener", "listen: {http: \"10.0.0.300:7070\"}", []string{"listen.http: want host:port or off"}},
		{"ring", "ring: {min: 5000}", []string{"ring.min: 5000 is more than ring.max, which is 4096"}},
		{"ring too large", "ring: {max: 9000000}", []string{"ring.max: at most 8388608"}},
		{"host", "hosts: [\"a:80\"]", []string{"hosts[0]: want a host name without port"}},
		{
			"log", "log: {format: xml, level: loud}",
			[]string{"log.format: want one of json, console", "log.level: want one of debug"},
		},
		{
			"origin", "origins: {DB: {driver: oracle}}",
			[]string{`got "DB"`, "origins.DB.driver: want one of postgres, mysql, sqlite, http, etcd", "origins.DB: set either dsn_file"},
		},
		{"no driver", "origins: {db: {dsn: a}}", []string{"origins.db.driver: is missing"}},
		{
			"two connection strings", "origins: {db: {driver: sqlite, dsn: a, dsn_file: b}}",
			[]string{"origins.db: set either dsn_file"},
		},
		{
			"empty dsn_file", "origins: {db: {driver: sqlite, dsn_file: /dev/null}}",
			[]string{"origins.db.dsn_file: /dev/null is empty"},
		},
		{
			"no dsn_file", "origins: {db: {driver: sqlite, dsn_file: /no/dsn}}",
			[]string{"origins.db.dsn_file: cannot be read: no such file or directory; want the path of a file"},
		},
		{
			"a connection string for dsn_file", "origins: {db: {driver: sqlite, dsn_file: \"postgres://u:p@h/db\"}}",
			[]string{"origins.db.dsn_file: contains a connection string, not a path: put it into a file, or use dsn"},
		},
		{
			"a secret that YAML takes for an alias", "origins: {db: {driver: postgres, dsn: *p}}",
			[]string{"ringside.yaml:1:39: origins.db.dsn: no such anchor above; quote a value that begins with *"},
		},
		{
			"connection string of another driver", "origins: {db: {driver: mysql, dsn: \"postgres://u@h/db\"}}",
			[]string{`origins.db: this is not a DSN of MySQL`},
		},
		{
			"parameter of another driver", "origins: {db: {driver: sqlite, dsn: a}}\ndatasets: {a: {origin: db, query: SELECT $1}}",
			[]string{`datasets.a: query must compare the key with its parameter, ?`},
		},
		{
			"removed field", "origins: {db: {driver: sqlite, dsn: a, batch: {max_wait: 500us}}}",
			[]string{`ringside.yaml:1:48: origins.db.batch: "max_wait" was removed: a load waits only while max_in_flight statements run`},
		},
		{
			"breaker", "origins: {db: {driver: sqlite, dsn: a, breaker: {cooldown: 0s}}}",
			[]string{"cooldown: must be more than 0s"},
		},
		{
			"empty dataset", "datasets:\n  a:",
			[]string{"ringside.yaml:2:6: datasets.a.origin: is missing; want one of the origins: there are none", "datasets.a: set either table"},
		},
		{
			"unknown origin", oneDataset + "  b: {origin: dc, query: SELECT 1}",
			[]string{`datasets.b.origin: no origin is named "dc"; the origins are: db`},
		},
		{
			"table and query", oneDataset + "    query: SELECT 1",
			[]string{"datasets.metrics.query: set either table or query"},
		},
		{"table without key", oneDataset + "  b: {origin: db, table: t}", []string{"datasets.b.key: is missing"}},
		{
			"query with columns", oneDataset + "  b: {origin: db, query: SELECT 1, columns: [k]}",
			[]string{"datasets.b.columns: belongs to table"},
		},
		{
			"fields of databases in a dataset of a service", service("version: v, writable: true, columns: [a], feed: {kind: poll}, value: c, headers: {X: a}"),
			[]string{"datasets.a.columns: belongs to SQL databases", "datasets.a.value: belongs to SQL databases",
				"datasets.a.version: driver: http has no column that grows", "datasets.a.url: is missing",
				"datasets.a.feed: driver: http reports no changes: leave feed out", "datasets.a.headers: the fields are columns of a row"},
		},
		{
			"writable service", service("url: '/{key}', writable: true"),
			[]string{"datasets.a: origins of this kind cannot be written: leave writable out; write in the service itself, and invalidate the key"},
		},
		{
			"warm-up of a service", service("url: '/{key}', warm: {keys: all}"),
			[]string{"datasets.a: origins of this kind cannot list their keys: leave warm and list out"},
		},
		{"service without a URL", service("ttl: 1s"), []string{"datasets.a.url: is missing; want the path and query of a key"}},
		{"URL with a host", service("url: 'https://host/{key}'"), []string{"datasets.a: url: want a path that begins with one slash"}},
		{
			"responses of a service", service("url: '/{key}', preset: x, response: {not_found: [404, 200], invalid: [x], cache_control: y}"),
			[]string{"datasets.a.preset: want one of prometheus", "datasets.a.response.cache_control: want one of honor, ignore",
				`datasets.a.response.not_found: want 204, or status codes from 400 to 499, which say something about the key; got "200"`,
				"datasets.a.response.invalid: want 204"},
		},
		{
			"URL in a dataset of a database", oneDataset + "  b: {origin: db, url: '/{key}'}",
			[]string{"datasets.b: url, preset and response belong to an origin with driver: http, prefix to one with driver: etcd"},
		},
		{
			"prefix in a dataset of a database", oneDataset + "  b: {origin: db, prefix: /b/}",
			[]string{"datasets.b: url, preset and response belong to an origin with driver: http, prefix to one with driver: etcd"},
		},
		{"prefix of a service over HTTP", service("url: '/{key}', prefix: /a/"), []string{"datasets.a.prefix: belongs to an origin with driver: etcd"}},
		{"etcd without a prefix", ofEtcd("ttl: 1s"), []string{"datasets.a: prefix: is missing; want the beginning of the keys in etcd"}},
		{"prefix of several datasets", ofEtcd("prefix: /a"), []string{"datasets.a: prefix: want a separator at its end"}},
		{
			"fields of others in a dataset of etcd", ofEtcd("prefix: /a/, url: '/{key}', key: k, version: v, table: t, warm: {keys: SELECT 1}, " +
				"feed: {kind: watch, tables: {t: k}}"),
			[]string{"datasets.a.table: belongs to SQL databases; a dataset of driver: etcd has prefix",
				"datasets.a: key and version belong to SQL databases; the key is what follows the prefix", "datasets.a: url, preset and response belong",
				"datasets.a.feed.tables: belongs to SQL databases", "datasets.a.warm.keys: want all, for the keys of the prefix"},
		},
		{
			"feed of a database for etcd", ofEtcd("prefix: /a/, feed: {kind: poll}"),
			[]string{"datasets.a.feed.kind: s is etcd, which has no feed of kind poll; use watch"},
		},
		{
			"feed of etcd for a database", oneDataset + "  b: {origin: db, table: t, key: k, feed: {kind: watch}}",
			[]string{"datasets.b.feed.kind: db is sqlite, which has no feed of kind watch; use poll"},
		},
		{
			"writable etcd", ofEtcd("prefix: /a/, writable: true"),
			[]string{"datasets.a: origins of this kind cannot be written: leave writable out; write in the service itself, and invalidate the key"},
		},
		{
			"token for etcd", "origins: {s: {driver: etcd, dsn: 'http://127.0.0.1:1', token_file: /dev/null}}",
			[]string{"origins.s"},
		},
		{
			"credentials of a service for a database", "origins: {db: {driver: sqlite, dsn: a, token_file: /dev/null}}",
			[]string{"origins.db: username, password_file, token_file and tls belong to services such as driver: http or etcd"},
		},
		{
			"a token in the DSN of a service", "origins: {s: {driver: http, dsn: 'https://u:p@host'}}",
			[]string{"origins.s: the dsn has a user or a password: use token_file"},
		},
		{
			"a token for its file", "origins: {s: {driver: http, dsn: 'https://host', token_file: /no/such}}",
			[]string{"origins.s.token_file: cannot be read: no such file or directory"},
		},
		{
			"composite key of a query", oneDataset + "  b: {origin: db, query: SELECT a FROM t WHERE a = ?, key: [a, b]}",
			[]string{"datasets.b: query must compare the key column a with its parameter, ?"},
		},
		{
			"too many columns of a key", oneDataset + "  b: {origin: db, table: t, key: [a, b, c, d, e]}",
			[]string{"datasets.b: key has 5 columns; at most 4 are allowed"},
		},
		{
			"a column of a key twice", oneDataset + "  b: {origin: db, table: t, key: [a, a]}",
			[]string{"datasets.b: key names a column twice"},
		},
		{
			"typed service with a composite key", oneDataset + "  b: {origin: db, table: t, key: [a, b]}\ncnf_metrics: b",
			[]string{"cnf_metrics: the dataset b needs table and a key of one column"},
		},
		{
			"table with batch", oneDataset + "    batch: SELECT 1",
			[]string{"datasets.metrics.batch: belongs to query"},
		},
		{
			"value and columns", oneDataset + "    value: a\n    columns: [a, b]",
			[]string{"datasets.metrics.value: set either value"},
		},
		{
			"copies outlive", oneDataset + "    ttl: 1s\n    local_ttl: 2s",
			[]string{"datasets.metrics.local_ttl: 2s exceeds ttl, which is 1s"},
		},
		{"no ttl", oneDataset + "    ttl: 0s", []string{"datasets.metrics.ttl: must be more than 0s"}},
		{
			"no load timeout", oneDataset + "    load_timeout: 0s",
			[]string{"datasets.metrics.load_timeout: must be more"},
		},
		{
			"load timeout that overflows", oneDataset + "    load_timeout: 2562047h",
			[]string{"datasets.metrics.load_timeout: must be more than 0s, at most 1h"},
		},
		{"jitter", oneDataset + "    ttl_jitter: 101%", []string{"ttl_jitter: want a percentage from 0% to 100%"}},
		{
			"unknown caller", oneDataset + "    allow: {read: [loopback, lopback]}",
			[]string{`datasets.metrics.allow.read[1]: want loopback, unix,`},
		},
		{
			"identity that never matches", oneDataset + "    allow: {invalidate: [\"spiffe://Example.org/a\"]}",
			[]string{`datasets.metrics.allow.invalidate[0]: want spiffe://trust-domain/path`},
		},
		{
			"unknown token", oneDataset + "    allow: {read: [\"token:deploy\"]}",
			[]string{`datasets.metrics.allow.read[0]: no token has this name; the tokens are: none`},
		},
		{
			"who may write a read-only dataset", oneDataset + "    allow: {write: [unix]}",
			[]string{"datasets.metrics.allow.write: belongs to writable: true"},
		},
		{
			"missing token file", "tokens: {a: {file: /does/not/exist}, b: {}, C: {file: /does/not/exist}}",
			[]string{
				"tokens: want a name of lower-case letters", "tokens.C.file: the file cannot be read: no such file",
				"tokens.a.file: the file cannot be read: no such file", "tokens.b.file: is missing",
			},
		},
		{
			"rate", oneDataset + "    limits: {no_cache: 100, write: 1/d}",
			[]string{"datasets.metrics.limits.no_cache: want a rate", "datasets.metrics.limits.write: want a rate"},
		},
		{"relative audit log", "audit: {file: audit.log}", []string{"audit.file: want an absolute path, or stdout"}},
		{"content type", oneDataset + "    content_type: text", []string{`datasets.metrics.content_type: "text" is not a media type`}},
		{"field in content type", oneDataset + `    content_type: "text/html; a=\"\r\nX: y\""`, []string{"is not a media type"}},
		{"letters in content type", oneDataset + `    content_type: "text/html; a=\"é\""`, []string{"is not a media type"}},
		{"eviction", oneDataset + "    eviction: fifo", []string{"datasets.metrics.eviction: want one of lru, slru"}},
		{
			"no memory", oneDataset + "    memory_share: 0%",
			[]string{"datasets.metrics.memory_share: must be more than 0%"},
		},
		{
			"too much memory", oneDataset + "    memory_share: 60%\n  b: {origin: db, table: t, key: k, memory_share: 50%}",
			[]string{"datasets: the memory_share fields of all datasets add up to 110%"},
		},
		{
			"no memory left", oneDataset + "    memory_share: 100%\n  b: {origin: db, table: t, key: k}",
			[]string{"nothing is left for the datasets without one"},
		},
		{"tab", "origins:\n\tdb: {driver: sqlite}", []string{"2:1: YAML takes no tab for indentation; use spaces"}},
		{"byte order mark", "\ufefflog: {level: loud}", []string{"ringside.yaml:1:14: log.level"}},
		{"switch", "pprof: 1", []string{"pprof: want true or false"}},
		{
			"missing variable", "node: {id: \"${NO_SUCH}\"}",
			[]string{"ringside.yaml:1:12: node.id: the environment variable NO_SUCH is not set"},
		},
		{
			"many at once", "ring: {min: 5000}\nhosts: [\"a:80\"]\nlog: {level: loud}",
			[]string{"1:13: ring.min", "2:9: hosts[0]", "3:14: log.level"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := problemsOf(t, test.text, nil, insecureUnlessTLS(test.text)...)
			if len(got) != len(test.want) {
				t.Fatalf("got %d problems, want %d: %q", len(got), len(test.want), got)
			}
			for i, want := range test.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("got  %q\nwant %q in it", got[i], want)
				}
			}
		})
	}
}

// insecureUnlessTLS is for texts that are about something else.
func insecureUnlessTLS(text string) []string {
	if strings.Contains(text, "peer_tls:") {
		return nil
	}
	return []string{"peer_tls.insecure=true"}
}

func TestClusterNeedsTLSOrInsecure(t *testing.T) {
	const static, etcd, xds = `membership: {static: ["10.0.0.1:1"]}`, `membership: {etcd: {endpoints: ["http://e:1"]}}`, `membership: {xds: ["10.0.0.1:1"]}`
	for _, text := range []string{static, etcd, xds, `listen: {peer: "127.0.0.1:7072"}`} {
		got := problemsOf(t, text, nil)
		if len(got) != 1 || !strings.Contains(got[0], "peer_tls: is missing") || !strings.Contains(got[0], "insecure: true") {
			t.Errorf("%s: got %q, want one problem that names peer_tls and insecure", text, got)
		}
		if got := problemsOf(t, text, nil, "peer_tls.insecure=true"); len(got) != 0 {
			t.Errorf("%s, insecure: got %q, want no problem", text, got)
		}
	}
	if got := problemsOf(t, "", nil); len(got) != 0 {
		t.Errorf("alone: got %q, want no problem", got)
	}
	both := problemsOf(t, "peer_tls: {insecure: true, cert_file: /dev/null, key_file: /dev/null, ca_file: /dev/null}", nil)
	if len(both) != 1 || !strings.Contains(both[0], "peer_tls.insecure: is true, but peer_tls also has fields of mutual TLS") {
		t.Errorf("insecure with a certificate: got %q", both)
	}
}

func TestWorkloadAPIOfTheEnvironmentIsUsedInAClusterWithoutFiles(t *testing.T) {
	const static = `membership: {static: ["10.0.0.1:1"]}`
	env := environ{"SPIFFE_ENDPOINT_SOCKET": "unix:///agent.sock"}
	for text, want := range map[string]string{
		static: "unix:///agent.sock", "": "",
		static + "\npeer_tls: {workload_api: \"unix:///own.sock\"}":                            "unix:///own.sock",
		static + "\npeer_tls: {cert_file: /dev/null, key_file: /dev/null, ca_file: /dev/null}": "",
		static + "\npeer_tls: {insecure: true}":                                                "",
	} {
		if got := mustParse(t, text, env).PeerTLS.WorkloadAPI; got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

// Two namespaces with the same configuration are two rings, unless it names the prefix.
func TestDefaultPrefixHasTheNamespace(t *testing.T) {
	for prefix, want := range map[string]string{"": "/ringside/apps", "prefix: /ringside/all": "/ringside/all"} {
		text := `membership: {etcd: {endpoints: ["http://e:1"], ` + prefix + `}}`
		env := environ{"RINGSIDE_NODE_NAMESPACE": "apps"}
		if got := mustParse(t, text+"\npeer_tls: {insecure: true}", env).Effective().Membership.Etcd.Prefix; got != want {
			t.Errorf("%s: got the prefix %s, want %s", text, got, want)
		}
	}
	const wrong = "node: {namespace: a/b}"
	if got := problemsOf(t, wrong, nil); len(got) != 1 || !strings.Contains(got[0], "node.namespace: want a namespace of Kubernetes") {
		t.Errorf("%s: got %q, want one problem", wrong, got)
	}
}

func TestClusterIDIsThatOfThePrefix(t *testing.T) {
	for text, want := range map[string]string{
		`membership: {etcd: {endpoints: ["http://e:1"], prefix: /ringside/apps}}`: "apps",
		`membership: {static: ["10.0.0.1:1"]}`:                                    "default",
		"node: {namespace: apps}\nmembership: {static: [\"10.0.0.1:1\"]}":         "apps",
	} {
		c := mustParse(t, text+"\npeer_tls: {workload_api: \"unix:///a\"}", nil)
		if got := c.Effective().PeerTLS; got.Cluster != want || got.MemberPath != "/ringside/{cluster}/member/{id}" {
			t.Errorf("%s: got %+v, want the cluster %q", text, got, want)
		}
	}
}

func TestVariablesExpandInValuesOnly(t *testing.T) {
	env := environ{"EVIL": "a\nmemory: 1GiB", "N": "64"}
	c := mustParse(t, "node: {zone: \"${EVIL}\"}\nring: {min: \"${N}\"} # ${COMMENT}", env)
	if c.Node.Zone != env["EVIL"] || c.Memory != 0 || c.Ring.Min != 64 {
		t.Errorf("got %+v", c)
	}
}

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	const text = oneDataset + "    ttl: 2s\nlisten: {grpc: 127.0.0.1:2, peer: 127.0.0.1:2000, admin: 127.0.0.1:2001}\npeer_tls: {insecure: true}"
	env := environ{
		"RINGSIDE_LISTEN_PEER": "127.0.0.1:3000", "RINGSIDE_LISTEN_ADMIN": "127.0.0.1:3001",
		"RINGSIDE_DATASETS_METRICS_TTL": "3s",
		"RINGSIDE_SERVICE_HOST":         "10.0.0.1", "RINGSIDE_HOSTS": "a, b",
	}
	c := mustParse(t, text, env, "listen.admin=127.0.0.1:4001", "datasets.metrics.stale_if_error=4m")
	got := []string{c.Listen.http(), c.Listen.grpc(), c.peerListen(), c.Listen.admin()}
	want := []string{"127.0.0.1:7070", "127.0.0.1:2", "127.0.0.1:3000", "127.0.0.1:4001"}
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(c.Hosts, []string{"a", "b"}) {
		t.Errorf("got %v and hosts %v, want %v", got, c.Hosts, want)
	}
	if p := c.Datasets["metrics"].Policy(); p.TTL != 3*time.Second || p.StaleIfError != 4*time.Minute {
		t.Errorf("got %+v", p)
	}
}

func TestProblemsOfOverridesNameTheirSource(t *testing.T) {
	got := problemsOf(t, "memory: auto", environ{"RINGSIDE_RING_MIN": "5000"}, "log.level=loud")
	want := []string{"RINGSIDE_RING_MIN: ring.min: 5000", "--set log.level: log.level: want one of"}
	for i := range want {
		if len(got) != len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	for _, set := range []string{"nonsense", "a.b=1", "node=a", "node.id.x=a", "=", "memory=lots", "hosts=a:1"} {
		if got := problemsOf(t, "", nil, set); len(got) != 1 || !strings.HasPrefix(got[0], "--set") {
			t.Errorf("--set %s: got %q", set, got)
		}
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	c := mustParse(t, `
origins: {db: {driver: sqlite, dsn: a}}
datasets:
  a: &a {origin: db, table: t, key: k, ttl: 2s, negative_ttl: 3s}
  b: {ttl: 4s, <<: *a}
  c: *a
`, nil)
	a, b := c.Datasets["a"].Policy(), c.Datasets["b"].Policy()
	if b.TTL != 4*time.Second || b.NegativeTTL != 3*time.Second || c.Datasets["c"].Policy() != a {
		t.Errorf("got %+v", c.Datasets)
	}
	if *c.Datasets["a"].TTL != 2*time.Second {
		t.Error("the field that b overrides changed in a, which it was merged from")
	}
}

// The YAML library reads an unquoted 007 as the number 7.
func TestDigitsOfPasswordsStay(t *testing.T) {
	c := mustParse(t, "origins: {db: {driver: sqlite, dsn: 007}}", nil)
	if got := c.Origins["db"].DSN.Reveal(); got != "007" {
		t.Errorf("got %q, want 007", got)
	}
}

// alternative is a line of the example that shows a default or another choice.
var alternative = regexp.MustCompile(`(?m)^(\s*)#(\S)`)

func TestWhatIsPrintedCanBeReadAgain(t *testing.T) {
	c := mustParse(t, Example, environ{})
	for _, asJSON := range []bool{false, true} {
		text, err := c.Effective().Print(asJSON)
		if err != nil {
			t.Fatal(err)
		}
		mustParse(t, string(text), environ{})
	}
}

// The commented lines are valid when the comment marks are removed, except alternatives of a neighboring line.
func TestExampleIsValidWithAllBlocks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	choice := regexp.MustCompile(`(?m)^  #insecure: .*|^  #workload_api: .*|^    #dsn_file: .*|^    #token_file: .*|^    #preset: .*|^      #channel: .*|^      #publication: .*|^      #max_wal: .*|^  #dns.*|^  #static: .*|^  #xds: .*:7074"\]`)
	text := alternative.ReplaceAllString(choice.ReplaceAllString(Example, ""), "$1$2")
	text = regexp.MustCompile(`/etc/ringside/.*`).ReplaceAllLiteralString(text, file)
	text = strings.NewReplacer("writable: false", "writable: true", `username: ""`, "username: u").Replace(text)
	for ip, want := range map[string]string{"10.0.0.1": "10.0.0.1:7072", "2001:db8::1": "[2001:db8::1]:7072"} {
		c := mustParse(t, text, environ{"POD_NAME": "pod-1", "POD_IP": ip})
		if c.Datasets["routes"].Batch == "" || c.CNFMetrics == "" || len(c.Membership.Etcd.Endpoints) == 0 {
			t.Errorf("not all is taken: %+v", c)
		}
		if c.Node.Advertise != want {
			t.Errorf("node.advertise is %s; want %s", c.Node.Advertise, want)
		}
	}
}

func TestExampleIsValidAsItIs(t *testing.T) {
	mustParse(t, Example, environ{})
}

// The examples of services in CONFIG.md are valid.
func TestDocumentedServicesAreValid(t *testing.T) {
	text, err := os.ReadFile("CONFIG.md")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(block[1], "driver: http") && !strings.Contains(block[1], "driver: etcd") {
			continue
		}
		n++
		c := mustParse(t, regexp.MustCompile(`/etc/ringside/[a-z/.]*`).ReplaceAllLiteralString(block[1], file), environ{})
		if len(c.Datasets) == 0 {
			t.Errorf("%s: no datasets", block[1])
		}
	}
	if n < 2 {
		t.Error("CONFIG.md lacks an example of services over HTTP, or of etcd")
	}
}

// allShown decodes the example with everything that is commented out.
func allShown(t *testing.T) (c Config, places *decode.Places) {
	t.Helper()
	text := []byte(alternative.ReplaceAllString(Example, "$1$2"))
	getenv := func(name string) (string, bool) { return "x", !strings.HasPrefix(name, "RINGSIDE_") }
	places, problems := decode.Source{Text: text, Getenv: getenv, Prefix: "RINGSIDE_"}.Into(&c)
	if len(problems) > 0 {
		t.Fatal(&Error{Problems: problems})
	}
	return c, places
}

func TestExampleShowsEveryField(t *testing.T) {
	shown, places := allShown(t)
	inExample := map[string]bool{}
	for path := range decode.Leaves(shown) {
		parent := path[:max(0, strings.LastIndex(path, "."))]
		// A field that is not in the file has the place of its parent.
		if places.Problem(path, "").Where != places.Problem(parent, "").Where {
			inExample[strings.NewReplacer("metrics-db", "*", "cnf-metrics", "*", "routes", "*", "replies", "*", "nf-instances", "*", "nrf", "*", "settings", "*", "config", "*").Replace(path)] = true
		}
	}
	every := Config{Origins: map[string]Origin{"*": {}}, Datasets: map[string]Dataset{"*": {}}}
	for path := range decode.Leaves(every) {
		if !inExample[path] {
			t.Errorf("the example does not show %s", path)
		}
	}
}

// Values that the example shows as defaults are the defaults.
func TestExampleShowsTheDefaults(t *testing.T) {
	var zero Config
	shown, _ := allShown(t)
	for path, values := range map[string][2]any{
		"listen.http":    {shown.Listen.http(), zero.Listen.http()},
		"listen.grpc":    {shown.Listen.grpc(), zero.Listen.grpc()},
		"listen.metrics": {shown.Listen.metrics(), zero.Listen.metrics()},
		"listen.admin":   {shown.Listen.admin(), zero.Listen.admin()},
		"etcd.prefix":    {shown.etcdPrefix(), zero.etcdPrefix()},
		"etcd.lease_ttl": {shown.Membership.Etcd.leaseTTL(), zero.Membership.Etcd.leaseTTL()},
		"ring.min":       {shown.Ring.min(), zero.Ring.min()},
		"ring.max":       {shown.Ring.max(), zero.Ring.max()},
		"drain_timeout":  {shown.drainTimeout(), zero.drainTimeout()},
		"log.format":     {shown.Log.format(), zero.Log.format()},
		"log.level":      {shown.Log.level(), zero.Log.level()},
		"eviction":       {shown.Datasets["cnf-metrics"].eviction(), Dataset{}.eviction()},
		"writable":       {shown.Datasets["cnf-metrics"].Writable, Dataset{}.Writable},
		"feed.table":     {shown.Datasets["cnf-metrics"].Feed.table(), ChangeFeed{}.table()},
		"feed.interval":  {shown.Datasets["cnf-metrics"].Feed.interval(), ChangeFeed{}.interval()},
		"feed.keep":      {shown.Datasets["cnf-metrics"].Feed.keep(), ChangeFeed{}.keep()},
		"feed.keep_rows": {shown.Datasets["cnf-metrics"].Feed.keepRows(), ChangeFeed{}.keepRows()},
	} {
		if values[0] != values[1] {
			t.Errorf("%s: the example shows %v, the default is %v", path, values[0], values[1])
		}
	}
	o, def := shown.Origins["metrics-db"], Origin{}
	o.Driver, o.DSN, o.DSNFile = "", Secret{}, ""
	if got, want := o.effective(), def.effective(); !reflect.DeepEqual(got, want) {
		t.Errorf("origin: the example shows %+v, the defaults are %+v", got, want)
	}
	p, defaults := shown.Datasets["cnf-metrics"].Policy(), Dataset{}.Policy()
	p.TTL, p.StaleIfError = defaults.TTL, defaults.StaleIfError // live in the example, with values of its own
	defaults.GapTTL = defaultGapTTL                             // of a dataset with a feed, as the example's is now
	if p != defaults {
		t.Errorf("policy: the example shows %+v, the default is %+v", p, defaults)
	}
}

// service returns a configuration with a dataset of a service.
func service(fields string) string {
	return "origins: {s: {driver: http, dsn: 'http://127.0.0.1:1'}}\ndatasets: {a: {origin: s, " + fields + "}}"
}

// ofEtcd returns a configuration with a dataset of etcd.
func ofEtcd(fields string) string {
	return "origins: {s: {driver: etcd, dsn: 'http://127.0.0.1:1'}}\ndatasets: {a: {origin: s, " + fields + "}}"
}

const canary = "canary-5f3a"

func TestNoPrinterShowsASecret(t *testing.T) {
	config := Config{Origins: map[string]Origin{"db": {DSN: decode.NewSecret(canary)}}}
	wrapped := struct{ inner struct{ s Secret } }{struct{ s Secret }{decode.NewSecret(canary)}}
	var logs strings.Builder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(&logs), zap.DebugLevel)
	log := zap.New(core)
	for _, v := range []any{decode.NewSecret(canary), new(decode.NewSecret(canary)), config, &config, config.Origins, wrapped, &wrapped} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&logs, verb, v)
		}
		asJSON, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		asYAML, err := yaml.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		logs.Write(asJSON)
		logs.Write(asYAML)
		log.Info("x", zap.Any("v", v), zap.Reflect("r", v))
		log.Sugar().Infof("%v %+v", v, v)
		slog.New(slog.NewTextHandler(&logs, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&logs, nil)).Info("x", "v", v)
	}
	if !strings.Contains(logs.String(), "[hidden]") {
		t.Error("nothing was printed")
	}
	for _, trace := range []string{canary, fmt.Sprintf("%x", canary)} {
		if i := strings.Index(logs.String(), trace); i >= 0 {
			t.Errorf("a printer shows the secret: …%.120s", logs.String()[max(0, i-60):])
		}
	}
}

func TestNoErrorShowsASecret(t *testing.T) {
	for _, text := range []string{
		"origins: {db: {driver: sqlite, dsn: " + canary + ", max_cons: 4}}",
		"origins: {db: {driver: sqlite, dsn: " + canary + ", max_conns: many}}",
		"origins:\n  db:\n    dsn: " + canary + "\n    driver: oracle\n    max_conns: x",
		"origins:\n  db:\n    dsn: [" + canary + "]",
		"origins:\n  db:\n    dsn: {a: " + canary + "}",
		"origins:\n  db:\n    DSN: " + canary,
		"origins:\n  db:\n    dsn: \"" + canary,
		"origins:\n  db:\n    dsn: a: b: " + canary,
		"origins:\n  db:\n    dsn: >\n      " + canary + "\n     @bad\n",
		"origins:\n  db:\n    dsn: \"postgres://\n      " + canary + "\n",
		"origins:\n  db:\n    dsn: \"${NO_SUCH}" + canary + "\"",
		"origins:\n  db:\n    dsn: |\n      abc\n   " + canary + "\n",
		"origins:\n  db:\n    dsn:\n      [" + canary + "]\n",
		"origins: {db: {driver: sqlite, dsn: " + canary + ", dsn_file: /no}}",
		"membership: {etcd: {password: " + canary + "}}",
		"membership: {etcd: {endpoints: [\"http://user:" + canary + "@h h\"]}}",
		"origins: {db: \"postgres://user:" + canary + "@host/db\"}",
		"origins:\n  db: user:" + canary + "@tcp(host:3306)/db",
		"origins: {db: {driver: postgres, dsn_file: \"postgres://u:" + canary + "@h/db\"}}",
		"origins:\n  db:\n    driver: postgres\n    dsn_file: host=h password=" + canary,
		"origins: {db: {driver: postgres, dsn_file: " + canary + "}}",
		"origins: {db: {driver: \"postgres://u:" + canary + "@h\", dsn: a}}",
		"origins:\n  db:\n    driver: host=h password=" + canary + "\n    dsn: a",
		"origins: {db: {driver: postgres, dsn: *" + canary + "}}",
		"origins:\n  db:\n    driver: postgres\n    dsn_file:\n      *" + canary + "\n",
		"origins: {db: {driver: postgres, dsn: u," + canary + "}}",
		"origins:\n  db:\n    dsn: |" + canary + "\n",
		"membership: {etcd: {endpoints: [\"http://e:1\"], username: u, password_file: " + canary + "}}",
		"membership: {etcd: {endpoints: [\"http://e:1\"], username: u, password_file: *" + canary + "}}",
		"membership:\n  etcd:\n    username: u\n    password_file: >" + canary,
		"tokens: {deploy: {file: " + canary + "}}",
		"tokens:\n  deploy:\n    file: " + canary,
		"tokens: {deploy: " + canary + "}",
		"tokens: {deploy: {token: " + canary + "}}",
		oneDataset + "    allow: {read: [\"token:" + canary + "\"]}",
		oneDataset + "    allow:\n      read:\n        - token:" + canary + "_",
	} {
		got := problemsOf(t, text, nil)
		if len(got) == 0 {
			t.Errorf("no problem with %q", text)
		}
		if strings.Contains(strings.Join(got, "\n"), canary) {
			t.Errorf("for\n%s\nthe error shows the secret:\n%s", text, strings.Join(got, "\n"))
		}
	}
}

func TestSizesAndShares(t *testing.T) {
	for text, want := range map[string]Size{
		"auto": 0, "128MiB": 128 << 20, "1.5GiB": 3 << 29, "100MB": 1e8, "64Mi": 64 << 20, "1TiB": 1 << 40,
		"1048576": 1 << 20, " 2 KiB ": 2048,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("size %q = %d, %v; want %d", text, s, err, want)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("size %d is printed as %s", s, s)
		}
	}
	for _, text := range []string{"-1MiB", "0", "MiB", "1PiB", "NaN", "InfGiB", "1e30GiB", "0.1B"} {
		if err := new(Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("size %q is accepted", text)
		}
	}
	for text, want := range map[string]Share{"0%": 0, "10%": .1, "100%": 1, "0.25": .25, "12.5%": .125} {
		var s Share
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("share %q = %v, %v; want %v", text, s, err, want)
		}
	}
	for _, text := range []string{"-1%", "101%", "2", "NaN", "%", ""} {
		if err := new(Share).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("share %q is accepted", text)
		}
	}
}

func TestMissingFileSaysHowToMakeOne(t *testing.T) {
	_, err := Source{File: filepath.Join(t.TempDir(), "ringside.yaml"), Getenv: environ{}.get}.Load()
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "ringside config example > ringside.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestFileTooLargeIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ringside.yaml")
	if err := os.WriteFile(file, []byte(strings.Repeat("# comment\n", maxFile/10+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Source{File: file, Getenv: environ{}.get}).Load(); err == nil {
		t.Error("a file above the bound is read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example)
	f.Add(alternative.ReplaceAllString(Example, "$1$2"))
	f.Add(oneDataset)
	f.Add("a: &a [*a]")
	f.Add("datasets: {a: &b {<<: *b, <<: [*b]}}")
	f.Add("node: {id: \"${A}$${B}$\"}\nmemory: !!int 1\nhosts: [~, 1, .inf]")
	f.Add("? a\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		env := environ{"A": "a"}
		c, err := Source{File: "f.yaml", Getenv: env.get, Drivers: drivers.All()}.Parse([]byte(text))
		if err != nil {
			if e := (&Error{}); !errors.As(err, &e) || len(e.Problems) == 0 || err.Error() == "" {
				t.Fatalf("the error is %T: %v", err, err)
			}
			return
		}
		if err := c.Check(drivers.All()); err != nil {
			t.Errorf("Parse accepts the file, but Check of the result returns %v", err)
		}
	})
}

// Members get the invalidations of what they keep, so that copies for a zone, which live for their ttl, need longer subscriptions.
func TestCopiesForAZoneLiveForTheirTTL(t *testing.T) {
	const datasets = "node: {zone: a}\norigins: {o: {driver: sqlite, dsn: a.db}}\n" +
		"datasets: {d: {origin: o, table: t, key: k, ttl: 2m, local_ttl: 3s}}\npeer_tls: {insecure: true}\n"
	for _, tt := range []struct {
		membership       string
		copies, receives time.Duration
	}{
		{"membership: {dns: a.svc}", 3 * time.Second, 30 * time.Second},
		{"membership: {dns: a.svc, zones: true}", 2 * time.Minute, 2 * time.Minute},
		{"membership: {dns: a.svc, zones: true, role: client}", 3 * time.Second, 30 * time.Second},
	} {
		c := mustParse(t, datasets+tt.membership, nil)
		if c.CopyLife() != tt.copies || c.SubscriptionIdle() != tt.receives {
			t.Errorf("%s: got copies of %v and subscriptions of %v, want %v and %v", tt.membership, c.CopyLife(), c.SubscriptionIdle(), tt.copies, tt.receives)
		}
	}
}
