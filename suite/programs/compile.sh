#!/bin/sh
# g++ (driver, cc1plus, assembler: several processes) on a large file; prints what came out. use: compile.sh FILE.cc OUT.o
set -eu
g++ -std=c++17 -O1 -c "$1" -o "$2"
sha256sum <"$2"
