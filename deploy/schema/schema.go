// Package schema has the SQL of the table cnf_metrics for each database.
package schema

import "embed"

// Files has postgres.sql, mysql.sql and sqlite.sql, one idempotent statement each, and seed.sql for any of them.
//
//go:embed *.sql
var Files embed.FS
