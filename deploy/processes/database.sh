#!/usr/bin/env bash
# Creates the files of the cluster's database, or runs the database. Databases of packages do not run as root: root runs them
# as the user that the package created. MySQL is not from a package. Usage: deploy/processes/database.sh prepare|run
set -euo pipefail

# The newest version sorts last.
program() { compgen -G "$1" | sort -V | tail -n 1; }

as_servant() {
	if [ "$(id -u)" = 0 ]; then
		exec setpriv --reuid "$servant" --regid "$servant" --init-groups "$@"
	fi
	exec "$@"
}

# The folder is outside STATE, because other users may not be able to enter the parents of STATE.
make_folder() {
	local folder password
	folder=$(mktemp -d -t ringside-database-XXXXXX)
	ln -s "$folder" "$STATE/database"
	password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	echo "$password" >"$folder/password"
	case "$DB" in
	postgres) echo "postgres://ringside:$password@127.0.0.1:$port/postgres?sslmode=disable" ;;
	mysql | mariadb) echo "ringside:$password@tcp(127.0.0.1:$port)/ringside" ;;
	esac >"$STATE/dsn"
	cat >"$folder/users.sql" <<-SQL
		CREATE DATABASE IF NOT EXISTS ringside;
		CREATE USER IF NOT EXISTS 'ringside'@'127.0.0.1' IDENTIFIED BY '$password';
		GRANT ALL ON ringside.* TO 'ringside'@'127.0.0.1';
	SQL
	[ "$(id -u)" != 0 ] || chown -R "$servant:" "$folder"
	cd "$folder"
}

prepare_postgres() {
	make_folder
	(as_servant "$(program '/usr/lib/postgresql/*/bin/initdb')" --auth=scram-sha-256 --pwfile=password \
		--username=ringside --encoding=UTF8 --locale=C --no-sync --pgdata=files >/dev/null)
}

run_postgres() {
	cd "$STATE/database/"
	as_servant "$(program '/usr/lib/postgresql/*/bin/postgres')" -D files -h 127.0.0.1 -p "$port" -k ''
}

prepare_mariadb() {
	make_folder
	(as_servant mariadb-install-db --no-defaults --skip-test-db --datadir="$PWD/files" >/dev/null)
}

run_mariadb() {
	cd "$STATE/database/"
	local folder
	folder=$(pwd -P)
	(as_servant mkdir -p "$folder/tmp") # at its start, a server deletes the temporary tables of all servers with the same tmpdir
	as_servant "$(program '/usr/sbin/mariadbd')" --no-defaults --datadir="$folder/files" --bind-address=127.0.0.1 \
		--tmpdir="$folder/tmp" \
		--port="$port" --socket="$folder/socket" --pid-file="$folder/pid" --init-file="$folder/users.sql" \
		--skip-name-resolve --skip-log-bin --character-set-server=utf8mb4
}

prepare_mysql() {
	make_folder
	"$mysqld" --no-defaults --user=root --initialize-insecure --datadir="$PWD/files" 2>initialize.log ||
		{ cat initialize.log >&2; return 1; }
}

run_mysql() {
	local folder
	cd "$STATE/database/"
	folder=$(pwd -P)
	exec "$mysqld" --no-defaults --user=root --datadir="$folder/files" --bind-address=127.0.0.1 --port="$port" \
		--socket="$folder/socket" --pid-file="$folder/pid" --init-file="$folder/users.sql" --skip-name-resolve \
		--skip-log-bin --mysqlx=OFF --performance-schema=OFF
}

umask 077
mysqld=$PWD/.bin/mysql8/bin/mysqld # runs as the user of this script: another one may not enter the repository
port=$((PORT + 20))
case "$DB" in
postgres) servant=postgres ;;
mysql) servant=$(id -un) ;;
mariadb) servant=mysql ;;
esac
"$1_$DB"
