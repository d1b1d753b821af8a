#!/usr/bin/env bash
# Runs every test: make test. The large programs are downloaded and built in the background while the first suites run. Each
# suite ends with a line that has its number of tests, and with its time.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.bin

# These tests measure what the race detector would change.
race_free() {
	local files tests
	files=$(grep -rl --include='*_test.go' '^//go:build !race' sidecar origin ring)
	tests=$(grep -ho '^func Test[A-Za-z0-9_]*' $files | sed 's/^func //' | paste -sd '|')
	gotest -run "^($tests)\$" $(dirname $files | sort -u | sed 's|^|./|')
}
gotest() {
	"$bin/gotestsum" --format pkgname-and-test-fails --format-hide-empty-pkg --jsonfile "$(mktemp "$bin/tests/XXXXXX")" -- "$@"
}

suite() {
	local name=$1 began=$SECONDS
	shift
	echo "== $name"
	"$@"
	echo "== $name: passed in $((SECONDS - began)) s"
}

# in_background runs setup.sh with low priority; await waits for it and prints its output if it failed.
declare -A job
in_background() {
	nice -n 10 e2e/setup.sh "$1" >"$bin/$1.log" 2>&1 &
	job[$1]=$!
}
await() {
	kill -0 "${job[$1]}" 2>/dev/null && echo "== waiting for: e2e/setup.sh $1"
	wait "${job[$1]}" || { cat "$bin/$1.log" >&2; exit 1; }
	unset "job[$1]"
}

# beside runs suites with low priority while another one runs; finish waits for them and prints their output.
beside() {
	(renice -n 10 $BASHPID >/dev/null; "$@") >"$bin/beside.log" 2>&1 &
	job[beside]=$!
}
finish() {
	wait "${job[beside]}" || { cat "$bin/beside.log"; exit 1; }
	unset "job[beside]"
	cat "$bin/beside.log"
}

modules() {
	local module
	for module in deploy/collector e2e/demo e2e/grafana; do (cd "$module" && gotest -timeout 10m ./...); done
}
kube() { cd e2e/kube && gotest -count=1 -timeout 10m ./...; }
guards() {
	go test -count=1 -parallel 3 -timeout 20m -v ./e2e/guards >"$bin/guards.log" 2>&1 ||
		{ grep -v -- '--- PASS' "$bin/guards.log"; return 1; }
	grep 'guards: ' "$bin/guards.log"
}
busy() {
	suite "static checks" make --no-print-directory lint
	suite "modules" modules
	suite "guards, a sample" guards
}

e2e/setup.sh servers
rm -rf "$bin/tests" && mkdir "$bin/tests"
trap 'for pid in "${job[@]}"; do pkill -P "$pid" || true; kill "$pid"; done 2>/dev/null || true' EXIT
in_background mysql
in_background programs
in_background functions
in_background kube
await mysql
# The translated C of SQLite, which has no goroutine of its own, takes five times as long with the race detector.
suite "packages, with the race detector" \
	gotest -race -gcflags=modernc.org/sqlite/lib=-race=false -timeout 25m $(go list ./... | grep -vE '/e2e(/guards|/functions)?$')
suite "memory and allocations, without the race detector" race_free
await programs
# Tests of whole clusters wait for leases, timeouts and faults: more of them run at a time than there are processors, and what
# needs nothing but processors runs beside them with low priority.
beside busy
suite "whole clusters" gotest -parallel 4 -timeout 45m ./e2e
finish
await functions
await kube
beside suite "Kubernetes" kube
suite "network functions" gotest -parallel 4 -timeout 20m ./e2e/functions
finish
e2e/databases.sh "$bin"/tests/*
echo "== all tests passed in $SECONDS s"
