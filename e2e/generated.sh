#!/usr/bin/env bash
# Fails if the checked-in generated code differs from what buf generates from the .proto files.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
(cd proto && ../.bin/buf generate -o "$fresh")
for file in $(cd "$fresh" && find . -name '*.pb.go'); do
	cmp -s "$fresh/$file" "proto/$file" || { echo "proto/$file differs from the generated code: run make generate" >&2; exit 1; }
done
