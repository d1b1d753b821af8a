#!/usr/bin/env bash
# Counts the tests that passed on each kind of database, in files of gotestsum --jsonfile: subtests without further subtests
# that have the kind in their name. make test prints it. Usage: e2e/databases.sh FILE...
set -euo pipefail
grep -h '"Action":"pass"' "$@" | sed -nE 's/.*"Package":"([^"]*)","Test":"([^"]*)".*/\1 \2/p' | awk '
	BEGIN {
		n = split("PostgreSQL; PgBouncer, session mode; PgBouncer, transaction mode; MySQL 8; MariaDB; SQLite", labels, "; ")
		kind["postgres"] = kind["direct"] = 1
		kind["pgbouncer-session"] = kind["session"] = 2
		kind["pgbouncer-transaction"] = kind["transaction"] = 3
		kind["mysql8"] = kind["mysql"] = 4
		kind["mariadb"] = 5
		kind["sqlite"] = 6
	}
	{
		passed[$0]
		for (test = $2; sub("/[^/]*$", "", test);) parent[$1 " " test]
	}
	END {
		for (name in passed) {
			if (name in parent) continue
			parts = split(substr(name, index(name, " ") + 1), part, "/")
			for (i = 2; i <= parts; i++) {
				sub("[^a-z0-9-].*", "", part[i])
				if (part[i] in kind) { count[kind[part[i]]]++; break }
			}
		}
		for (i = 1; i <= n; i++) printf "%s %s: %d", (i > 1 ? ";" : "== tests by database:"), labels[i], count[i]
		print ""
	}'
