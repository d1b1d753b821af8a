#!/usr/bin/env bash
# Prints the commit, the machine and the date of a measurement as one line each. Fails if the work tree has uncommitted
# changes, because such figures cannot be reproduced. ALLOW_DIRTY=1 marks the commit as dirty instead.
set -euo pipefail
cd "$(dirname "$0")/.."
changes=$(git status --porcelain)
if [ -n "$changes" ] && [ -z "${ALLOW_DIRTY:-}" ]; then
	echo "uncommitted changes; commit them first, or set ALLOW_DIRTY=1 to mark the figures as dirty:" >&2
	echo "$changes" >&2
	exit 1
fi
echo "commit: $(git rev-parse --short=10 HEAD)${changes:+ with uncommitted changes}"
echo "machine: $(nproc) cores, $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1)"
echo "date: $(date -u +%Y-%m-%d)"
