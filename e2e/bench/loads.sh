#!/usr/bin/env bash
# Measures loads from each database once per round, for ROUNDS rounds, and writes loads.txt and loads.md beside this file.
# Requires a clean commit. Usage: e2e/bench/loads.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")"
rounds=${1:-8}
raw=loads.txt
about=$(../provenance.sh)
echo "$about" >"$raw"
go test -c -o ../../.bin/bench.test .
for round in $(seq "$rounds"); do
	echo "round $round of $rounds; load average: $(cut -d ' ' -f 1-3 /proc/loadavg)" | tee -a "$raw"
	output=$(../../.bin/bench.test -test.run '^$' -test.bench Load -test.benchtime 0.3s 2>&1) || { echo "$output" >&2; exit 1; }
	grep '^Benchmark' <<<"$output" >>"$raw"
done
python3 loads.py "$raw" | tee loads.md
