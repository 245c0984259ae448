//! A mount by an ordinary user, through fusermount3.

use super::{age, noise, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

/// Where nobody else sees it, the device is for all, as udev has it; the rest is done by nobody.
const SCRIPT: &str = r#"
if [ "$(stat -c %a /dev/fuse)" != 666 ]; then
    mount -t tmpfs none device
    mknod device/fuse c 10 229
    chmod 666 device/fuse
    mount --bind device/fuse /dev/fuse
fi
exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec '
    ./vswap cache init --size 64M own/store
    ./vswap cache mount --source source --store own/store point > own/out 2> own/said & pid=$!
    trap "fusermount3 -uz point || true; kill $pid || true" EXIT
    until grep -q "is shown at" own/said; do kill -0 $pid || { cat own/said >&2; exit 1; }; sleep 0.05; done
    cmp source/file point/file
    cmp source/file point/file
    echo new > point/new
    mv point/new point/moved
    for turn in 1 2 3 4 5 6 7 8 9 10; do fusermount3 -u point && break || sleep 0.3; done
    wait $pid
    trap - EXIT
    ./vswap cache ls --volume "$PWD/source" own/store'
"#;

#[test]
fn an_ordinary_user_mounts_reads_writes_and_unmounts() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::copy(env!("CARGO_BIN_EXE_vswap"), path("vswap")).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for made in ["source", "own", "point", "device"] {
        fs::create_dir(path(made)).unwrap();
    }
    fs::write(path("source/file"), noise(3 << 20, 1)).unwrap();
    for owned in ["source", "own", "point", "source/file"] {
        chown(path(owned), Some(65534), Some(65534)).unwrap();
    }
    age();
    let listed = run("unshare", &["--mount", "sh", "-ec", SCRIPT], dir.path());
    assert!(listed.lines().any(|line| line.contains("ffile") && line.contains("3.00 MiB")), "{listed}");
    assert_eq!(fs::read(path("source/moved")).unwrap(), b"new\n");
}
