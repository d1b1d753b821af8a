#!/usr/bin/env bash
# Takes the pictures of the console in sidecar/admin: runs the demo for ten minutes, in which a sidecar is killed, so that the history is
# full. The demo needs its ports.
set -euo pipefail
cd "$(dirname "$0")/../.."
e2e/languages.sh
log=$(mktemp)
.bin/ringside-demo -for 12m >"$log" &
demo=$!
trap 'kill "$demo"; wait "$demo" || true; rm "$log"' EXIT
sleep 360
kill -9 "$(sed -n 's/^ *kill -9 \([0-9]*\) .*/\1/p' "$log")"
sleep 260
node e2e/browser/pictures.mjs "$PWD/.bin/browser" http://127.0.0.1:7075/
