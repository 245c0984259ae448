//! Every operation is passed on; names may be any bytes.

use super::{Place, noise, run};
use crate::vswap::vswap;
use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags, XattrFlags, renameat_with};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

#[test]
fn names_of_any_bytes_are_shown() {
    let place = Place::new();
    let names: [&[u8]; 5] = [b"\xff\xfe", b"new\nline", b" ", b"\\x41", &[b'n'; 255]];
    let mounted = place.mount(&[]);
    for (number, name) in names.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        fs::create_dir(place.point.join(name)).unwrap();
        fs::write(place.point.join(name).join(name), noise(1000, number as u64 + 1)).unwrap();
        std::os::unix::fs::symlink(name, place.point.join(name).join("link")).unwrap();
    }
    mounted.unmount();
    let _mounted = place.mount(&["--ttl", "0"]);
    let look = || {
        for (number, name) in names.iter().enumerate() {
            let name = OsStr::from_bytes(name);
            assert!(fs::read(place.point.join(name).join(name)).unwrap() == noise(1000, number as u64 + 1));
            assert_eq!(fs::read_link(place.point.join(name).join("link")).unwrap().as_os_str(), name);
            assert_eq!(fs::read_dir(place.point.join(name)).unwrap().count(), 2);
        }
        assert_eq!(fs::read_dir(&place.point).unwrap().count(), names.len());
    };
    look();
    fs::rename(&place.source, place.dir.path().join("away")).unwrap();
    look();
}

#[test]
fn attributes_and_kinds_of_files_are_passed_on() {
    let place = Place::new();
    let _mounted = place.mount(&[]);
    let (shown, real) = (place.shown("file"), place.real("file"));
    fs::write(&shown, "some bytes").unwrap();
    fs::set_permissions(&shown, fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(&shown, Some(1234), Some(4321)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options().write(true).open(&shown).unwrap().set_modified(time).unwrap();
    rustix::fs::setxattr(&shown, "user.key", b"value", XattrFlags::CREATE).unwrap();
    fs::hard_link(&shown, place.shown("link")).unwrap();
    for path in [&shown, &real] {
        let found = fs::metadata(path).unwrap();
        assert_eq!((found.mode() & 0o777, found.uid(), found.gid(), found.nlink()), (0o751, 1234, 4321, 2));
        assert_eq!(found.modified().unwrap(), time);
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(path, "user.key", &mut value).unwrap();
        assert_eq!(&value[..length], b"value");
        let mut list = [0; 64];
        let length = rustix::fs::listxattr(path, &mut list).unwrap();
        assert_eq!(&list[..length], b"user.key\0");
    }
    let inode = |name| fs::metadata(place.shown(name)).unwrap().ino();
    assert_eq!((inode("file"), fs::metadata(&real).unwrap().ino()), (inode("link"), inode("file")));
    rustix::fs::removexattr(&shown, "user.key").unwrap();
    assert!(rustix::fs::getxattr(&real, "user.key", &mut [0; 16]).is_err());
    run("mkfifo", &["fifo"], &place.point);
    run("mknod", &["device", "c", "1", "3"], &place.point);
    assert!(fs::metadata(place.real("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(place.real("device")).unwrap().rdev(), fs::metadata("/dev/null").unwrap().rdev());
    assert_eq!(
        fs::metadata(place.shown("device")).unwrap().rdev(),
        fs::metadata("/dev/null").unwrap().rdev()
    );
    let (here, there) = (rustix::fs::statvfs(&shown).unwrap(), rustix::fs::statvfs(&real).unwrap());
    assert_eq!((here.f_blocks, here.f_namemax), (there.f_blocks, there.f_namemax));
}

#[test]
fn renames_exchange_or_replace_nothing_where_that_is_asked() {
    let place = Place::new();
    let _mounted = place.mount(&[]);
    let (a, b) = (place.shown("a"), place.shown("b"));
    fs::write(&a, "a").unwrap();
    fs::create_dir(&b).unwrap();
    fs::write(b.join("inner"), "b").unwrap();
    let rename = |flags| renameat_with(CWD, &a, CWD, &b, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(&b).unwrap(), fs::read(a.join("inner")).unwrap()), (b"a".to_vec(), b"b".to_vec()));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(&a).unwrap(), fs::read(b.join("inner")).unwrap()), (b"a".to_vec(), b"b".to_vec()));
    assert_eq!(fs::read(place.real("b/inner")).unwrap(), b"b");
    // A directory from which a file is open.
    let open = File::options().read(true).write(true).open(b.join("inner")).unwrap();
    fs::rename(&b, place.shown("c")).unwrap();
    open.write_all_at(b"more", 1).unwrap();
    assert_eq!(fs::read(place.shown("c/inner")).unwrap(), b"bmore");
    fs::remove_dir_all(place.shown("c")).unwrap();
    open.write_all_at(b"!", 5).unwrap();
    let mut bytes = [0; 6];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, open.metadata().unwrap().len()), (b"bmore!", 6));
}

#[test]
fn holes_copies_and_syncs_are_passed_on() {
    let place = Place::new();
    let _mounted = place.mount(&[]);
    let path = place.shown("file");
    fs::write(&path, noise(100_000, 1)).unwrap();
    let mut wanted = noise(100_000, 1);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, 8192, 16384).unwrap();
    wanted[8192..][..16384].fill(0);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 100_000, 20_000).unwrap();
    wanted.resize(120_000, 0);
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert!(fs::read(&path).unwrap() == wanted);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 8192);
    fs::write(place.shown("to"), noise(50_000, 2)).unwrap();
    let to = File::options().read(true).write(true).open(place.shown("to")).unwrap();
    let copied = rustix::fs::copy_file_range(&file, Some(&mut 5000), &to, Some(&mut 40_000), 30_000).unwrap();
    let mut copy = noise(50_000, 2);
    copy.resize(40_000 + copied, 0);
    copy[40_000..].copy_from_slice(&wanted[5000..][..copied]);
    assert!(
        copied > 0
            && fs::read(place.shown("to")).unwrap() == copy
            && fs::read(place.real("to")).unwrap() == copy
    );
    rustix::fs::unlinkat(CWD, &path, AtFlags::empty()).unwrap();
    assert!(!place.real("file").exists());
}

#[test]
fn what_cannot_be_mounted_is_refused() {
    let place = Place::new();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (source, store, point) = (text(&place.source), text(&place.store), text(&place.point));
    let within = text(place.dir.path());
    let cases = [
        ([&source, &store, &source], "apart"),
        ([&source, &store, &within], "apart"),
        ([&"/var/tmp/none/here".to_owned(), &store, &point], "does not answer"),
        ([&source, &source, &point], "data"),
    ];
    for ([source, store, point], says) in cases {
        let said = vswap(["cache", "mount", "--source", source, "--store", store, point]);
        assert!(said.code == Some(1) && said.all_prefixed() && said.err.contains(says), "{said:?}");
    }
    let said = vswap(["cache", "mount", "--source", &source, "--store", &store, &point, "--ttl", "-1"]);
    assert_eq!(said.code, Some(125), "{said:?}");
    let _mounted = place.mount(&[]);
    let said = vswap(["cache", "ls", &store]);
    assert!(said.code == Some(1) && said.err.contains("in use"), "{said:?}");
}

#[test]
fn a_signal_unmounts() {
    let place = Place::new();
    fs::write(place.real("file"), "x").unwrap();
    let mut mounted = place.mount(&[]);
    assert_eq!(fs::read(place.shown("file")).unwrap(), b"x");
    run("kill", &["-TERM", &mounted.child.id().to_string()], &place.source);
    assert!(mounted.child.wait().unwrap().success());
    assert!(!place.shown("file").exists());
    let said =
        vswap(["cache", "ls", place.store.to_str().unwrap(), "--raw", "--noheadings", "--output", "KEY"]);
    assert!(said.out.contains("ffile"), "{said:?}");
}

#[test]
fn who_looks_a_link_up_does_not_read_it() {
    let place = Place::new();
    let _mounted = place.mount(&["--ttl", "0"]);
    std::os::unix::fs::symlink("there", place.shown("link")).unwrap();
    let program = "import os
os.utime('link', (1960000000, 1970000000), follow_symlinks=False)
found = os.lstat('link')
print(found.st_atime, found.st_mtime)";
    for _ in 0..3 {
        assert_eq!(run("python3", &["-c", program], &place.point), "1960000000.0 1970000000.0\n");
    }
}
