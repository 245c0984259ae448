"""Builds a dictionary of COUNT strings and looks them up in no order; prints how long each took. use: dictionary.py COUNT LOOKUPS"""
import sys
import time

count, lookups = int(sys.argv[1]), int(sys.argv[2])


def said(name, seconds):
    print('{"name":"%s","threads":1,"value":%.6f,"unit":"s","bad":0}' % (name, seconds), flush=True)


begin = time.perf_counter()
table = {"customer-%d" % i: "value %d of many" % i for i in range(count)}
said("python_build", time.perf_counter() - begin)
begin, state, found = time.perf_counter(), 1, 0
for _ in range(lookups):
    state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
    n = (state >> 33) % count
    found += table["customer-%d" % n] == "value %d of many" % n
said("python_lookup", time.perf_counter() - begin)
sys.exit(0 if found == lookups else 1)
