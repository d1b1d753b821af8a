package bench

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // for the query without a sidecar

	"github.com/ringside-cache/ringside/e2e/rig"
)

// value is the response of every server.
var value = `{"cnf_id":"CNF-00001","pad":"` + strings.Repeat("x", 1024-31) + `"}`

// hitKeys are read from the memory of every server.
const hitKeys = 10_000

// sidecarConfig takes the membership and the DSN. It returns one column unchanged (value: body), so that every server sends the same bytes. peer-metrics keeps no local
// copies.
const sidecarConfig = `
%s
memory: 512MiB
origins: {db: {driver: postgres, dsn: %q, max_conns: 16}}
datasets:
  cnf-metrics: {origin: db, table: metrics, key: id, value: body, ttl: 1h, local_ttl: 1h}
  peer-metrics: {origin: db, table: metrics, key: id, value: body, ttl: 1h, local_ttl: 0s}
`

// newDatabase starts PostgreSQL with the rows of n keys.
func newDatabase(b *testing.B, n int) (dsn string) {
	b.Helper()
	dsn = rig.Postgres(b)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE metrics (id text PRIMARY KEY, body text NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	const insert = `INSERT INTO metrics SELECT 'CNF-' || lpad(i::text, 5, '0'), $1 FROM generate_series(0, $2 - 1) AS i`
	if _, err := db.Exec(insert, value, n); err != nil {
		b.Fatal(err)
	}
	return dsn
}

func staticMembers(list string) string { return "membership: {static: [" + list + "]}" }

func newSidecars(b *testing.B, n int) []*rig.Sidecar {
	b.Helper()
	dsn := newDatabase(b, hitKeys)
	if n == 1 {
		return rig.Sidecars(b, 1, fmt.Sprintf(sidecarConfig, "", dsn))
	}
	return rig.StaticSidecars(b, n, func(members string) string { return fmt.Sprintf(sidecarConfig, staticMembers(members), dsn) })
}
