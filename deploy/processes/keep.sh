#!/usr/bin/env bash
# Replaces itself by a command of the Procfile, and keeps its pid and its output in the files of the cluster.
# Usage: deploy/processes/keep.sh NAME COMMAND …
set -euo pipefail
name=$1
shift
# With its start time (proc_pid_stat(5)), so that a reused pid is not mistaken for it.
echo "$$ $(cut -d ' ' -f 22 /proc/$$/stat)" >"$STATE/pids/$name"
exec "$@" >>"$STATE/logs/$name.log" 2>&1
