"""Prints MIB mebibytes of lines in no order, the same on each run. use: lines.py MIB"""
import sys

want, state, done, out = int(sys.argv[1]) << 20, 12345, 0, []
while done < want:
    for _ in range(4096):
        state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        line = "%010d customer %d of region %d\n" % (state >> 31, (state >> 20) % 99991, (state >> 40) % 97)
        out.append(line)
        done += len(line)
    sys.stdout.write("".join(out))
    out.clear()
