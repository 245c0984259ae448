# A repository and a small program in C, for figures.
set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@b
python3 - <<'END'
import os
for number in range(2000):
    path = f'repository/d{number % 10}/e{number // 10 % 10}'
    os.makedirs(path, exist_ok=True)
    with open(f'{path}/{number}', 'w') as file:
        file.write(f'line {number}\n' * 50)
os.makedirs('program/out')
os.chdir('program')
names = [f'part{number}' for number in range(60)]
headers = [f'header{number}.h' for number in range(40)]
for number, name in enumerate(headers):
    with open(name, 'w') as file:
        file.writelines(f'static inline int h{number}_{line}(int x) {{ return x + {line}; }}\n' for line in range(20))
with open('all.h', 'w') as file:
    file.writelines(f'#include "{name}"\n' for name in headers)
    file.writelines(f'int {name}(int);\n' for name in names)
for number, name in enumerate(names):
    with open(f'{name}.c', 'w') as file:
        file.write(f'#include "all.h"\n#include <stdio.h>\nint {name}(int x) {{ return printf("%d ", h{number % 40}_3(x)); }}\n')
with open('main.c', 'w') as file:
    file.write('#include "all.h"\nint main(void) {' + ''.join(f' {name}(1);' for name in names) + ' return 0; }\n')
with open('Makefile', 'w') as file:
    file.write('parts = ' + ' '.join(f'$(TO)/{name}.o' for name in [*names, 'main']) + '\n$(TO)/program: $(parts)\n\tgcc -o $@ $^\n'
        '$(TO)/%.o: %.c all.h\n\t@mkdir -p $(TO)\n\tgcc -O1 -c -o $@ $<\n')
END
git init -q repository
cd repository
git add .
git commit -q -m one
