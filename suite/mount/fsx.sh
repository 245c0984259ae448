# The file system exerciser: random reads and writes, by calls and by mappings, cuts, holes and copies, each read compared.
set -e
if [ "$1" = check ]; then sha256sum exercised*; exit; fi
cat >"$TMPDIR/fsx.toml" <<'END'
flen = 1048576
[weights]
close_open = 1
invalidate = 2
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 4
fsync = 0.3
fdatasync = 0.3
posix_fallocate = 2
punch_hole = 3
sendfile = 2
posix_fadvise = 2
copy_file_range = 3
END
for seed in 1 2 3; do
    fsx -f "$TMPDIR/fsx.toml" -N "${FSX:-40000}" -S $seed -P "$TMPDIR" exercised$seed >"$TMPDIR/fsx.out" 2>&1 ||
        { tail -40 "$TMPDIR/fsx.out"; exit 1; }
    tail -1 "$TMPDIR/fsx.out"
done
