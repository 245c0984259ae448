#!/bin/sh
# Redis filled and checked by a real client, with a background save (a fork) while it is being written to.
# use: redis.sh DIR MIB; the lines to load are made by redis_fill.py
set -eu
dir=$1 mib=$2 here=$(dirname "$0")
sock=$dir/redis.sock
rm -f "$dir/dump.rdb"
redis-server --port 0 --unixsocket "$sock" --dir "$dir" --save '' --appendonly no --enable-debug-command yes --logfile "$dir/redis.log" \
  --activedefrag no --hz 10 &
server=$!
cli() { redis-cli -s "$sock" "$@"; }
n=0
until [ "$(cli ping 2>/dev/null)" = PONG ]; do
  n=$((n + 1)); [ $n -lt 400 ] || { echo "redis does not answer"; exit 1; }
  sleep 0.05
done
/usr/bin/python3 "$here/redis_fill.py" "$mib" | cli --pipe | grep -E 'errors|replies'
cli dbsize
cli debug digest
cli bgsave >/dev/null
i=0
while [ $i -lt 40 ]; do cli set "late:$i" "$i$i$i" >/dev/null; cli getrange "key:$((i * 911))" 0 30; i=$((i + 1)); done
while [ "$(cli info persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" != 0 ]; do sleep 0.1; done
cli info persistence | tr -d '\r' | grep rdb_last_bgsave_status
redis-check-rdb "$dir/dump.rdb" | grep -oE 'RDB looks OK|[0-9]+ keys read'
cli debug digest
cli shutdown nosave
wait $server
echo "server ended with $?"
