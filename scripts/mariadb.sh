#!/bin/sh
# mariadb.sh start DIR PORT | stop DIR: a private MariaDB (MySQL's protocol) for
# the tests, with its data in DIR, listening on the loopback interface alone.
# Its user root needs no password.
set -eu
command=$1 dir=$2
server=$(command -v mariadbd || echo /usr/sbin/mariadbd)
# As root the server changes to the user who owns the data.
user=$(id -un)
[ "$user" != root ] || user=nobody

case $command in
start)
	port=$3
	mkdir -p "$dir"
	[ "$(id -u)" -ne 0 ] || chown "$user" "$dir"
	mariadb-install-db --no-defaults --datadir="$dir/data" --user="$user" --skip-test-db \
		--auth-root-authentication-method=normal >"$dir/install.log" 2>&1 || {
		cat "$dir/install.log" >&2
		exit 1
	}
	"$server" --no-defaults --datadir="$dir/data" --user="$user" --port="$port" --bind-address=127.0.0.1 \
		--socket="$dir/socket" --pid-file="$dir/pid" --log-error="$dir/log" --innodb-flush-log-at-trx-commit=0 </dev/null >/dev/null 2>&1 &
	for _ in $(seq 300); do
		[ ! -S "$dir/socket" ] || exit 0
		sleep 0.1
	done
	cat "$dir/log" >&2
	exit 1
	;;
stop)
	[ -f "$dir/pid" ] || exit 0
	pid=$(cat "$dir/pid")
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	;;
*)
	echo "mariadb.sh: unknown command $command" >&2
	exit 2
	;;
esac
