// Package schema is the SQL of the table cnf_metrics, in the words of each database.
package schema

import "embed"

// Files holds postgres.sql, mysql.sql and sqlite.sql, one idempotent statement each, and seed.sql for any of them.
//
//go:embed *.sql
var Files embed.FS
