#!/bin/sh
# Fills a Redis from a file of commands and has redis-benchmark read the first HOT keys at random; prints seconds as JSON.
# use: redis_hot.sh FILE HOT REQUESTS
set -eu
sock=./redis.sock
redis-server --port 0 --unixsocket "$sock" --dir . --save '' --appendonly no --logfile redis.log &
server=$!
until [ "$(redis-cli -s "$sock" ping 2>/dev/null)" = PONG ]; do sleep 0.02; done
clock() { date +%s.%N; }
redis-cli -s "$sock" --pipe <"$1" >pipe.log
grep -q 'errors: 0,' pipe.log
echo filled
begin=$(clock)
redis-benchmark -s "$sock" -c 8 -n "$3" -r "$2" --csv get key:__rand_int__ >bench.log
echo "{\"name\":\"redis_hot\",\"threads\":1,\"value\":$(echo "$begin $(clock)" | awk '{printf "%.4f", $2 - $1}'),\"unit\":\"s\",\"bad\":0}"
redis-cli -s "$sock" shutdown nosave
wait $server
