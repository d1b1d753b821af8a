#!/usr/bin/env bash
# Installs the Python and Node packages that the examples and the OpenAPI tests need in .bin/. Versions and hashes are
# pinned: python.txt is the output of `pip-compile --generate-hashes --allow-unsafe python.in`.
set -euo pipefail
cd "$(dirname "$0")/.."
node=deploy/examples/javascript

if [ ! .bin/python/.stamp -nt e2e/python.txt ]; then
	echo "setup: installing Python packages in .bin/python (once; half a minute)"
	python3 -m venv --clear .bin/python
	.bin/python/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r e2e/python.txt
	touch .bin/python/.stamp
fi
if [ ! .bin/node/.stamp -nt $node/package-lock.json ]; then
	echo "setup: installing Node packages in .bin/node (once; ten seconds)"
	mkdir -p .bin/node
	cp $node/package.json $node/package-lock.json .bin/node/
	(cd .bin/node && npm ci --silent --no-audit --no-fund --ignore-scripts)
	touch .bin/node/.stamp
fi
