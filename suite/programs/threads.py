"""Threaded Python with subprocesses: threads build dictionaries while children are started, fed and read. use: threads.py MIB"""
import hashlib
import subprocess
import sys
import threading

MIB = int(sys.argv[1]) if len(sys.argv) > 1 else 64
THREADS = 4
results = {}


def child(name):
    """A Python child with some memory of its own and a `sort`, both through pipes."""
    code = "d={str(i)*3: i for i in range(%d)}; print(sum(d.values()), len(d))" % (MIB * 200)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = "".join("%s-%d\n" % (name, i * 7919 % 20011) for i in range(20000))
    ordered = subprocess.run(["sort"], input=lines, capture_output=True, text=True, check=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).stdout
    return said.strip() + " " + hashlib.sha256(ordered.encode()).hexdigest()[:16]


def work(number):
    table = {}
    count = MIB * 4200 // THREADS
    for i in range(count):
        table["key-%d-%d" % (number, i)] = (i, "value %d " % i * (i % 5))
        if i == count // 2:
            results["child", number] = child("line%d" % number)
    total = 0
    for i in range(0, count, 3):
        n, text = table["key-%d-%d" % (number, i)]
        total = (total * 31 + n + len(text)) % (1 << 61)
    results["thread", number] = (len(table), total)
    results["table", number] = table


threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
for key in sorted(k for k in results if k[0] != "table"):
    print(key, results[key])
again = subprocess.run([sys.executable, "-c", "import sys; sys.exit(3)"])
print("exit code of a child:", again.returncode)
print(sum(len(results["table", n]) for n in range(THREADS)))
