#!/bin/sh
# As pyenv's python3 does: a shell script that execs the real program.
exec /usr/bin/python3 "$@"
