//! A source that is slow, fails or vanishes while it is in use.

#[path = "../../../../mount/examples/slow/passthrough.rs"]
#[allow(missing_docs)]
mod passthrough;

use super::{Place, age, model::tree, noise, run};
pub use passthrough::{ALL, Call};
use passthrough::{Control, Manner, show};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A place whose source is shown by way of [`passthrough`].
pub struct Failing {
    pub control: Arc<Control>,
    /// What the source shows.
    pub below: PathBuf,
    _session: fuser::BackgroundSession,
    pub place: Place,
}

impl Failing {
    pub fn new() -> Self {
        Self::with_times(false)
    }

    /// Each call reaches it. `seconds`: its times are whole ones.
    fn with_times(seconds: bool) -> Self {
        let (place, control) = (Place::new(), Arc::new(Control::default()));
        let below = place.dir.path().join("below");
        fs::create_dir(&below).unwrap();
        let manner = Manner { ttl: Duration::ZERO, pages: false, seconds };
        let session = show(&below, &place.source, manner, &control).unwrap().spawn().unwrap();
        Self { control, below, _session: session, place }
    }

    fn fails(&self, calls: &[Call]) {
        self.control.fail(calls, Errno::IO);
    }

    /// What is shown, not from the kernel's own pages.
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = File::open(self.place.shown(name))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

const TTL: [&str; 2] = ["--ttl", "0"];

fn is_eio<T>(done: &io::Result<T>) -> bool {
    done.as_ref().is_err_and(|error| error.raw_os_error() == Some(5))
}

/// Every kind of call by itself, and together.
const WAYS: [&[Call]; 6] =
    [&[Call::Read], &[Call::Attributes], &[Call::Open], &[Call::Look], &[Call::Read, Call::Open], &ALL];
const PIECE: usize = 64 << 10;

#[test]
fn while_the_source_fails_what_is_kept_is_shown_and_the_rest_fails_with_what_it_says() {
    let failing = Failing::new();
    let (kept, other) = (noise(1 << 20, 1), noise(1 << 20, 2));
    fs::write(failing.below.join("kept"), &kept).unwrap();
    for number in 0..2 * WAYS.len() {
        fs::write(failing.below.join(format!("half{number}")), &other).unwrap();
        fs::write(failing.below.join(format!("unread{number}")), &other).unwrap();
    }
    age();
    let _mounted = failing.place.mount(&TTL);
    assert!(failing.read("kept").unwrap() == kept);
    for (number, (errno, calls)) in
        [Errno::IO, Errno::NOTCONN].iter().flat_map(|errno| WAYS.map(|calls| (*errno, calls))).enumerate()
    {
        let (half, unread) = (format!("half{number}"), format!("unread{number}"));
        File::open(failing.place.shown(&half)).unwrap().read_exact_at(&mut [0; 2 * PIECE], 1 << 19).unwrap();
        assert_eq!(fs::metadata(failing.place.shown(&unread)).unwrap().len(), 1 << 20);
        failing.control.fail(calls, errno);
        let says = |error: io::Error| error.raw_os_error() == Some(errno.raw_os_error());
        assert!(failing.read("kept").unwrap() == kept, "{errno} of {calls:?}");
        let file = File::open(failing.place.shown(&half)).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let (mut good, mut bad) = (0, 0);
        for (number, wanted) in other.chunks(PIECE).enumerate() {
            let mut bytes = vec![0; PIECE];
            match file.read_exact_at(&mut bytes, (number * PIECE) as u64) {
                Ok(()) => good += usize::from(bytes == wanted),
                Err(error) => bad += usize::from(says(error)),
            }
        }
        assert!(good >= 2 && bad > 0 && good + bad == 16, "{errno} of {calls:?}: {good} and {bad}");
        assert!(failing.read(&unread).is_err_and(says), "{errno} of {calls:?}");
        failing.control.works();
        assert!(failing.read(&half).unwrap() == other && failing.read(&unread).unwrap() == other);
    }
}

#[test]
fn of_a_file_that_has_changed_and_cannot_be_read_nothing_older_is_shown() {
    let failing = Failing::new();
    fs::write(failing.below.join("file"), noise(1 << 20, 1)).unwrap();
    age();
    let mounted = failing.place.mount(&TTL);
    assert!(failing.read("file").unwrap() == noise(1 << 20, 1));
    let open = File::open(failing.place.shown("file")).unwrap();
    failing.fails(&[Call::Read]);
    fs::write(failing.below.join("file"), noise(1 << 20, 2)).unwrap();
    assert!(is_eio(&failing.read("file")));
    assert!(is_eio(&open.read_exact_at(&mut [0; 5000], 300_000)));
    failing.control.works();
    assert!(failing.read("file").unwrap() == noise(1 << 20, 2));
    // Fetched soon after the change, so it is fetched again.
    age();
    failing.fails(&[Call::Read]);
    assert!(is_eio(&failing.read("file")));
    failing.control.works();
    let mut bytes = vec![0; 5000];
    open.read_exact_at(&mut bytes, 300_000).unwrap();
    assert!(bytes == noise(1 << 20, 2)[300_000..][..5000]);
    assert!(failing.read("file").unwrap() == noise(1 << 20, 2));
    drop(open);
    mounted.unmount();
    failing.fails(&ALL);
    let _mounted = failing.place.mount(&TTL);
    assert!(failing.read("file").unwrap() == noise(1 << 20, 2), "kept over a mount");
}

#[test]
fn what_lies_before_a_bad_place_of_the_source_is_read() {
    let failing = Failing::new();
    let bytes = noise(4 << 20, 1);
    fs::write(failing.below.join("file"), &bytes).unwrap();
    age();
    let _mounted = failing.place.mount(&TTL);
    let bad = (1 << 20) + 4096 * 5;
    failing.control.bad_from(bad);
    let (file, mut at, mut piece) = (File::open(failing.place.shown("file")).unwrap(), 0, [0; 4096]);
    while at < bad {
        file.read_exact_at(&mut piece, at).unwrap_or_else(|error| panic!("{error} at {at}"));
        assert!(piece == bytes[at as usize..][..4096], "{at}");
        at += 4096;
    }
    assert!(is_eio(&file.read_exact_at(&mut piece, at)));
    failing.control.works();
    assert!(failing.read("file").unwrap() == bytes);
}

#[test]
fn a_write_that_fails_is_said_to_the_writer_and_what_is_shown_is_what_the_source_has() {
    for (halfway, seconds) in [(false, false), (true, false), (true, true)] {
        let failing = Failing::with_times(seconds);
        fs::write(failing.below.join("file"), noise(1 << 20, 1)).unwrap();
        age();
        let mounted = failing.place.mount(&TTL);
        assert!(failing.read("file").unwrap() == noise(1 << 20, 1));
        let same = |name: &str| {
            let real = fs::read(failing.below.join(name)).unwrap();
            assert!(fs::read(failing.place.shown(name)).unwrap() == real, "{name}, {halfway} {seconds}");
            assert!(failing.read(name).unwrap() == real, "{name}, from the store, {halfway} {seconds}");
        };
        failing.control.halfway(halfway);
        let file = File::options().read(true).write(true).open(failing.place.shown("file")).unwrap();
        let mut end = File::options().append(true).open(failing.place.shown("file")).unwrap();
        for step in 0..6 {
            failing.fails(&[Call::Write]);
            assert!(is_eio(&file.write_all_at(&noise(70_000, 10 + step), 123_456 + step * 1000)));
            // Before anything is well again, too.
            same("file");
            assert!(is_eio(&end.write_all(&noise(10_000, 20 + step))));
            failing.control.works();
            same("file");
            file.write_all_at(&noise(9000, 30 + step), 150_000 * step).unwrap();
            end.write_all(&noise(9000, 40 + step)).unwrap();
            same("file");
        }
        failing.fails(&[Call::Write]);
        let program = "import mmap, os
m = mmap.mmap(os.open('file', os.O_RDWR), 0)
m[200000:300000] = b'x' * 100000
try:
    m.flush()
except OSError as error:
    print(error.errno)";
        assert_eq!(run("python3", &["-c", program], &failing.place.point), "5\n");
        failing.control.works();
        same("file");
        failing.fails(&[Call::Sync]);
        assert!(is_eio(&file.sync_all()));
        failing.control.works();
        drop((file, end));
        same("file");
        mounted.unmount();
        let _mounted = failing.place.mount(&TTL);
        same("file");
    }
}

/// What is done while the source begins to fail in the middle of it.
type Act = fn(&Place) -> io::Result<()>;

fn acts() -> Vec<(&'static str, Act)> {
    vec![
        ("write", |place| {
            let file = File::options().write(true).open(place.shown("a"))?;
            file.write_all_at(&noise(30_000, 7), 10_000)
        }),
        ("append", |place| File::options().append(true).open(place.shown("a"))?.write_all(&noise(5000, 8))),
        ("replace", |place| {
            fs::write(place.shown("new"), noise(20_000, 9))?;
            fs::rename(place.shown("new"), place.shown("a"))
        }),
        ("cut", |place| File::options().write(true).open(place.shown("a"))?.set_len(12_345)),
        ("cut by opening", |place| fs::write(place.shown("a"), "short")),
        ("create", |place| fs::write(place.shown("dir/made"), noise(10_000, 10))),
        ("remove", |place| fs::remove_file(place.shown("b"))),
        ("rename a directory", |place| fs::rename(place.shown("dir"), place.shown("moved"))),
        ("link", |place| fs::hard_link(place.shown("b"), place.shown("dir/link"))),
        ("mode", |place| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
            fs::set_permissions(place.shown("a"), mode)
        }),
        ("read", |place| fs::read(place.shown("dir/c")).map(drop)),
        ("list", |place| fs::read_dir(place.shown("dir"))?.try_for_each(|entry| entry.map(drop))),
    ]
}

#[test]
fn whichever_call_is_the_first_to_fail_all_is_as_in_the_source_once_it_works_again() {
    let failing = Failing::new();
    let mounted = failing.place.mount(&TTL);
    let mut seen = 0;
    for ((name, act), halfway) in acts().into_iter().flat_map(|act| [(act, false), (act, true)]) {
        failing.control.halfway(halfway);
        for spared in 0.. {
            for path in fs::read_dir(&failing.below).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
            }
            fs::create_dir(failing.place.shown("dir")).unwrap();
            for (name, seed) in [("a", 1), ("b", 2), ("dir/c", 3)] {
                fs::write(failing.place.shown(name), noise(50_000, seed + spared)).unwrap();
            }
            failing.control.fail_after(spared, &ALL, Errno::IO);
            let done = act(&failing.place);
            let whole = failing.control.has_spared();
            failing.control.works();
            assert!(done.is_ok() || !whole, "{name}: {done:?}");
            // While it does not answer a name of before may still be there.
            let known = done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
            assert!(
                done.is_ok() || is_eio(&done) || known,
                "{name} after {spared} calls, {halfway}: {done:?}"
            );
            seen += usize::from(done.is_err());
            assert!(
                tree(&failing.place.point) == tree(&failing.below),
                "{name} after {spared} calls, {halfway}"
            );
            if whole {
                break;
            }
        }
    }
    assert!(seen > 40, "{seen}");
    mounted.unmount();
    let _mounted = failing.place.mount(&TTL);
    assert!(tree(&failing.place.point) == tree(&failing.below), "after another mount");
}

#[test]
fn a_slow_source_is_asked_for_bytes_once() {
    let failing = Failing::new();
    fs::create_dir(failing.below.join("dir")).unwrap();
    for number in 0..20 {
        fs::write(failing.below.join(format!("dir/{number}")), noise(100_000, number + 1)).unwrap();
    }
    age();
    failing.control.delay(Duration::from_millis(5));
    let look = || {
        assert_eq!(fs::read_dir(failing.place.shown("dir")).unwrap().count(), 20);
        for number in 0..20 {
            assert!(failing.read(&format!("dir/{number}")).unwrap() == noise(100_000, number + 1));
        }
    };
    let asked = |call| failing.control.count(call);
    let mounted = failing.place.mount(&["--ttl", "60"]);
    look();
    let reads = asked(Call::Read);
    assert!((20..=200).contains(&reads), "{reads} reads of 20 files");
    // Nor for names and attributes within the ttl: only to open.
    let (looks, lists) = (asked(Call::Look), asked(Call::List));
    look();
    assert_eq!(asked(Call::Read), reads);
    let (looks, lists) = (asked(Call::Look) - looks, asked(Call::List) - lists);
    assert!(looks <= 4 * 21 && lists == 0, "{looks} and {lists}");
    mounted.unmount();
    let _mounted = failing.place.mount(&TTL);
    look();
    assert_eq!(asked(Call::Read), reads);
    let file = File::options().write(true).open(failing.place.shown("dir/3")).unwrap();
    file.write_all_at(&noise(1000, 99), 50_000).unwrap();
    let mut wanted = noise(100_000, 4);
    wanted[50_000..][..1000].copy_from_slice(&noise(1000, 99));
    assert!(failing.read("dir/3").unwrap() == wanted);
    assert!(fs::read(failing.below.join("dir/3")).unwrap() == wanted);
    // What was written is kept: no byte is fetched again.
    assert_eq!(asked(Call::Read), reads);
}

/// What one has told in part and gone is not gone on with by the next.
#[test]
fn a_listing_that_was_ended_in_the_middle_is_begun_anew() {
    let place = Place::new();
    let name = |number: u64| format!("{number:0200}");
    fs::create_dir(place.real("dir")).unwrap();
    for number in 0..2000 {
        fs::write(place.real(&format!("dir/{}", name(number))), "").unwrap();
    }
    let _mounted = place.mount(&["--ttl", "60"]);
    let first = fs::read_dir(place.shown("dir")).unwrap().next().unwrap().unwrap().file_name();
    // By another time of the directory the kernel would see that it has changed.
    let dir = File::open(place.real("dir")).unwrap();
    let time = dir.metadata().unwrap().modified().unwrap();
    fs::remove_file(place.real("dir").join(&first)).unwrap();
    dir.set_modified(time).unwrap();
    for _ in 0..3 {
        let entries = fs::read_dir(place.shown("dir")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(entries.filter(|name| *name != first).collect::<BTreeSet<_>>().len(), 1999);
    }
}

/// The kernel keeps names one behind the other, whoever was told them: those of two moments left one out.
#[test]
fn a_name_that_is_there_all_along_is_in_every_listing_of_a_directory_that_changes() {
    let place = Place::new();
    let name = |number: u64| format!("{number:0200}");
    fs::create_dir(place.real("dir")).unwrap();
    for number in 0..2000 {
        fs::write(place.real(&format!("dir/{}", name(number))), "").unwrap();
    }
    let _mounted = place.mount(&["--ttl", "60"]);
    let mut slow = fs::read_dir(place.shown("dir")).unwrap();
    let first = slow.next().unwrap().unwrap().file_name();
    let names = |dir: fs::ReadDir| -> BTreeSet<_> { dir.map(|entry| entry.unwrap().file_name()).collect() };
    fs::remove_file(place.real("dir").join(&first)).unwrap();
    let beside = names(fs::read_dir(place.shown("dir")).unwrap());
    let slow = names(slow);
    let later = names(fs::read_dir(place.shown("dir")).unwrap());
    for number in (0..2000).map(name).map(std::ffi::OsString::from).filter(|name| *name != first) {
        for (which, names) in [("beside", &beside), ("slow", &slow), ("later", &later)] {
            assert!(names.contains(&number), "{which}: {number:?} is left out of {}", names.len());
        }
    }
}

#[test]
fn names_are_asked_for_once_within_the_ttl_and_anew_when_they_change() {
    let failing = Failing::new();
    fs::create_dir(failing.below.join("dir")).unwrap();
    for number in 0..300 {
        fs::write(failing.below.join(format!("dir/{number}")), "x").unwrap();
    }
    let names = || {
        let entries = fs::read_dir(failing.place.shown("dir")).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let asked = || [Call::List, Call::Look, Call::Attributes].map(|call| failing.control.count(call));
    let mounted = failing.place.mount(&["--ttl", "60"]);
    assert_eq!(names().len(), 300);
    let before = asked();
    assert_eq!(names().len(), 300);
    let more: Vec<_> = asked().iter().zip(before).map(|(now, before)| now - before).collect();
    // Of the directory itself.
    assert!(more[0] == 0 && more[1] <= 2 && more[2] <= 6, "{more:?}");
    fs::write(failing.place.shown("dir/new"), "x").unwrap();
    fs::rename(failing.place.shown("dir/0"), failing.place.shown("dir/other")).unwrap();
    fs::remove_file(failing.place.shown("dir/1")).unwrap();
    let now = names();
    assert!(now.len() == 300 && now.contains(&"new".to_owned()) && now.contains(&"other".to_owned()));
    assert!(!now.contains(&"0".to_owned()) && !now.contains(&"1".to_owned()));
    mounted.unmount();
    // Also within one tick of the source's clock, and with the old time put back.
    let _mounted = failing.place.mount(&["--ttl", "0.3"]);
    let dir = File::open(failing.below.join("dir")).unwrap();
    for turn in 0..4 {
        let time = dir.metadata().unwrap().modified().unwrap();
        let before = names();
        fs::write(failing.below.join(format!("dir/turn{turn}")), "x").unwrap();
        dir.set_modified(time).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(names().len(), before.len() + 1, "{turn}");
    }
    failing.fails(&ALL);
    std::thread::sleep(Duration::from_millis(400));
    assert!(names().len() >= 200);
    failing.control.works();
    fs::write(failing.below.join("dir/last"), "x").unwrap();
    assert_eq!(names().len(), 305, "what is kept is shown only while there is nothing else");
}

/// Its serving process is killed: all that is asked of it is ENOTCONN.
#[test]
fn a_source_that_vanishes_and_is_mounted_again_is_shown_as_before() {
    let (below, mut above) = (Place::new(), Place::new());
    fs::write(below.real("kept"), noise(200_000, 1)).unwrap();
    fs::write(below.real("unread"), noise(200_000, 2)).unwrap();
    above.source.clone_from(&below.point);
    age();
    let mounted = below.mount(&TTL);
    let _above = above.mount(&TTL);
    assert!(fs::read(above.shown("kept")).unwrap() == noise(200_000, 1));
    let open = File::options().read(true).write(true).open(above.shown("kept")).unwrap();
    open.write_all_at(b"before", 100).unwrap();
    let mut wanted = noise(200_000, 1);
    wanted[100..106].copy_from_slice(b"before");
    run("kill", &["-KILL", &mounted.child.id().to_string()], &below.source);
    std::thread::sleep(Duration::from_millis(300));
    let gone = |done: io::Result<()>| matches!(done.unwrap_err().raw_os_error(), Some(5 | 103 | 107));
    assert!(fs::read(above.shown("kept")).unwrap() == wanted);
    assert!(gone(fs::read(above.shown("unread")).map(drop)));
    assert!(gone(open.write_all_at(b"meanwhile", 100)));
    assert!(gone(fs::write(above.shown("new"), "x")));
    drop(mounted);
    assert!(fs::read(above.shown("kept")).unwrap() == wanted);
    let _mounted = below.mount(&TTL);
    assert!(fs::read(above.shown("unread")).unwrap() == noise(200_000, 2));
    assert!(fs::read(above.shown("kept")).unwrap() == wanted);
    open.write_all_at(b"after!", 100).unwrap();
    wanted[100..106].copy_from_slice(b"after!");
    assert!(is_eio(&open.sync_all()), "what became of what was written before is not known");
    open.sync_all().unwrap();
    assert!(
        fs::read(above.shown("kept")).unwrap() == wanted && fs::read(below.real("kept")).unwrap() == wanted
    );
}
