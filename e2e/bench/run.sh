#!/usr/bin/env bash
# Measures everything in ROUNDS rounds, each contender once a round, and writes the results beside this file.
# Usage: e2e/bench/run.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")"
rounds=${1:-8}
raw=results.txt
go test -c -o ../../.bin/bench.test .
{
	echo "commit: $(git describe --always --dirty)"
	echo "machine: $(nproc) cores, $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1)"
} >"$raw"
for round in $(seq "$rounds"); do
	echo "round $round of $rounds"
	../../.bin/bench.test -test.run '^$' -test.bench 'Hit|Hop|Load' -test.benchtime 1s | grep -E '^(goos|goarch|pkg|cpu|Benchmark)' >>"$raw"
	../../.bin/bench.test -test.run '^$' -test.bench 'Start' -test.benchtime 3x | grep -E '^Benchmark' >>"$raw"
done
../../.bin/benchstat -col /server -row '.name /over' -filter '.unit:req/s' "$raw" || true
/usr/bin/python3 report.py "$raw" # Debian's, which has the package of matplotlib
