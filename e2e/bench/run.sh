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

# bench adds the figures of one run to the results, and prints the whole output if it fails.
bench() {
	local output
	output=$(../../.bin/bench.test -test.run '^$' "$@" 2>&1) || { echo "$output" >&2; return 1; }
	grep -E '^(goos|goarch|pkg|cpu|Benchmark)' <<<"$output" >>"$raw"
}
for round in $(seq "$rounds"); do
	echo "round $round of $rounds"
	bench -test.bench 'Hit|PeerFetch' -test.benchtime 1s
	bench -test.bench 'Start' -test.benchtime 3x
done
../../.bin/benchstat -col /server -row '.name /over' -filter '.unit:req/s' "$raw" || true
/usr/bin/python3 report.py "$raw" # Debian's, which has matplotlib
