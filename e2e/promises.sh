#!/usr/bin/env bash
# Measures the promises on real processes, removes every guard, and writes the table into PROMISES.md.
set -euo pipefail
cd "$(dirname "$0")"
about=$(./provenance.sh)
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
export RINGSIDE_PROMISES=$rows
failed=0
go test -count=1 -parallel 1 -timeout 60m . -run '^TestPromise' || failed=1
go test -count=1 -parallel 1 -timeout 30m . -run '^TestPromise(A1|A2|A3RollingRestart$|A4|A6DatabaseAway|B1|B2)' -zones || failed=1
go test -count=1 -timeout 90m ./guards -run '^TestPromise' -all || failed=1

marker='<!-- Everything below is written by `make promises`. -->'
page=$(sed "/^$marker/q" PROMISES.md)
{
	echo "$page"
	echo
	echo "$about" | paste -sd';' | sed 's/;/; /g'
	echo
	echo '| promise | what was done | figure | n | held |'
	echo '|---|---|---|---|---|'
	sort -V "$rows"
} >PROMISES.md
cat PROMISES.md
exit $failed
