# A tree with links, holes, modes and times, packed, unpacked and compared.
set -e
if [ "$1" = check ]; then
    diff -r --no-dereference tree copy
    (cd copy && find . -type f -printf '%p %y %m %s %l %TY%Tm%Td%TH%TM%TS\n' | sort | sha256sum)
    exit
fi
mkdir tree
cd tree
python3 - <<'END'
import os
for number in range(600):
    path = f'a{number % 9}/b{number % 5}'
    os.makedirs(path, exist_ok=True)
    name = f'{path}/{number}'
    with open(name, 'wb') as file:
        file.write(bytes((number * byte) % 251 for byte in range(number * 37)))
        if number % 50 == 0:
            file.seek(1 << 20)
            file.write(b'after a hole')
    os.chmod(name, 0o600 + number % 64)
    os.utime(name, (1_500_000_000 + number, 1_500_000_000 + number + 0.25))
    if number % 20 == 0:
        os.link(name, f'{name}.link')
        os.symlink(f'../b0/{number}', f'{name}.to')
for path, _, _ in os.walk('.', topdown=False):
    os.utime(path, (1_400_000_000, 1_400_000_000))
END
cd ..
tar -cf tree.tar --sort=name --sparse tree
mkdir copy
tar -xpf tree.tar -C copy --strip-components=1
tar -df tree.tar && echo 'tar finds no difference'
tar -cf copy.tar --sort=name --sparse --transform='s,^copy,tree,' copy
cmp tree.tar copy.tar && echo 'packed again it is the same'
find tree -links 2 -type f | wc -l
