#!/usr/bin/env bash
# Reads a key through the sidecar of its pod: over HTTP, over gRPC, and over HTTP on the unix socket.
# Requires curl, and buf (or grpcurl) for gRPC, which gets the protocol from the sidecar (reflection).
# Usage: example.sh DATASET KEY, for a key that needs no percent-encoding.
set -euo pipefail
dataset=$1 key=$2
answer=$(mktemp -d)
trap 'rm -r "$answer"' EXIT

# header NAME prints a header field of the last response.
header() { sed -n "s/^$1: *\([^\r]*\).*/\1/Ip" "$answer/header"; }

# over_http prints the value; the arguments are curl's.
over_http() {
	local code
	code=$(curl --silent --show-error --max-time 5 --globoff --path-as-is \
		--dump-header "$answer/header" --output "$answer/body" --write-out '%{http_code}' "$@") || return
	case $code in
	200)
		[ "$(header Ringside-Stale)" != true ] || echo -n "stale, $(header Age) s old: " # the database is unavailable
		cat "$answer/body"
		;;
	404) grep -q '"https://ringside.dev/problems/not-found"' "$answer/body" && echo -n "not found" || cat "$answer/body" ;;
	429 | 503) echo -n "unavailable, try again in $(header Retry-After) s" ;;
	*) cat "$answer/body" ;;
	esac
}

# over_grpc prints the value, which is base64 in protobuf's JSON.
over_grpc() {
	if buf curl --protocol grpc --http2-prior-knowledge --data "{\"dataset\": \"$dataset\", \"key\": \"$key\"}" \
		"$1/ringside.v1.Cache/Get" >"$answer/body" 2>"$answer/error"; then
		! grep -q '"stale": *true' "$answer/body" || echo -n "stale, $(field age | cut -d. -f1 | tr -d s) s old: "
		field value | base64 --decode
	elif details | grep -q NOT_FOUND; then
		echo -n "not found"
	elif grep -Eq '"code": "(unavailable|resource_exhausted)"' "$answer/error"; then
		echo -n unavailable # the retry time is in a binary detail; in HTTP it is a header
	else
		cat "$answer/error"
	fi
}

# details prints the google.rpc details of the last error, which are protobuf in base64.
details() { sed -n 's/.*"value": "\(.*\)".*/\1==/p' "$answer/error" | base64 --decode --ignore-garbage 2>/dev/null | tr -d '\0' || true; }

# field NAME prints a string field of the last response.
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$answer/body" | head -1; }

echo "http: $(over_http "${RINGSIDE_HTTP:-http://localhost:7070}/v1/$dataset/$key")"
echo "grpc: $(over_grpc "http://${RINGSIDE_GRPC:-localhost:7071}")"
echo "unix: $(over_http --unix-socket "${RINGSIDE_UNIX:-/run/ringside/ringside.sock}" "http://localhost/v1/$dataset/$key")"
