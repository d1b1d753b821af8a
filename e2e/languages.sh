#!/usr/bin/env bash
# Installs the Python, Node and Rust packages that the examples, the OpenAPI tests and the tests in a browser need in .bin/.
# Versions and hashes are pinned: python.txt is the output of `pip-compile --generate-hashes --allow-unsafe python.in`.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! .bin/python/.stamp -nt e2e/python.txt ]; then
	echo "setup: installing Python packages in .bin/python (once; half a minute)"
	python3 -m venv --clear .bin/python
	.bin/python/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r e2e/python.txt
	touch .bin/python/.stamp
fi
# install_node installs the packages of a folder with a package-lock.json in another one.
install_node() {
	[ ! "$2/.stamp" -nt "$1/package-lock.json" ] || return 0
	echo "setup: installing Node packages in $2 (once; ten seconds)"
	mkdir -p "$2"
	cp "$1/package.json" "$1/package-lock.json" "$2/"
	(cd "$2" && npm ci --silent --no-audit --no-fund --ignore-scripts)
	touch "$2/.stamp"
}
install_node deploy/examples/javascript .bin/node
install_node e2e/browser .bin/browser
rust=deploy/examples/rust
if [ ! .bin/rust/.stamp -nt $rust/Cargo.lock ]; then
	echo "setup: building the Rust packages of the example in .bin/rust (once; half a CPU minute)"
	CARGO_TARGET_DIR=.bin/rust RUSTFLAGS='-D warnings' cargo build --quiet --locked --manifest-path $rust/Cargo.toml
	touch .bin/rust/.stamp
fi
