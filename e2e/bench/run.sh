#!/usr/bin/env bash
# Runs every benchmark once per round, for ROUNDS rounds, and writes the results beside this file. Requires a clean commit.
# Usage: e2e/bench/run.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")"
rounds=${1:-${ROUNDS:-5}}
raw=results.txt
snapshot=$(mktemp)
trap 'rm -f "$snapshot"' EXIT
about=$(../provenance.sh)
go test -c -o ../../.bin/bench.test .

# others prints what the machine did for other programs since the last snapshot, and begins a new one.
others() { echo "$1 the run: $(python3 others.py since "$snapshot" $$)"; python3 others.py snapshot >"$snapshot"; }

# bench adds the figures of one run to the results, and prints the whole output if it fails.
bench() {
	local output
	output=$(../../.bin/bench.test -test.run '^$' "$@" 2>&1) || { echo "$output" >&2; return 1; }
	grep -E '^(goos|goarch|pkg|cpu|Benchmark)' <<<"$output" >>"$raw"
}

python3 others.py snapshot >"$snapshot"
sleep 3
{ echo "$about"; others before; } >"$raw"
for round in $(seq "$rounds"); do
	echo "round $round of $rounds: $(tail -c +1 /proc/loadavg)"
	bench -test.bench 'Hit|PeerFetch|Start|Memory' -test.benchtime 1x # each sends its load for a fixed time
	bench -test.bench 'Load/.*/.*/over=(SQL|driver|HTTP)' -test.benchtime 0.2s
done
others during >>"$raw"
../../.bin/benchstat -col /server -row '.name /load' -filter '.unit:req/s .name:Hit /load:(16x1 OR 4x16)' "$raw" || true
/usr/bin/python3 report.py "$raw" # Debian's, which has matplotlib
