"""Prints commands that fill a Redis with about MIB mebibytes: strings, hashes and lists of words, the same on each run."""
import sys

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega".split()
mib = int(sys.argv[1])
state = 88172645463325252


def draw():
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
    return state >> 33


def text():
    r = draw()
    return " ".join(WORDS[(r >> k) % 24] for k in range(0, 24, 3)) * (4 + r % 5) + str(r)


out = sys.stdout
for i in range(mib * 2600):
    value = text()
    if i % 10 == 8:
        out.write('HSET hash:%d name "%s" number %d\r\n' % (i // 50, value, i))
    elif i % 10 == 9:
        out.write('RPUSH list:%d "%s"\r\n' % (i // 100, value))
    else:
        out.write('SET key:%d "%s"\r\n' % (i, value))
