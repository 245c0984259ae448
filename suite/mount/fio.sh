# Sequential and random writes with checksums, by calls and by mappings; "check" verifies what is there and writes nothing.
set -e
job() {
    name=$1; shift
    if [ "$act" = check ]; then set -- "$@" --verify_only; fi
    fio --name="$name" --filename="$name" --size=48m --direct=0 --verify=crc32c --verify_fatal=1 --do_verify=1 \
        --randseed=7 --output="$TMPDIR/fio.out" "$@" >"$TMPDIR/fio.err" 2>&1 ||
        { echo "$name failed"; grep -hi -m 5 'verify\|error\|bad' "$TMPDIR/fio.out" "$TMPDIR/fio.err"; exit 1; }
    # What is left behind of a verification that failed.
    test -z "$(ls ./*.received 2>/dev/null)"
    echo "$name is right"
}
act=$1
job sequential --ioengine=psync --rw=write --bs=128k
job random --ioengine=psync --rw=randwrite --bs=4k
job mixed --ioengine=psync --rw=randrw --bsrange=512-48k --bs_unaligned
job several --ioengine=libaio --iodepth=8 --rw=randwrite --bs=16k
job mapped --ioengine=mmap --rw=write --bs=64k
job mapped-random --ioengine=mmap --rw=randwrite --bs=4k
job synced --ioengine=psync --rw=randwrite --bs=8k --size=2m --fsync=16
