#!/bin/bash
# A PostgreSQL server for development and tests, on the loopback: `postgres.sh start FOLDER` prints its URL, `stop FOLDER`
# ends it. Where PostgreSQL is missing, Debian's package is installed, which needs root.
set -euo pipefail
action=$1 folder=$(realpath -m "$2")
programs() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1; }
as_owner() { # PostgreSQL refuses to run as root
  if [ "$(id -u)" = 0 ]; then su postgres -s /bin/bash -c "cd / && $*"; else bash -c "$*"; fi
}
if [ -z "$(programs)" ]; then
  [ "$(id -u)" = 0 ] || { echo "PostgreSQL is not installed: apt-get install postgresql" >&2; exit 2; }
  apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >&2
fi
bin=$(programs)
case $action in
start)
  if [ ! -s "$folder/data/PG_VERSION" ]; then
    mkdir -p "$folder" && chmod 755 "$folder"
    [ "$(id -u)" != 0 ] || chown postgres "$folder"
    as_owner "$bin/initdb -D '$folder/data' -U alignlab --auth=trust --no-locale -E UTF8" >&2
  fi
  port=${PORT:-$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
  as_owner "$bin/pg_ctl -D '$folder/data' -w -l '$folder/log' -o '-p $port -h 127.0.0.1 -k \"\"' start" >&2
  echo "postgresql://alignlab@127.0.0.1:$port/postgres"
  ;;
stop) as_owner "$bin/pg_ctl -D '$folder/data' -m immediate stop" >&2 ;;
*) echo "use: $0 start|stop FOLDER" >&2; exit 2 ;;
esac
