#!/usr/bin/env bash
# Runs every benchmark once per round, for ROUNDS rounds, and writes the results beside this file. Requires a clean commit.
# Usage: e2e/bench/run.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")"
rounds=${1:-8}
raw=results.txt
about=$(../provenance.sh)
echo "$about" >"$raw"
go test -c -o ../../.bin/bench.test .
for round in $(seq "$rounds"); do
	echo "round $round of $rounds"
	../../.bin/bench.test -test.run '^$' -test.bench 'Hit|PeerFetch|Load' -test.benchtime 1s | grep -E '^(goos|goarch|pkg|cpu|Benchmark)' >>"$raw"
	../../.bin/bench.test -test.run '^$' -test.bench 'Start' -test.benchtime 3x | grep -E '^Benchmark' >>"$raw"
done
../../.bin/benchstat -col /server -row '.name /over' -filter '.unit:req/s' "$raw" || true
/usr/bin/python3 report.py "$raw" # Debian's, which has matplotlib
