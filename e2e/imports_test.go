package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ringside-cache/ringside/"

// mayImport is the map of the repository: which of our packages each package may import. Arrows go down only. To add an
// import, change its row here, and say in the commit why the arrow is worth it.
var mayImport = map[string][]string{
	// Leaves.
	"ring":                         {},
	"ring/address":                 {},
	"ring/printable":               {},
	"ring/routekey":                {},
	"origin":                       {},
	"proto/ringside/v1":            {},
	"proto/ringside/peer/v1":       {},
	"proto/groupcachepb":           {},
	"proto/cnfmetrics/v1":          {},
	"sidecar/internal/lru":         {"sidecar/internal/stripe"},
	"sidecar/internal/flight":      {},
	"sidecar/internal/stripe":      {},
	"sidecar/internal/ttlmap":      {},
	"sidecar/internal/hotkeys":     {"sidecar/internal/ttlmap"},
	"sidecar/internal/broadcast":   {},
	"sidecar/internal/coalesce":    {},
	"sidecar/internal/watches":     {},
	"sidecar/internal/silence":     {},
	"sidecar/internal/idempotency": {"sidecar/internal/ttlmap"},
	"ring/backoff":                 {},
	// What clients may use of the memory, and who they are.
	"sidecar/internal/budget": {},
	"sidecar/internal/caller": {},
	"deploy/schema":           {},
	"sidecar/internal/audit":  {"sidecar/internal/caller"},
	"sidecar/internal/access": {"sidecar/internal/audit", "sidecar/internal/caller"},
	// Bounds, counts and demultiplexes the connections of every listener.
	"sidecar/internal/listen": {"ring/backoff", "sidecar/internal/budget"},
	"sidecar/internal/ready":  {"sidecar/internal/listen"},
	// Tests of the servers that use it.
	"sidecar/internal/ready/readytest": {},
	// The spans of requests; otlp exports them.
	"sidecar/internal/tracing":       {},
	"sidecar/internal/tracing/calls": {"sidecar/internal/tracing"},
	"sidecar/internal/tracing/otlp":  {"sidecar/internal/tracing"},
	// The logger of every program.
	"sidecar/logging": {},
	// Reads HTTP/1 requests strictly.
	"sidecar/internal/http1": {},
	// Domain. kv is the vocabulary of the cache and of all APIs.
	// The lists of keys as values.
	"origin/keylist":               {"origin"},
	"sidecar/kv":                   {"origin", "origin/keylist", "sidecar/internal/flight", "sidecar/internal/stripe"},
	"sidecar/internal/batch":       {"sidecar/kv"},
	"sidecar/internal/newest":      {"sidecar/kv"},
	"sidecar/internal/headerlimit": {},
	// Reads HTTP/2 connections within the memory budget.
	"sidecar/internal/h2/frame":    {},
	"sidecar/internal/h2/header":   {"sidecar/internal/h2/frame", "sidecar/internal/headerlimit"},
	"sidecar/internal/h2/body":     {},
	"sidecar/internal/h2/response": {"sidecar/internal/h2/header"},
	"sidecar/internal/h2": {
		"sidecar/internal/budget", "sidecar/internal/h2/body", "sidecar/internal/h2/frame", "sidecar/internal/h2/header",
		"sidecar/internal/h2/response", "sidecar/internal/headerlimit", "sidecar/internal/listen",
	},
	// Makes gRPC calls over HTTP/2 connections with little memory.
	"sidecar/internal/h2/client": {
		"ring/backoff", "sidecar/internal/budget", "sidecar/internal/h2/frame", "sidecar/internal/h2/header",
	},
	// Loads keys before they are read.
	"sidecar/internal/warm":      {"origin", "ring/backoff", "sidecar/internal/lru", "sidecar/kv"},
	"sidecar/internal/stability": {"sidecar/internal/entries", "sidecar/kv"},
	"sidecar/internal/saved":     {},
	"sidecar/internal/entries":   {"origin", "sidecar/internal/lru", "sidecar/internal/saved", "sidecar/internal/ttlmap", "sidecar/kv"},
	"sidecar/cache": {
		"sidecar/internal/tracing",
		"origin", "origin/keylist", "sidecar/internal/batch", "sidecar/internal/entries", "sidecar/internal/lru", "sidecar/internal/flight", "sidecar/internal/idempotency",
		"sidecar/internal/saved", "sidecar/internal/silence", "sidecar/internal/stability", "sidecar/internal/ttlmap", "sidecar/internal/warm",
		"sidecar/internal/broadcast", "sidecar/internal/coalesce", "sidecar/internal/hotkeys", "sidecar/internal/newest", "sidecar/internal/watches", "sidecar/kv",
	},
	"origin/guard":      {"origin"},
	"origin/origintest": {"origin"},
	// Pure helpers of the APIs.
	"sidecar/internal/httpfield": {"sidecar/kv"},
	"sidecar/internal/httpview":  {},
	// The table of errors of all APIs.
	"sidecar/internal/apierror": {"origin", "ring/printable", "sidecar/internal/access", "sidecar/kv"},
	// Reads the change feeds of the datasets.
	"sidecar/internal/changes": {"ring/backoff", "origin", "sidecar/kv"},
	// Edges.
	"ring/record": {"ring", "ring/address"}, // how a member describes itself, in etcd and to other members
	"ring/dns":    {"ring/address", "ring/backoff", "ring", "ring/record"},
	"ring/etcd":   {"ring/backoff", "ring", "ring/record"},
	// SQL databases: what is the same for all, and a package for each kind.
	"origin/sqldb/rowjson":    {"origin"},
	"origin/sqldb/sqltext":    {"origin"},
	"origin/sqldb/rowset":     {"origin", "origin/sqldb/rowjson", "origin/sqldb/sqltext"},
	"origin/sqldb/errclass":   {},
	"origin/sqldb/connpool":   {"origin/sqldb/errclass"},
	"origin/sqldb/changefeed": {"origin", "origin/sqldb/connpool", "origin/sqldb/rowset", "origin/sqldb/sqltext"},
	"origin/sqldb/tables":     {"origin", "origin/sqldb/errclass", "origin/sqldb/rowjson", "origin/sqldb/rowset", "origin/sqldb/sqltext"},
	"origin/sqldb/rowwrite":   {"origin", "origin/sqldb/rowjson", "origin/sqldb/rowset", "origin/sqldb/tables", "origin/sqldb/sqltext"},
	"origin/sqldb": {
		"origin", "origin/sqldb/changefeed", "origin/sqldb/connpool", "origin/sqldb/errclass", "origin/sqldb/rowjson", "origin/sqldb/rowset",
		"origin/sqldb/rowwrite", "origin/sqldb/tables", "origin/sqldb/sqltext",
	},
	"origin/sqldb/postgres/dsn": {},
	"origin/sqldb/postgres/session": {
		"origin/sqldb", "origin/sqldb/errclass", "origin/sqldb/postgres/dsn", "origin/sqldb/tables",
	},
	"origin/sqldb/postgres/changes": {
		"origin", "origin/sqldb/changefeed", "origin/sqldb/postgres/session", "origin/sqldb/sqltext",
	},
	"origin/sqldb/postgres/logical": {
		"origin", "origin/sqldb/changefeed", "origin/sqldb/postgres/session", "origin/sqldb/sqltext",
	},
	"origin/sqldb/postgres": append([]string{
		"origin/sqldb/postgres/changes", "origin/sqldb/postgres/dsn", "origin/sqldb/postgres/logical", "origin/sqldb/postgres/session",
	}, sqlDatabase...),
	"origin/sqldb/mysql/session": {"origin", "origin/sqldb"},
	"origin/sqldb/mysql":         append([]string{"origin/sqldb/mysql/session"}, sqlDatabase...),
	"origin/sqldb/sqlite":        sqlDatabase,
	// Services that are no SQL database.
	"origin/authfiles":  {"origin"},
	"origin/httporigin": {"origin", "origin/authfiles", "ring/printable"},
	"origin/etcdorigin": {"origin", "origin/authfiles", "ring/printable"},
	"origin/drivers":    {"origin", "origin/etcdorigin", "origin/httporigin", "origin/sqldb/postgres", "origin/sqldb/mysql", "origin/sqldb/sqlite"}, // the registry
	// The protocol between members: messages and errors, certificates, what subscribers receive, the listener, its calls, the client.
	"sidecar/peer/quota":           {"sidecar/kv"},
	"sidecar/peer/wire":            {"origin", "ring/printable", "sidecar/kv", "proto/ringside/peer/v1"},
	"sidecar/peer/peererror":       {"origin", "ring/printable", "sidecar/kv", "proto/ringside/peer/v1"},
	"sidecar/peer/identity":        {"sidecar/internal/caller"},
	"sidecar/peer/mtls":            {"ring/backoff", "sidecar/internal/caller", "sidecar/internal/listen", "sidecar/peer/identity"},
	"sidecar/peer/invalidationlog": {"sidecar/kv"},
	"sidecar/peer/memberlist":      {"ring", "ring/record", "proto/ringside/peer/v1", "sidecar/peer/wire"},
	"sidecar/peer/grant":           {"ring/backoff", "sidecar/internal/budget", "sidecar/kv"},
	"sidecar/peer/server":          {"sidecar/internal/tracing", "sidecar/internal/tracing/calls", "sidecar/internal/budget", "sidecar/internal/caller", "sidecar/internal/h2", "sidecar/internal/listen", "sidecar/peer/wire"},
	"sidecar/peer/service": {
		"sidecar/internal/tracing", "sidecar/internal/tracing/calls", "sidecar/internal/h2",
		"ring/printable", "ring/backoff", "sidecar/internal/budget", "sidecar/internal/caller", "sidecar/kv", "proto/ringside/peer/v1",
		"sidecar/peer/invalidationlog", "sidecar/peer/memberlist", "sidecar/peer/peererror", "sidecar/peer/quota", "sidecar/peer/wire",
	},
	"sidecar/peer": {
		"ring/printable", "ring/backoff", "ring", "ring/routekey", "sidecar/internal/budget", "sidecar/internal/h2/client", "sidecar/kv", "proto/ringside/peer/v1", "sidecar/peer/invalidationlog",
		"sidecar/peer/peererror", "sidecar/peer/grant", "sidecar/peer/quota", "sidecar/peer/wire",
	},
	"sidecar/local": {
		"sidecar/internal/access", "sidecar/internal/apierror", "sidecar/internal/budget", "sidecar/internal/caller", "sidecar/internal/h2", "sidecar/internal/listen", "sidecar/internal/task", "sidecar/kv", "sidecar/local/api", "sidecar/local/watch",
		"sidecar/local/httpapi", "sidecar/local/httpserver", "sidecar/local/grpcapi", "sidecar/local/respserver",
	},
	// The APIs of applications. The core of HTTP knows no server; api and watch know no protocol.
	"sidecar/local/api":   {"sidecar/internal/tracing", "sidecar/internal/httpview", "origin", "sidecar/internal/access", "sidecar/internal/audit", "sidecar/internal/caller", "sidecar/internal/budget", "sidecar/internal/watches", "sidecar/kv", "sidecar/internal/apierror", "sidecar/internal/listen", "sidecar/internal/ready"},
	"sidecar/local/watch": {"origin", "origin/keylist", "ring/backoff", "sidecar/internal/budget", "sidecar/internal/watches", "sidecar/kv", "sidecar/local/api"},
	"sidecar/local/httpapi": {
		"sidecar/internal/tracing",
		"origin", "ring/routekey", "sidecar/internal/access", "sidecar/internal/budget", "sidecar/internal/caller", "sidecar/kv",
		"sidecar/internal/apierror", "sidecar/internal/httpfield", "sidecar/internal/httpview", "sidecar/local/api", "sidecar/local/watch",
	},
	"sidecar/local/httpserver": {
		"sidecar/internal/apierror", "sidecar/internal/budget", "sidecar/internal/caller",
		"sidecar/internal/http1", "sidecar/internal/listen", "sidecar/internal/ready", "sidecar/kv", "sidecar/local/api", "sidecar/local/httpapi", "sidecar/local/watch",
	},
	"sidecar/internal/resp": {},
	"sidecar/local/respserver": {
		"ring/printable", "sidecar/internal/access", "sidecar/internal/apierror", "sidecar/internal/budget", "sidecar/internal/caller",
		"sidecar/internal/listen", "sidecar/internal/ready", "sidecar/internal/resp", "sidecar/internal/watches", "sidecar/kv", "sidecar/local/api", "sidecar/local/watch",
	},
	"sidecar/local/extauthz": {"sidecar/internal/httpview", "sidecar/kv", "sidecar/local/api"},
	"sidecar/local/grpcapi": {"sidecar/internal/tracing", "sidecar/internal/tracing/calls", "sidecar/local/extauthz",
		"sidecar/internal/access", "sidecar/internal/caller",
		"proto/ringside/v1", "proto/groupcachepb", "sidecar/internal/budget", "sidecar/kv", "sidecar/internal/apierror", "sidecar/internal/h2",
		"sidecar/internal/httpfield", "sidecar/local/api", "sidecar/local/watch",
	},
	"sidecar/local/localtest": {"sidecar/internal/budget",
		"origin", "origin/keylist", "origin/origintest", "proto/ringside/v1", "sidecar/cache", "sidecar/internal/watches", "sidecar/kv", "sidecar/internal/apierror", "sidecar/local",
		"sidecar/local/api",
	},
	// Metrics over OTLP: which of them are rows, and who receives them.
	"sidecar/internal/metricrow": {"origin"},
	"sidecar/otlpmetrics": {
		"ring/printable", "sidecar/internal/access", "sidecar/internal/apierror", "sidecar/internal/budget", "sidecar/internal/caller", "sidecar/internal/metricrow",
		"sidecar/internal/newest", "sidecar/kv", "sidecar/local/api",
	},
	"sidecar/cnfmetrics": {"sidecar/internal/access", "sidecar/internal/apierror", "sidecar/internal/budget", "sidecar/internal/httpfield", "origin", "sidecar/kv", "proto/cnfmetrics/v1"},
	// The console of operators, and its messages, which the command line decodes.
	"sidecar/admin/adminapi": {"ring/printable", "sidecar/kv"},
	"sidecar/admin": {
		"ring", "sidecar/admin/adminapi", "sidecar/cache", "sidecar/internal/access", "sidecar/internal/apierror",
		"sidecar/internal/caller", "sidecar/internal/hotkeys", "sidecar/internal/httpfield", "sidecar/kv", "ring/printable",
	},
	// Explains a key: asks the members that a read of it concerns.
	"sidecar/internal/explain": {
		"ring", "ring/routekey", "sidecar/admin/adminapi", "sidecar/cache", "sidecar/internal/apierror", "sidecar/kv", "sidecar/peer",
	},
	// Compares cached entries with the database.
	"sidecar/internal/verify": {
		"origin", "ring/backoff", "sidecar/admin/adminapi", "sidecar/cache", "sidecar/internal/origins", "sidecar/internal/task", "sidecar/kv",
	},
	// Records what a member counted in the last minutes, for consoles.
	"sidecar/internal/history": {"ring/printable", "sidecar/admin/adminapi", "sidecar/cache", "sidecar/internal/task", "sidecar/kv"},
	"sidecar/metrics":          {"origin", "sidecar/cache", "sidecar/kv"},
	// The ring as xDS resources, the server of proxies, and the client of that server.
	"xds/resources": {"ring", "ring/address", "ring/printable"},
	"xds":           {},
	"xds/publisher": {"ring", "ring/printable", "xds/resources"},
	"xds/resolver":  {"ring", "ring/printable", "ring/backoff", "xds/resources"},
	"xds/xdstest":   {"ring"},
	"deploy/inject": {"sidecar/container"},
	// Reads admission reviews: the fields that inject uses.
	"deploy/inject/admission": {"deploy/inject"},
	"deploy/inject/webhook":   {"deploy/inject", "deploy/inject/admission", "deploy/inject/event"},
	// Publishes warnings as events.
	"deploy/inject/event": {},
	// Keeps the injector's certificate.
	"deploy/inject/cert": {},
	// The configuration: decode sets the fields of any struct, config knows which fields there are.
	"sidecar/config/decode": {},
	// What the container of a sidecar must have, also for the injector.
	"sidecar/container":       {},
	"sidecar/config/restart":  {"sidecar/config", "sidecar/config/decode"},
	"sidecar/config/warnings": {"ring/address", "sidecar/config"},
	"sidecar/config":          {"origin", "origin/guard", "ring", "ring/address", "sidecar/kv", "sidecar/config/decode", "sidecar/peer/identity", "sidecar/internal/access", "sidecar/internal/httpview", "sidecar/internal/metricrow", "xds"},
	// The parts of a running sidecar.
	"sidecar/internal/task": {},
	"sidecar/internal/membership": {
		"ring/printable", "sidecar/internal/audit", "sidecar/internal/caller",
		"ring/backoff", "ring", "ring/address", "ring/dns", "ring/etcd", "sidecar/config", "sidecar/internal/task", "sidecar/peer", "sidecar/peer/mtls", "xds/resolver",
		"proto/ringside/peer/v1", "sidecar/peer/memberlist",
	},
	"sidecar/internal/simulation": {}, // tests only
	"sidecar/internal/origins":    {"sidecar/internal/tracing", "origin", "origin/guard", "origin/keylist", "sidecar/cnfmetrics", "sidecar/config", "sidecar/kv", "sidecar/metrics"},
	"sidecar/internal/datasets": {
		"ring/backoff", "ring/printable", "sidecar/cache", "sidecar/internal/budget", "sidecar/config", "sidecar/internal/changes",
		"sidecar/internal/entries", "sidecar/internal/hotkeys", "sidecar/internal/origins", "sidecar/internal/saved", "sidecar/internal/task", "sidecar/internal/warm", "sidecar/kv", "sidecar/peer",
	},
	"sidecar/internal/servers": {
		"sidecar/internal/tracing",
		"proto/ringside/peer/v1", "ring", "ring/record", "sidecar/cache", "sidecar/internal/apierror", "sidecar/internal/budget", "sidecar/kv", "sidecar/config",
		"sidecar/internal/datasets", "sidecar/internal/h2", "sidecar/internal/inherit", "sidecar/internal/listen",
		"sidecar/internal/task", "sidecar/local", "sidecar/peer", "sidecar/peer/mtls", "sidecar/peer/server",
		"sidecar/peer/memberlist", "sidecar/peer/service", "xds/publisher",
	},
	"sidecar/internal/status": {
		"sidecar/internal/tracing/otlp", "sidecar/logging",
		"proto/ringside/peer/v1", "sidecar/admin", "sidecar/admin/adminapi", "sidecar/config", "sidecar/internal/access",
		"sidecar/internal/apierror", "sidecar/internal/audit", "sidecar/internal/budget",
		"ring/printable",
		"sidecar/internal/datasets", "sidecar/internal/explain", "sidecar/internal/history", "sidecar/internal/hotkeys",
		"sidecar/internal/membership", "sidecar/internal/servers", "sidecar/internal/verify", "sidecar/local", "sidecar/metrics", "sidecar/otlpmetrics",
		"sidecar/peer", "sidecar/peer/mtls",
	},
	"sidecar/internal/inherit": {},
	"sidecar/internal/cgroup":  {},
	// Root and main.
	"sidecar/supervise": {"ring/backoff", "sidecar/config", "sidecar/internal/cgroup", "sidecar/internal/inherit", "sidecar/internal/servers"},
	"sidecar": {
		"sidecar/internal/tracing", "sidecar/internal/tracing/otlp", "sidecar/logging",
		"origin", "origin/drivers", "ring", "sidecar/admin", "sidecar/admin/adminapi", "sidecar/cnfmetrics", "sidecar/config", "sidecar/config/restart", "sidecar/config/warnings", "sidecar/container",
		"sidecar/internal/apierror", "sidecar/kv", "sidecar/internal/access", "sidecar/internal/audit", "sidecar/internal/budget", "sidecar/internal/cgroup", "sidecar/internal/datasets", "sidecar/internal/explain", "sidecar/internal/history", "sidecar/internal/inherit", "sidecar/internal/membership", "sidecar/internal/origins", "sidecar/internal/saved", "sidecar/internal/servers", "sidecar/internal/status",
		"sidecar/internal/metricrow", "sidecar/internal/task", "sidecar/internal/verify", "sidecar/local", "sidecar/local/api", "sidecar/metrics", "sidecar/otlpmetrics", "sidecar/peer", "sidecar/peer/memberlist", "sidecar/peer/mtls",
	},
	// The command line: cli is shared, client acts as an application does, inspect and top look into a running sidecar.
	"sidecar/cmd/ringside/cli":     {"ring/printable"},
	"sidecar/cmd/ringside/client":  {"ring/routekey", "sidecar/kv", "sidecar/cmd/ringside/cli"},
	"sidecar/cmd/ringside/inspect": {"ring", "ring/printable", "ring/routekey", "sidecar/admin/adminapi", "sidecar/kv", "sidecar/cmd/ringside/cli"},
	"sidecar/cmd/ringside/top":     {"ring/backoff", "ring/printable", "sidecar/admin/adminapi", "sidecar/cmd/ringside/cli"},
	"sidecar/cmd/ringside": {
		"sidecar/logging",
		"origin/drivers", "ring/printable", "sidecar", "sidecar/config", "sidecar/config/warnings", "sidecar/cmd/ringside/cli", "sidecar/cmd/ringside/client", "sidecar/cmd/ringside/inspect",
		"sidecar/cmd/ringside/top", "sidecar/supervise",
	},
	"deploy/examples/go":           {"proto/ringside/v1"},
	"deploy/examples/go/client":    {},
	"deploy/release":               {},
	"deploy/cmd/ringside-injector": {"sidecar/logging", "deploy/inject", "deploy/inject/admission", "deploy/inject/cert", "deploy/inject/event", "deploy/inject/webhook"},
	// Tests.
	"sidecar/peer/peertest": {
		"ring", "sidecar/internal/batch", "sidecar/internal/caller", "sidecar/kv", "proto/ringside/peer/v1", "sidecar/peer", "sidecar/peer/identity", "sidecar/peer/mtls", "sidecar/peer/server", "sidecar/peer/service",
	},
	"origin/sqldb/sqlite/sqlitetest": {},
	"e2e":                            {},
	"e2e/rig":                        {"e2e/rig/proc"},
	"e2e/rig/proc":                   {},
	"e2e/attack":                     {},
	"e2e/bench":                      {},
	"e2e/bench/loadgen":              {},
	"e2e/functions":                  {},
	"e2e/history":                    {},
	"e2e/guards":                     {},
	"e2e/promises":                   {},
	"e2e/scale":                      {},
}

// sqlDatabase is what each package of one kind of database may import.
var sqlDatabase = []string{
	"origin", "origin/sqldb", "origin/sqldb/changefeed", "origin/sqldb/errclass", "origin/sqldb/rowjson", "origin/sqldb/rowset",
	"origin/sqldb/rowwrite", "origin/sqldb/tables", "origin/sqldb/sqltext",
}

// onlyImporter says which packages alone may import a module that would otherwise spread.
var onlyImporter = map[string][]string{
	"github.com/envoyproxy/go-control-plane": {"xds/resources", "xds/publisher", "xds/resolver", "sidecar/local/extauthz"},
	"github.com/cespare/xxhash/v2":           {"ring"},
	"go.etcd.io/etcd/client/v3":              {"ring/etcd", "origin/etcdorigin"},
	"go.etcd.io/etcd/api/v3":                 {"origin/etcdorigin"},
	"github.com/jackc/pgx/v5": {
		"origin/sqldb/postgres", "origin/sqldb/postgres/changes", "origin/sqldb/postgres/dsn", "origin/sqldb/postgres/logical",
		"origin/sqldb/postgres/session",
	},
	"github.com/go-sql-driver/mysql":     {"origin/sqldb/mysql", "origin/sqldb/mysql/session"},
	"modernc.org/sqlite":                 {"origin/sqldb/sqlite", "origin/sqldb/sqlite/sqlitetest"},
	"github.com/hashicorp/golang-lru/v2": {"sidecar/internal/lru"},
	"google.golang.org/grpc": {
		"sidecar/internal/explain", "sidecar/internal/servers",
		"sidecar/peer", "sidecar/peer/grant", "sidecar/peer/peererror", "sidecar/peer/mtls", "sidecar/peer/server", "sidecar/peer/service",
		"sidecar/peer/peertest", "sidecar/peer/wire",
		"sidecar/local", "sidecar/local/api", "sidecar/local/extauthz", "sidecar/local/grpcapi", "sidecar/internal/h2",
		"sidecar/internal/h2/client", "sidecar/internal/tracing/calls",
		"sidecar/local/localtest", "sidecar/cnfmetrics", "sidecar/otlpmetrics", "sidecar/internal/apierror", "ring/etcd", "origin/etcdorigin", "xds/publisher", "xds/resolver", "xds/xdstest", "deploy/examples/go",
		"proto/ringside/v1", "proto/ringside/peer/v1", "proto/groupcachepb", "proto/cnfmetrics/v1",
	},
	"github.com/prometheus/client_golang": {"sidecar/metrics", "deploy/inject/event", "deploy/inject/webhook", "deploy/cmd/ringside-injector"},
	"go.uber.org/zap": {
		"sidecar", "sidecar/cmd/ringside", "sidecar/internal/datasets", "sidecar/internal/membership", "sidecar/internal/origins",
		"sidecar/internal/servers", "sidecar/internal/status", "sidecar/logging", "sidecar/supervise",
		"deploy/cmd/ringside-injector", "deploy/inject/cert", "deploy/inject/event", "deploy/inject/webhook",
	},
	"go.opentelemetry.io/otel": {"sidecar/internal/tracing", "sidecar/internal/tracing/otlp"},
	"github.com/spf13/cobra": {
		"sidecar/cmd/ringside", "sidecar/cmd/ringside/cli", "sidecar/cmd/ringside/client", "sidecar/cmd/ringside/inspect",
		"sidecar/cmd/ringside/top", "deploy/cmd/ringside-injector",
	},
	"k8s.io":                                {"deploy/inject", "deploy/inject/admission", "deploy/inject/cert", "deploy/inject/event", "deploy/inject/webhook", "deploy/cmd/ringside-injector"},
	"github.com/goccy/go-yaml":              {"sidecar/config", "sidecar/config/decode", "e2e/guards"},
	"github.com/sony/gobreaker/v2":          {"origin/guard"},
	"github.com/KimMachineGun/automemlimit": {"sidecar", "deploy/cmd/ringside-injector"},
	"github.com/anishathalye/porcupine":     {"e2e/history"},
	"github.com/spiffe/go-spiffe/v2":        {"sidecar/peer/identity", "sidecar/peer/mtls"},
}

type goPackage struct {
	ImportPath, Doc string
	Imports         []string
}

func listPackages(t *testing.T) (packages []goPackage) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsFollowTheMap(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, ok := mayImport[name]
		if !ok {
			t.Errorf("package %s is not in mayImport: add a row for it", name)
		}
		for _, i := range p.Imports {
			if ours, is := strings.CutPrefix(i, module); is && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: the row %q of mayImport does not allow it", name, ours, name)
			}
			for foreign, importers := range onlyImporter {
				if (i == foreign || strings.HasPrefix(i, foreign+"/")) && !slices.Contains(importers, name) {
					t.Errorf("%s imports %s: only %v may (onlyImporter)", name, i, importers)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Doc == "" && path.Base(p.ImportPath) != "e2e" {
			t.Errorf("package %s has no comment", p.ImportPath)
		}
	}
}
