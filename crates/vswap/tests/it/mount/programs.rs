//! Programs that are particular about their files.

use super::{Place, noise, run};
use std::fs;
use std::path::Path;

#[test]
fn a_database_is_written_and_read_and_is_whole() {
    let place = Place::new();
    let mounted = place.mount(&[]);
    let sql = "create table t(a integer primary key, b blob); create index i on t(b);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) insert into t select i, randomblob(200) from n;
        delete from t where a % 3 = 0; update t set b = randomblob(300) where a % 5 = 0; vacuum;";
    run("sqlite3", &["base", sql], &place.point);
    run("sqlite3", &["base", "pragma journal_mode = wal; insert into t values (100000, 'x');"], &place.point);
    let asks = "pragma integrity_check; select count(*), sum(length(b)), sum(a) from t;";
    let shown = run("sqlite3", &["base", asks], &place.point);
    assert!(shown.starts_with("ok\n2001|"), "{shown}");
    mounted.unmount();
    assert_eq!(run("sqlite3", &["base", asks], &place.source), shown);
    let _mounted = place.mount(&[]);
    assert_eq!(run("sqlite3", &["base", asks], &place.point), shown);
}

#[test]
fn a_clone_of_a_repository_is_whole_and_unchanged() {
    let place = Place::new();
    let origin = place.dir.path().join("origin");
    fs::create_dir_all(origin.join("deep/er")).unwrap();
    for number in 0..60 {
        fs::write(origin.join(format!("deep/er/{number}")), noise(3000 + number * 100, number as u64 + 1))
            .unwrap();
    }
    let git = |arguments: &[&str], dir: &std::path::Path| {
        let who = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "safe.directory=*"];
        run("git", &[&who, arguments].concat(), dir)
    };
    git(&["init", "-q"], &origin);
    git(&["add", "."], &origin);
    git(&["commit", "-q", "-m", "one"], &origin);
    let mounted = place.mount(&[]);
    git(&["clone", "-q", "--no-local", origin.to_str().unwrap(), "copy"], &place.point);
    let copy = place.shown("copy");
    assert_eq!(git(&["status", "--porcelain"], &copy), "");
    fs::write(copy.join("deep/er/1"), "changed").unwrap();
    assert_eq!(git(&["status", "--porcelain"], &copy), " M deep/er/1\n");
    git(&["commit", "-q", "-a", "-m", "two"], &copy);
    git(&["fsck", "--full"], &copy);
    git(&["gc", "-q"], &copy);
    mounted.unmount();
    // Numbers of inodes are the same after another mount, so that git need not look at all files again.
    let _mounted = place.mount(&[]);
    assert_eq!(git(&["diff-files"], &copy), "");
    git(&["fsck", "--full"], &copy);
}

#[test]
fn what_is_mapped_reads_as_what_is_read() {
    let place = Place::new();
    fs::write(place.real("file"), noise(3 << 20, 1)).unwrap();
    let _mounted = place.mount(&[]);
    let program = "import mmap, sys
f = open('file', 'r+b')
m = mmap.mmap(f.fileno(), 0)
w = open(sys.argv[1], 'rb').read()
assert m[2000000:2500000] == w[2000000:2500000] and m[:] == w
m[1234567:1234572] = b'hello'
m.flush()
f.seek(1234567)
assert f.read(5) == b'hello'";
    run("python3", &["-c", program, place.real("file").to_str().unwrap()], &place.point);
    assert_eq!(&fs::read(place.real("file")).unwrap()[1_234_567..][..5], b"hello");
    assert_eq!(&fs::read(place.shown("file")).unwrap()[1_234_567..][..5], b"hello");
}

#[test]
fn a_mapping_of_a_file_that_is_appended_to_is_written_where_it_is() {
    let place = Place::new();
    let bytes = noise(3 << 20, 1);
    fs::write(place.real("file"), &bytes).unwrap();
    let _mounted = place.mount(&[]);
    let program = "import mmap, os
f = os.open('file', os.O_RDWR | os.O_APPEND)
m = mmap.mmap(f, 0)
m[1234567:1234572] = b'hello'
m.flush()
m.close()
os.write(f, b'at the end')
os.close(f)";
    run("python3", &["-c", program], &place.point);
    let wanted = [&bytes[..1_234_567], b"hello", &bytes[1_234_572..], b"at the end"].concat();
    assert!(fs::read(place.real("file")).unwrap() == wanted);
    assert!(fs::read(place.shown("file")).unwrap() == wanted);
}

/// A directory that is memory, of so many bytes, until it is dropped.
struct Small(std::path::PathBuf);

impl Small {
    fn over(dir: &Path, size: &str) -> Self {
        let mount = ["-t", "tmpfs", "-o", &format!("size={size}"), "none", dir.to_str().unwrap()];
        run("mount", &mount, Path::new("/"));
        Self(dir.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The kernel looks whether a page of a mapping was written, and not how much of it: a part was taken for all.
#[test]
fn a_mapping_of_which_only_a_part_finds_room_says_so() {
    let place = Place::new();
    let _small = Small::over(&place.source, "2m");
    fs::File::create(place.real("file")).unwrap().set_len(1 << 20).unwrap();
    fs::write(place.real("filler"), vec![1; (2 << 20) - (100 << 10)]).unwrap();
    let mounted = place.mount(&[]);
    let program = "import mmap, os
m = mmap.mmap(os.open('file', os.O_RDWR), 0)
m[0:524288] = b'x' * 524288
try:
    m.flush()
    print('silent')
except OSError as error:
    print('said', error.errno in (5, 28))";
    assert_eq!(run("python3", &["-c", program], &place.point), "said True\n");
    assert!(fs::read(place.shown("file")).unwrap() == fs::read(place.real("file")).unwrap());
    mounted.unmount();
}
