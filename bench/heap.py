"""Writes the pages of a real heap to a file: data that compresses about 3:1, as programs' memory does.

The interpreter builds dictionaries, strings and lists and then dumps its own private anonymous memory, page by page. All-zero
pages are left out: they would flatter whoever stores them for nothing.

use: heap.py FILE [MIB]
"""
import sys

PAGE = 4096


def private_anonymous_ranges():
    with open("/proc/self/maps") as maps:
        for line in maps.readlines():
            span, rights, *rest = line.split()
            if rights != "rw-p" or (len(rest) > 3 and rest[3].startswith("/")):
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            if end - start >= 65536:
                yield start, end


def main():
    path, want = sys.argv[1], int(sys.argv[2]) << 20 if len(sys.argv) > 2 else 96 << 20
    keep = {i: str(i) + "x" * (i % 40) for i in range(700_000)}
    more = [(i, float(i), [i]) for i in range(300_000)]
    zero, written = bytes(PAGE), 0
    with open("/proc/self/mem", "rb", 0) as memory, open(path, "wb") as out:
        for start, end in list(private_anonymous_ranges()):
            memory.seek(start)
            try:
                data = memory.read(end - start)
            except OSError:
                continue
            for at in range(0, len(data) - PAGE + 1, PAGE):
                page = data[at : at + PAGE]
                if page != zero and written < want:
                    written += out.write(page)
    assert keep and more
    print(written)


main()
