#!/usr/bin/env bash
# Runs the network functions with SQL and with Ringside and writes RESULTS.md, results.jsonl and outage.svg beside this file. Requires
# a clean commit. Usage: e2e/functions/run.sh [FUNCTION]
set -euo pipefail
cd "$(dirname "$0")"
about=$(../provenance.sh)
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
failed=0
RINGSIDE_FUNCTIONS=$rows go test -count=1 -parallel 3 -timeout 60m . -run "^TestFunctions\$/${1:-}" || failed=1
cp "$rows" results.jsonl
python3 report.py "$about" <results.jsonl >RESULTS.md
python3 draw.py results.jsonl outage.svg
cat RESULTS.md
exit $failed
