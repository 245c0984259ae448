//! Where the sockets are: `vswap/PID.sock` in the user's runtime directory.

use rustix::process::{Uid, geteuid};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const NAME: &str = "vswap";
const SUFFIX: &str = "sock";

/// Where a user's sockets may be, the likeliest first: `$XDG_RUNTIME_DIR`, `/run/user/UID`, root's `/run`, and `/tmp` with a directory of the
/// user's own where there is nothing else.
fn candidates(uid: Uid, runtime_dir: Option<PathBuf>) -> Vec<PathBuf> {
    let number = uid.as_raw();
    let own = runtime_dir.filter(|dir| dir.is_absolute()).map(|dir| dir.join(NAME));
    let usual = PathBuf::from(format!("/run/user/{number}")).join(NAME);
    let roots = uid.is_root().then(|| Path::new("/run").join(NAME));
    let last = PathBuf::from(format!("/tmp/{NAME}-{number}"));
    own.into_iter().chain([usual]).chain(roots).chain([last]).collect()
}

fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
}

/// A directory of the user's own that nobody else can change.
fn is_safe(dir: &Path, uid: Uid) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|found| found.is_dir() && found.uid() == uid.as_raw() && found.mode() & 0o077 == 0)
}

/// The directories that may hold the user's sockets, made where they can be, the likeliest first. Those of others, or that others can enter, are
/// left out.
pub fn directories() -> impl Iterator<Item = PathBuf> {
    let uid = geteuid();
    let usable = |dir: &Path, uid| {
        // Not there: it is made, if there is a place for it. There: what it is counts, not who made it.
        let _ = DirBuilder::new().mode(0o700).create(dir);
        is_safe(dir, uid)
    };
    candidates(uid, runtime_dir()).into_iter().filter(move |dir| usable(dir, uid))
}

/// The socket of the run whose first process is this one.
#[must_use]
pub fn socket(directory: &Path, pid: i32) -> PathBuf {
    directory.join(format!("{pid}.{SUFFIX}"))
}

/// The `number`th socket of a process that has several things to show; the first is that of [`socket`].
#[must_use]
pub fn nth_socket(directory: &Path, pid: i32, number: u32) -> PathBuf {
    match number {
        0 | 1 => socket(directory, pid),
        _ => directory.join(format!("{pid}-{number}.{SUFFIX}")),
    }
}

/// Removes the socket of a run that has ended, if it is still there.
pub fn forget(pid: i32) {
    for dir in candidates(geteuid(), runtime_dir()) {
        let _ = fs::remove_file(socket(&dir, pid));
    }
}

/// A socket that may be asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Socket {
    /// The run's first process.
    pub pid: i32,
    /// Where it is.
    pub path: PathBuf,
    /// Whose directory it is in, and who must therefore answer.
    pub owner: u32,
}

/// The sockets that this user may ask: one's own, and everybody's for root. Only those in directories of their owners alone.
#[must_use]
pub fn sockets() -> Vec<Socket> {
    let uid = geteuid();
    let mut directories: Vec<_> = candidates(uid, runtime_dir()).into_iter().map(|dir| (dir, uid)).collect();
    if uid.is_root() {
        let number = |name: &std::ffi::OsStr, prefix: &str| name.to_str()?.strip_prefix(prefix)?.parse().ok();
        let of_users = |base: &str, prefix: &'static str, below: &'static str| {
            let owned = move |dir: PathBuf| Some((number(dir.file_name()?, prefix)?, dir.join(below)));
            entries(base)
                .filter_map(owned)
                .map(|(owner, dir)| (dir, Uid::from_raw(owner)))
                .collect::<Vec<_>>()
        };
        directories.extend(of_users("/run/user", "", NAME));
        directories.extend(of_users("/tmp", "vswap-", ""));
    }
    let inside = |(dir, owner): (PathBuf, Uid)| {
        let safe = is_safe(&dir, owner);
        let found = safe.then(|| entries(dir)).into_iter().flatten();
        found.filter_map(move |path| Some(Socket { pid: pid_of(&path)?, path, owner: owner.as_raw() }))
    };
    let mut found: Vec<_> = directories.into_iter().flat_map(inside).collect();
    found.sort();
    found.dedup_by(|a, b| a.path == b.path);
    found
}

fn entries(dir: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn pid_of(path: &Path) -> Option<i32> {
    if path.extension()? != SUFFIX {
        return None;
    }
    let stem = path.file_stem()?.to_str()?;
    stem.split_once('-').map_or(stem, |(pid, _)| pid).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_relative_runtime_directory_is_not_believed() {
        let me = Uid::from_raw(1000);
        let there = candidates(me, Some("/run/user/7".into()));
        assert_eq!(there[0], Path::new("/run/user/7/vswap"));
        assert_eq!(candidates(me, Some("run".into()))[0], Path::new("/run/user/1000/vswap"));
        assert!(!candidates(me, None).contains(&"/run/vswap".into()));
        assert!(candidates(Uid::ROOT, None).contains(&"/run/vswap".into()));
    }

    #[test]
    fn a_directory_that_others_can_enter_or_that_is_a_link_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (uid, ours) = (geteuid(), dir.path().join("ours"));
        DirBuilder::new().mode(0o700).create(&ours).unwrap();
        assert!(is_safe(&ours, uid));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&ours, &link).unwrap();
        assert!(!is_safe(&link, uid));
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!is_safe(&ours, uid));
        assert!(!is_safe(&dir.path().join("none"), uid));
    }

    #[test]
    fn a_socket_is_known_by_its_process() {
        assert_eq!(pid_of(&socket(Path::new("/run/vswap"), 4711)), Some(4711));
        assert_eq!(pid_of(&nth_socket(Path::new("/run/vswap"), 4711, 3)), Some(4711));
        assert_eq!(pid_of(Path::new("/run/vswap/4711.txt")), None);
        assert_eq!(pid_of(Path::new("/run/vswap/x.sock")), None);
    }
}
