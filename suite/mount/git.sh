# A repository of some thousand files: cloned, changed, packed.
set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
if [ "$1" = check ]; then
    cd copy
    git fsck --full --strict
    git --no-optional-locks status --porcelain
    git diff-index HEAD
    git ls-tree -r HEAD | sha256sum
    exit
fi
git init -q origin
cd origin
python3 - <<'END'
import os
for number in range(3000):
    path = f'd{number % 40}/e{number % 7}'
    os.makedirs(path, exist_ok=True)
    with open(f'{path}/{number}', 'w') as file:
        file.write(f'line {number}\n' * (number % 400))
END
git add .
git commit -q -m one
cd ..
git clone -q --no-local origin copy
cd copy
git status --porcelain
python3 - <<'END'
import os
for number in range(0, 3000, 10):
    path = f'd{number % 40}/e{number % 7}/{number}'
    if number % 3:
        open(path, 'a').write('more\n')
    else:
        os.rename(path, path + '.moved')
END
git status --porcelain | sha256sum
git add -A
git commit -q -m two
git checkout -q -b other HEAD~1
git status --porcelain
git checkout -q -
git merge -q other
git gc -q
git repack -q -a -d -f
git fsck --full
git stash list
git log --format=%H
