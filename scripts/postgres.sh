#!/bin/sh
# postgres.sh start DIR PORT | restart DIR PORT | stop DIR: a private PostgreSQL
# for the tests, with its data in DIR, listening on the loopback interface alone.
# Run as root it changes to the user postgres, because the server refuses root.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v pg_ctl)") # other systems have it in the path

as_server() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u postgres -- "$@"
	else
		"$@"
	fi
}

command=$1 dir=$2
case $command in
start)
	port=$3
	mkdir -p "$dir"
	[ "$(id -u)" -ne 0 ] || chown postgres "$dir"
	as_server "$bin/initdb" -A trust -U postgres -N -D "$dir/data" >/dev/null
	as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start \
		-o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='$dir' -c fsync=off -c max_connections=200" >/dev/null
	;;
restart) as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -m fast -w restart >/dev/null ;;
stop) as_server "$bin/pg_ctl" -D "$dir/data" -m fast -w stop >/dev/null ;;
*)
	echo "postgres.sh: unknown command $command" >&2
	exit 2
	;;
esac
