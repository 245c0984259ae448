#!/bin/sh
# sort of a large file in memory. use: sort.sh FILE BUFFER
set -eu
LC_ALL=C sort -S "$2" --parallel=2 "$1" | sha256sum
