#!/usr/bin/env bash
# Imports the dashboards into a running Grafana, with its HTTP API, and prints their addresses. A second run updates them.
# Usage: [GRAFANA_TOKEN=… | GRAFANA_USER=name:password] import.sh GRAFANA-URL [PROMETHEUS-URL]
# With PROMETHEUS-URL, as the server of Grafana reaches it, it also makes a data source, unless there is one of that name. Without
# variables the user is admin:admin, as in a Grafana that has just been installed.
set -euo pipefail
cd "$(dirname "$0")"
[ $# -ge 1 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
grafana=${1%/} prometheus=${2:-}

# post sends standard input to a path of the API and prints the status. Secrets go to curl by its standard input, not by an argument,
# which other users of the machine can read.
post() {
	local body
	body=$(mktemp)
	cat >"$body"
	if [ -n "${GRAFANA_TOKEN:-}" ]; then
		printf 'header = "Authorization: Bearer %s"\n' "$GRAFANA_TOKEN"
	else
		printf 'user = "%s"\n' "${GRAFANA_USER:-admin:admin}"
	fi | curl -sS -K - -o "$body.answer" -w '%{http_code}' -H 'Content-Type: application/json' --data-binary "@$body" "$grafana$1"
	rm "$body"
	mv "$body.answer" "$answer"
}
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# expect ends the script unless a status is one of those that follow.
expect() {
	local what=$1 got=$2 want
	shift 2
	for want; do [ "$got" != "$want" ] || return 0; done
	echo "import: $what: Grafana answered $got: $(head -c 300 "$answer")" >&2
	exit 1
}

if [ -n "$prometheus" ]; then
	status=$(printf '{"name":"Ringside Prometheus","uid":"ringside-prometheus","type":"prometheus","access":"proxy","url":"%s"}' "$prometheus" | post /api/datasources)
	expect "data source" "$status" 200 409 # 409: it exists
fi
for file in *.json; do
	status=$({ printf '{"overwrite":true,"message":"import.sh","dashboard":'; cat "$file"; printf '}'; } | post /api/dashboards/db)
	expect "$file" "$status" 200
	echo "$grafana/d/$(sed -n 's/^  "uid": "\(.*\)",\{0,1\}$/\1/p' "$file")"
done
