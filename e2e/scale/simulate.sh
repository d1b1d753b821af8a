#!/usr/bin/env bash
# Simulates clusters of several numbers of pods and writes SIMULATION.md, simulation.svg and simulation.json beside this file. Requires
# a clean commit. The numbers run at the same time; 10 000 pods take 5 GiB of memory.
# Usage: e2e/scale/simulate.sh [PODS...]
set -euo pipefail
cd "$(dirname "$0")"
about=$(../provenance.sh)
folder=$PWD
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
cd ../../sidecar/internal/simulation
go test -c -o "$parts/simulation.test" .
run() { GOGC=60 GOMEMLIMIT=6500MiB "$parts/simulation.test" -test.run TestSimulation -test.timeout 2h -max-members 256 -storm 1000 "$@"; }
[ $# -gt 0 ] || set -- 10 100 256 1000 10000
running=()
for pods in "$@"; do
	run -pods "$pods" -raw "$parts/$pods.json" >"$parts/$pods.log" &
	running+=($!)
done
for one in "${running[@]}"; do
	wait "$one" || { cat "$parts"/*.log >&2; exit 1; }
done
for pods in "$@"; do cat "$parts/$pods.json"; done >"$folder/simulation.json"
run -pods "" -raw "$folder/simulation.json" -page "$folder" -about "$about"
