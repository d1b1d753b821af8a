#!/usr/bin/env bash
# Runs a cluster as processes of this machine: three etcd, a database, the collector, three sidecars and Prometheus,
# under goreman (deploy/Procfile). Usage: deploy/processes/cluster.sh up|down|status
#   DB         postgres (the default), mysql, mariadb or sqlite
#   BASE_PORT  the first of a hundred ports, a multiple of 10; default 7100
#   STATE      the folder with all files and logs of the cluster; default .run/up
set -euo pipefail
shopt -s extglob
cd "$(dirname "$0")/../.."
umask 077
timeout=60 # seconds, for a busy machine

# Each line: a process, its port, and the URL that responds as soon as it is ready.
processes() {
	local i
	echo "goreman $((PORT + 40)) -"
	for i in 1 2 3; do echo "etcd-$i $((PORT + i)) http://127.0.0.1:$((PORT + i))/health"; done
	[ "$DB" = sqlite ] || echo "database $((PORT + 20)) -"
	echo "collector - -"
	for i in 1 2 3; do
		echo "sidecar-$i $((PORT + 60 + 10 * i)) http://127.0.0.1:$((PORT + 60 + 10 * i))/v1/cnf-metrics/CNF-001"
	done
	echo "prometheus $((PORT + 30)) http://127.0.0.1:$((PORT + 30))/-/ready"
}

# pid_of prints the pid of a running process; a zombie does not count.
pid_of() {
	local pid start
	read -r pid start 2>/dev/null <"$STATE/pids/$1" || return 1
	[[ $(cut -d ' ' -f 3,22 "/proc/$pid/stat" 2>/dev/null) == [^ZX]" $start" ]] && echo "$pid"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

state_of() {
	local name=$1 port=$2 url=$3
	if ! pid_of "$name" >/dev/null; then
		echo "not running"
	elif [ "$url" != - ]; then
		curl -fsS -m 5 "$url" >/dev/null 2>&1 && echo ready || echo "not ready"
	elif [ "$port" != - ]; then
		listens "$port" && echo ready || echo "not ready"
	else
		echo ready
	fi
}

table() {
	local name port url
	printf '%-12s%-8s%-9s%s\n' PROCESS PORT PID STATE
	while read -r name port url; do
		printf '%-12s%-8s%-9s%s\n' "$name" "$port" "$(pid_of "$name" || echo -)" "$(state_of "$name" "$port" "$url")"
	done < <(processes)
}

# export_variables sets the variables of deploy/Procfile and the files beside it.
export_variables() {
	local i
	export DB PORT STATE DRIVER=$DB ETCD_LOG_LEVEL=warn ETCD_INITIAL_CLUSTER=
	[ "$DB" != mariadb ] || DRIVER=mysql
	for i in 1 2 3; do
		export "ETCD_$i=http://127.0.0.1:$((PORT + i))" "PEER_$i=http://127.0.0.1:$((PORT + 10 + i))"
		ETCD_INITIAL_CLUSTER+="${ETCD_INITIAL_CLUSTER:+,}etcd-$i=http://127.0.0.1:$((PORT + 10 + i))"
	done
}

write_prometheus() {
	cat >"$STATE/prometheus.yml" <<-YAML
		global: {scrape_interval: 5s, evaluation_interval: 5s}
		rule_files: ["$PWD/deploy/prometheus/*.yml"]
		scrape_configs:
		  - job_name: ringside
		    static_configs:
		      - targets: ["127.0.0.1:$((PORT + 73))", "127.0.0.1:$((PORT + 83))", "127.0.0.1:$((PORT + 93))"]
	YAML
}

check_ports() {
	local name port taken=0
	while read -r name port _; do
		[ "$port" = - ] || ! listens "$port" || { echo "port $port, of $name, is taken: set BASE_PORT" >&2; taken=1; }
	done < <(processes)
	return "$taken"
}

start() {
	local names
	names=$(processes | cut -d ' ' -f 1)
	write_prometheus
	if [ "$DB" = sqlite ]; then
		echo "$STATE/metrics.db" >"$STATE/dsn"
	else
		deploy/processes/database.sh prepare
	fi
	# The order of the Procfile, without the processes that this cluster does not have.
	names=$(sed -n 's/^\([a-z0-9-]*\):.*/\1/p' deploy/Procfile | grep -xF "$names")
	# shellcheck disable=SC2086 # one word per name
	GOREMAN_RPC_ADDR=127.0.0.1 setsid deploy/processes/keep.sh goreman .bin/goreman -f deploy/Procfile -env '' \
		-set-ports=false -p $((PORT + 40)) start $names </dev/null &
}

await() {
	local deadline=$((SECONDS + timeout))
	while [[ $(table) == *"not "* ]]; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		[ ! -s "$STATE/pids/goreman" ] || pid_of goreman >/dev/null || return 1
		sleep 0.2
	done
}

guide() {
	cat <<-TEXT

		Try:
		  curl -i http://127.0.0.1:$((PORT + 70))/v1/cnf-metrics/CNF-001
		  curl -i -X PUT http://127.0.0.1:$((PORT + 80))/v1/cnf-metrics/CNF-014 -d '{"status": "warn"}'
		  curl 'http://127.0.0.1:$((PORT + 90))/cnfmetrics/v1/metrics?status=warn'
		  .bin/goreman -p $((PORT + 40)) run stop sidecar-2     # and start; or kill -9 its pid
		Console of a sidecar   http://127.0.0.1:$((PORT + 75))/
		Prometheus             http://127.0.0.1:$((PORT + 30))/alerts
		Dashboards             deploy/grafana/import.sh http://localhost:3000 http://127.0.0.1:$((PORT + 30))     # into your Grafana
		Logs                   ${STATE#"$PWD"/}/logs
		make status shows this table again; make down ends everything and leaves nothing behind.
	TEXT
}

up() {
	if [ -e "$STATE" ]; then
		if pid_of goreman >/dev/null; then
			echo "the cluster is up already, with DB=$DB, in $STATE:"
			table
			return
		fi
		down # processes left by a killed goreman
		DB=${wanted[0]} PORT=${wanted[1]}
	fi
	check_ports
	mkdir -p "$(dirname "$STATE")"
	mkdir "$STATE" "$STATE/pids" "$STATE/logs"
	declare -p DB PORT >"$STATE/variables"
	export_variables
	trap fail EXIT
	start
	await
	trap - EXIT
	table
	guide
}

fail() {
	echo "the cluster does not come up:" >&2
	table >&2
	tail -n 5 "$STATE"/logs/*.log >&2
	down
	exit 1
}

# wait_while waits until a command fails.
wait_while() {
	local deadline=$((SECONDS + timeout))
	while "$@" >/dev/null; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.1
	done
}

# end sends a signal to a process, if it runs, and waits until it has exited.
end() {
	local pid
	pid=$(pid_of "$2") || return 0
	kill "-$1" "$pid" 2>/dev/null || true # it may have exited just now
	wait_while pid_of "$2"
}

down() {
	local file name port url
	[ -e "$STATE" ] || { echo "no cluster is up"; return; }
	end TERM goreman || true
	for file in "$STATE"/pids/*; do # processes left by a killed goreman
		[ ! -e "$file" ] || end KILL "$(basename "$file")"
	done
	while read -r name port url; do # the threads of a killed process may hold its ports for a moment longer
		[ "$port" = - ] || wait_while listens "$port" || echo "port $port, of $name, is still in use" >&2
	done < <(processes)
	[ ! -L "$STATE/database" ] || rm -rf "$(readlink "$STATE/database")"
	rm -rf "$STATE"
	echo "the cluster is down"
}

status() {
	[ -e "$STATE" ] || { echo "no cluster is up"; return 1; }
	table
	[[ $(table) != *"not "* ]]
}

STATE=$(realpath -m "${STATE:-.run/up}")
wanted=("${DB:-postgres}" "${BASE_PORT:-7100}")
if [ -e "$STATE/variables" ]; then
	. "$STATE/variables"
elif [ -e "$STATE" ]; then
	echo "$STATE is there, and is not a cluster's: set STATE, or delete it" >&2
	exit 1
else
	DB=${wanted[0]} PORT=${wanted[1]}
fi
case "${1:-} ${wanted[0]} ${wanted[1]}" in
up\ @(postgres|mysql|mariadb|sqlite)\ +([0-9])0) up ;;
down\ *) down ;;
status\ *) status ;;
*) sed -n '2,6p' "$0" >&2; exit 2 ;;
esac
