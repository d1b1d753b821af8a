#!/usr/bin/env bash
# Measures meshes of several sizes and writes results.txt and results.md beside this file, with the figures of before.md. Requires a clean commit.
# Usage: e2e/scale/run.sh [SIZES [FLAGS]], for example e2e/scale/run.sh 20,60 -feed
set -euo pipefail
cd "$(dirname "$0")"
sizes=${1:-20,60,150}
about=$(../provenance.sh)
raw=results.txt
go test -run '^$' -bench 'Mesh|Clients' -benchtime 1x -timeout 2h -members "$sizes" "${@:2}" . >"$raw" || { cat "$raw" >&2; exit 1; }
{
	echo "# What each member costs the others"
	echo
	echo "\`e2e/scale/run.sh $*\` starts real sidecars, one etcd and a SQLite database, without TLS, and measures; one run (n = 1) of each"
	echo "size. The figures are means per member: CPU time from /proc, in percent of a core, and anonymous memory (RssAnon). Times end"
	echo "when the rings of all members are correct. On a busy machine they are upper bounds."
	echo
	echo "$about" | sed 's/$/  /'
	echo
	awk '
		function of(unit,  i) { for (i = 3; i < NF; i += 2) if ($(i + 1) == unit) return $i; return "–" }
		function idle(when) { return of(when "-%core") " % / " of(when "-MiB") " MiB" }
		BEGIN {
			print "| members | idle, before contact | idle, after each has read from all | idle, 4 minutes later | TERM | KILL | KILL a tenth | JOIN | reads with etcd frozen for 20 s |"
			print "|---|---|---|---|---|---|---|---|---|"
		}
		/^BenchmarkMesh\// {
			split($1, name, /[=-]/)
			print "| " name[2] " | " idle("before-contact") " | " idle("after-contact") " | " idle("quiet") " | " of("term-s") " s | " \
				of("kill-s") " s | " of("kill-tenth-s") " s | " of("join-s") " s | " of("reads-ok") " of " of("reads-frozen") " |"
		}
		/^BenchmarkClients\// {
			split($1, name, /[=-]/)
			clients = "| " name[2] " | " idle("members-alone") " | " idle("members-with-clients") " | " idle("members-after-reads") " | " \
				idle("clients") " | " idle("clients-after-reads") " | " of("clients-of-a-member") " | " of("etcd-watches") " |"
		}
		END {
			print "\nMembers and clients of the ring (`membership.role`): idle, before and after each client has read from all members.\n"
			print "| members + clients | member, no clients | member, clients | member, after reads | client | client, after reads | clients of a member | watches in etcd |"
			print "|---|---|---|---|---|---|---|---|"
			print clients
		}' "$raw"
	cat before.md
} >results.md
