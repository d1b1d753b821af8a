#!/usr/bin/env bash
# Runs a command of the Procfile in the place of this script, with its pid and its output where the cluster keeps them.
# Usage: deploy/processes/keep.sh NAME COMMAND …
set -euo pipefail
name=$1
shift
# With the time of its start (proc_pid_stat(5)), a pid that another process has now is not mistaken for it.
echo "$$ $(cut -d ' ' -f 22 /proc/$$/stat)" >"$STATE/pids/$name"
exec "$@" >>"$STATE/logs/$name.log" 2>&1
