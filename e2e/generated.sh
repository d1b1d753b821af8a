#!/usr/bin/env bash
# Fails when the generated code that is checked in is not what the .proto files say.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
(cd proto && ../.bin/buf generate -o "$fresh")
for file in $(cd "$fresh" && find . -name '*.pb.go'); do
	cmp -s "$fresh/$file" "proto/$file" || { echo "proto/$file is not current: run make generate" >&2; exit 1; }
done
