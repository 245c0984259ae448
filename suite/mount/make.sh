# A small program in C, made by two at a time; what is made again after a change.
set -e
if [ "$1" = check ]; then
    ./program
    make -q && echo 'nothing is to be made'
    exit
fi
python3 - <<'END'
names = [f'part{number}' for number in range(40)]
for number, name in enumerate(names):
    with open(f'{name}.c', 'w') as file:
        file.write(f'#include "all.h"\n#include <stdio.h>\nint {name}(int x) {{ return printf("%d ", x + {number}); }}\n')
with open('all.h', 'w') as file:
    file.writelines(f'int {name}(int);\n' for name in names)
with open('main.c', 'w') as file:
    file.write('#include "all.h"\nint main(void) {' + ''.join(f' {name}(1);' for name in names) + ' return 0; }\n')
with open('Makefile', 'w') as file:
    file.write('parts = ' + ' '.join(f'{name}.o' for name in names) + ' main.o\nprogram: libparts.a\n\tgcc -o $@ main.o libparts.a\n'
        'libparts.a: $(parts)\n\trm -f $@\n\tar -rcsD $@ $^\n%.o: %.c all.h\n\tgcc -O1 -c -o $@ $<\n')
END
make -s -j2
./program
make -q && echo 'nothing is to be made'
sleep 0.02
sed -i 's/x + 7)/x + 700)/' part7.c
make | sort
./program
