#!/bin/sh
# Fills a Redis from a file of commands and has redis-benchmark read and write keys at random; prints seconds as JSON.
# use: redis_bench.sh FILE KEYS REQUESTS
set -eu
sock=./redis.sock
redis-server --port 0 --unixsocket "$sock" --dir . --save '' --appendonly no --logfile redis.log &
server=$!
until [ "$(redis-cli -s "$sock" ping 2>/dev/null)" = PONG ]; do sleep 0.02; done
clock() { date +%s.%N; }
said() { echo "{\"name\":\"$1\",\"threads\":1,\"value\":$(echo "$3 $2" | awk '{printf "%.4f", $1 - $2}'),\"unit\":\"s\",\"bad\":0}"; }
begin=$(clock)
redis-cli -s "$sock" --pipe <"$1" >pipe.log
grep -q 'errors: 0,' pipe.log
said redis_fill "$begin" "$(clock)"
begin=$(clock)
redis-benchmark -s "$sock" -c 8 -n "$3" -r "$2" --csv get key:__rand_int__ >bench.log
said redis_get "$begin" "$(clock)"
begin=$(clock)
redis-benchmark -s "$sock" -c 8 -n "$3" -r "$2" --csv append key:__rand_int__ x >>bench.log
said redis_append "$begin" "$(clock)"
redis-cli -s "$sock" shutdown nosave
wait $server
