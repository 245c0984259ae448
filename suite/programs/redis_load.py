"""Prints commands that fill a Redis with COUNT strings of heap-like text, for redis_bench.sh. use: redis_load.py COUNT"""
import sys

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega".split()
state = 1
for i in range(int(sys.argv[1])):
    text = []
    for _ in range(8):
        state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        text.append("%s=%d" % (WORDS[(state >> 40) % 24] * 3, state >> 44))
    value = " ".join(text)
    key = "key:%012d" % i
    sys.stdout.write("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))
