//! Kinds of tiers: directories, files, block devices, memory. Devices are loop devices, which takes root.
use crate::rig::{Rig, middling};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vswap_core::{ByteCount, PAGE_SIZE};
use vswap_engine::{
    Engine, EngineConfig, EngineError, LoadedFrom, SEGMENT_BYTES, TierConfig, TierId, TierKind, Unreadable,
};
use vswap_segment::{AlignedBuf, Ghost, Storage};

const LEN: u64 = 64 << 20;

/// A directory on a disk that goes with its value.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn blank(path: &Path) {
    File::create(path).unwrap().set_len(LEN).unwrap();
}

/// A block device over a file.
struct Loop {
    path: PathBuf,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Loop {
    /// `None`, with a word, where there can be none.
    fn new() -> Option<Self> {
        let dir = directory();
        let file = dir.path().join("disk");
        blank(&file);
        let made = Command::new("losetup").args(["--find", "--show"]).arg(&file).output();
        match made {
            Ok(made) if made.status.success() => {
                let path = String::from_utf8(made.stdout).unwrap().trim().into();
                Some(Self { path, file, _dir: dir })
            }
            other => {
                eprintln!("skipped: no loop device, which takes root: {other:?}");
                None
            }
        }
    }

    fn allocated(&self) -> u64 {
        fs::metadata(&self.file).unwrap().blocks() * 512
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

fn engine() -> Arc<Engine> {
    Engine::new(EngineConfig::default()).unwrap()
}

fn remove(engine: &Engine, tier: TierId) {
    engine.remove_tier(tier, Unreadable::Keep, &mut |_| ControlFlow::Continue(())).unwrap();
}

/// 4096 pages of some 2 KiB are written there, stay right while it is emptied to another of the same kind, and are right there.
fn pages_come_and_go(first: &TierConfig, second: &TierConfig) {
    let mut rig = Rig::of(engine(), 8);
    let kind = first.kind;
    let path = (kind != TierKind::Ghost).then(|| first.path.clone());
    let first = rig.engine.add_tier(first).unwrap();
    for number in 0..4096 {
        rig.store(number, number);
    }
    assert!(!rig.write_all_back());
    let tier = &rig.engine.tiers()[0];
    assert_eq!((tier.kind, tier.path.as_ref()), (kind, path.as_ref()));
    assert!(tier.used.get() >= 4 * SEGMENT_BYTES as u64 && tier.size.get() >= tier.used.get(), "{tier:?}");
    let second = rig.engine.add_tier(second).unwrap();
    remove(&rig.engine, first);
    for number in 0..4096 {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Segment, middling(number)), "page {number}");
    }
    for number in 0..4096 {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    remove(&rig.engine, second);
    assert!(rig.engine.tiers().is_empty());
    rig.finish();
}

#[test]
fn pages_come_and_go_in_directories_without_a_size() {
    let (first, second) = (directory(), directory());
    let of = |dir: &tempfile::TempDir| TierConfig::of(TierKind::Directory, dir.path());
    pages_come_and_go(&of(&first), &of(&second));
    for dir in [first, second] {
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something is left");
    }
}

#[test]
fn a_directory_without_a_size_may_take_most_of_what_is_free_at_any_moment() {
    let dir = directory();
    let engine = engine();
    engine.add_tier(&TierConfig::of(TierKind::Directory, dir.path())).unwrap();
    let spare = || vswap_sys::direct::place::free_space(dir.path()).unwrap() / 5 * 4;
    let near = |size: u64| size.abs_diff(spare()) < spare() / 4;
    let size = || engine.tiers()[0].size.get();
    assert!(near(size()), "{} of {}", size(), spare());
    // What others take is not promised any more. (Whoever else is on the disk may take and give as well.)
    let less = |number: u32| {
        let before = size();
        let other = File::create(dir.path().join(number.to_string())).unwrap();
        other.write_all_at(&vec![1; 64 << 20], 0).unwrap();
        other.sync_all().unwrap();
        size() <= before.saturating_sub(32 << 20)
    };
    assert!((0..5).any(less));
}

#[test]
fn pages_come_and_go_in_files_which_stay() {
    let dir = directory();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    blank(&first);
    let made = TierConfig { size: Some(ByteCount::new(LEN)), ..TierConfig::of(TierKind::File, &second) };
    pages_come_and_go(&TierConfig::of(TierKind::File, &first), &made);
    for file in [first, second] {
        let left = fs::metadata(&file).unwrap();
        assert_eq!(left.len(), LEN);
        assert!(left.blocks() * 512 <= 2 << 20, "room was not given back: {left:?}");
        // What a former run has left is no hindrance.
        engine().add_tier(&TierConfig::of(TierKind::File, &file)).unwrap();
    }
}

#[test]
fn pages_come_and_go_on_devices_which_are_told_what_is_free() {
    let (Some(first), Some(second)) = (Loop::new(), Loop::new()) else { return };
    let of = |device: &Loop| TierConfig::of(TierKind::Device, &device.path);
    pages_come_and_go(&of(&first), &of(&second));
    for device in [first, second] {
        assert!(device.allocated() <= 2 << 20, "{} are not discarded", device.allocated());
        engine().add_tier(&of(&device)).unwrap();
    }
}

fn refusal(config: &TierConfig) -> String {
    let error = engine().add_tier(config).unwrap_err();
    assert!(matches!(error, EngineError::Area(_)), "{error:?}");
    error.to_string()
}

#[test]
fn a_second_user_is_refused_even_by_force() {
    let dir = directory();
    let file = dir.path().join("file");
    blank(&file);
    let device = Loop::new();
    let device = device.as_ref().map(|device| TierConfig::of(TierKind::Device, &device.path));
    for config in [Some(TierConfig::of(TierKind::File, &file)), device].into_iter().flatten() {
        let config = TierConfig { force: true, ..config };
        let first = engine();
        let tier = first.add_tier(&config).unwrap();
        assert!(refusal(&config).contains("in use"), "{}", refusal(&config));
        // Nor by the same one, since its segments would lie over each other.
        assert!(first.add_tier(&config).is_err());
        remove(&first, tier);
        engine().add_tier(&config).unwrap();
    }
}

/// There are as many as can be: nothing is made or overwritten for one more.
#[test]
fn one_tier_too_many_is_refused_before_anything_is_written() {
    let dir = directory();
    let engine = engine();
    for _ in 0..vswap_segment::MAX_TIERS {
        engine.add_tier(&TierConfig::of(TierKind::Ghost, "")).unwrap();
    }
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let mut bytes = vec![7; 8 << 20];
    bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
    fs::write(&old, &bytes).unwrap();
    for path in [&old, &new] {
        let size = Some(ByteCount::new(8 << 20));
        let config = TierConfig { force: true, size, ..TierConfig::of(TierKind::File, path) };
        let error = engine.add_tier(&config).unwrap_err().to_string();
        assert!(error.contains("remove one first"), "{error}");
    }
    assert!(fs::read(&old).unwrap() == bytes && !new.exists());
}

/// A loop device and its file are the same bytes, under two names and two locks.
#[test]
fn what_is_behind_a_loop_device_and_the_device_are_one_tier() {
    let Some(device) = Loop::new() else { return };
    let mut rig = Rig::of(engine(), 8);
    let over = TierConfig::of(TierKind::Device, &device.path);
    let tier = rig.engine.add_tier(&over).unwrap();
    for number in 0..4096 {
        rig.store(number, number);
    }
    assert!(!rig.write_all_back());
    let file = TierConfig { force: true, ..TierConfig::of(TierKind::File, &device.file) };
    assert!(refusal(&file).contains("in use"));
    for number in 0..4096 {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Segment, middling(number)), "page {number}");
    }
    for number in 0..4096 {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    remove(&rig.engine, tier);
    rig.finish();
    // Also when nobody has the device, which may be mounted at any moment; and under another name.
    let other = TierConfig { path: device.file.with_file_name("other"), force: false, ..file.clone() };
    fs::hard_link(&file.path, &other.path).unwrap();
    for config in [file, other] {
        let error = refusal(&config);
        assert!(error.contains(&format!("is behind {}", device.path.display())), "{error}");
    }
    // Who had the file before there was a device over it has the device's bytes.
    let locked = File::open(&device.file).unwrap();
    locked.lock().unwrap();
    let error = refusal(&over);
    assert!(error.contains("in use") && error.contains(device.file.to_str().unwrap()), "{error}");
    locked.unlock().unwrap();
    let user = engine();
    user.add_tier(&over).unwrap();
    assert!(locked.try_lock().is_err(), "what is behind it is not locked");
    drop(user);
    locked.try_lock().unwrap();
}

/// What `mkfs` and `mkswap` make is refused by its name, left as it was, and overwritten by force.
#[test]
fn what_others_have_made_on_a_device_is_refused_and_intact() {
    for (program, options, says) in [
        ("mkfs.ext4", &["-q", "-F"][..], "ext4 file system"),
        ("mkfs.xfs", &["-q", "-f"], "XFS"),
        ("mkfs.btrfs", &["-q", "-f"], "btrfs"),
        ("mkfs.vfat", &[], "FAT"),
        ("mkswap", &[], "swap area"),
        ("cryptsetup", &["-q", "luksFormat", "--key-file", "/etc/hostname"], "LUKS"),
        ("pvcreate", &["-q", "-y"], "LVM"),
    ] {
        let Some(device) = Loop::new() else { return };
        let made = Command::new(program).args(options).arg(&device.path).output();
        match made {
            Ok(made) if made.status.success() => {}
            other => {
                eprintln!("skipped: {program}: {other:?}");
                continue;
            }
        }
        let config = TierConfig::of(TierKind::Device, &device.path);
        let before = fs::read(&device.path).unwrap();
        let error = refusal(&config);
        for wanted in [says, device.path.to_str().unwrap(), "offset 0x", "--force"] {
            assert!(error.contains(wanted), "{error}");
        }
        assert!(before == fs::read(&device.path).unwrap(), "{program}: it was written to");
        engine().add_tier(&TierConfig { force: true, ..config.clone() }).unwrap();
        engine().add_tier(&config).unwrap();
    }
}

#[test]
fn a_mounted_device_is_refused_even_by_force() {
    let Some(device) = Loop::new() else { return };
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.path).status();
    let dir = directory();
    let mounted = Command::new("mount").arg(&device.path).arg(dir.path()).status();
    if !made.is_ok_and(|made| made.success()) || !mounted.is_ok_and(|mounted| mounted.success()) {
        return eprintln!("skipped: nothing can be mounted");
    }
    fs::write(dir.path().join("precious"), "still here").unwrap();
    let config = TierConfig { force: true, ..TierConfig::of(TierKind::Device, &device.path) };
    let error = engine().add_tier(&config).map_err(|error| error.to_string());
    let left = fs::read_to_string(dir.path().join("precious"));
    let _ = Command::new("umount").arg(dir.path()).status();
    assert!(error.as_ref().is_err_and(|error| error.contains("in use: mounted")), "{error:?}");
    assert_eq!(left.unwrap(), "still here");
}

#[test]
fn what_is_of_another_kind_is_refused_with_what_it_is() {
    let dir = directory();
    let file = dir.path().join("file");
    blank(&file);
    let of = |kind, path: &Path| refusal(&TierConfig::of(kind, path));
    assert!(of(TierKind::Device, &file).contains("is a regular file, not a block device"));
    assert!(of(TierKind::File, dir.path()).contains("is a directory, not a regular file"));
    assert!(of(TierKind::File, Path::new("/dev/null")).contains("neither"));
    assert!(of(TierKind::Device, Path::new("/no/such")).contains("/no/such"));
    let error = engine().add_tier(&TierConfig::of(TierKind::Directory, &file)).unwrap_err();
    assert!(matches!(error, EngineError::Disk { .. }), "{error}");
}

#[test]
fn pages_come_and_go_in_ghosts() {
    let of = |size| TierConfig { size, ..TierConfig::of(TierKind::Ghost, "") };
    pages_come_and_go(&of(Some(ByteCount::new(1 << 50))), &of(None));
}

#[test]
fn the_memory_of_a_ghost_is_counted_and_given_back_with_its_segments() {
    let mut rig = Rig::of(engine(), 8);
    rig.engine.add_tier(&TierConfig::of(TierKind::Ghost, "")).unwrap();
    for number in 0..4096 {
        rig.store(number, number);
    }
    let payload = rig.engine.pool_payload().get();
    assert!(!rig.write_all_back());
    let held = rig.engine.ghost_bytes().get();
    assert!((payload..payload / 8 * 9).contains(&held), "{held} for {payload}");
    assert_eq!(rig.engine.stats().ghost_bytes.get(), held);
    for number in 0..2048 {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    rig.engine.maintain(false);
    let left = rig.engine.ghost_bytes().get();
    assert!(left < held / 3 * 2, "{left} of {held} for half of the pages");
    let engine = Arc::clone(&rig.engine);
    rig.finish();
    engine.maintain(false);
    assert_eq!(engine.ghost_bytes(), ByteCount::ZERO);
}

#[test]
fn a_ghost_at_its_limit_is_full_like_any_tier_and_the_next_one_is_written() {
    let mut rig = Rig::of(engine(), 8);
    let dir = directory();
    let ghost = TierConfig { priority: 5, ..TierConfig::of(TierKind::Ghost, "") };
    let ghost = rig.engine.add_tier(&ghost).unwrap();
    rig.engine.set_ghost_limit(ByteCount::new(2 * SEGMENT_BYTES as u64));
    for number in 0..4096 {
        rig.store(number, number);
    }
    assert!(rig.write_all_back(), "there is no other");
    assert_eq!(rig.engine.tiers()[0].size.get(), 2 * SEGMENT_BYTES as u64, "as things stand");
    let disk = rig.engine.add_tier(&TierConfig::of(TierKind::Directory, dir.path())).unwrap();
    assert!(!rig.write_all_back());
    let most = 2 * SEGMENT_BYTES as u64;
    let (held, used) = (rig.engine.ghost_bytes().get(), rig.engine.tiers()[1].used.get());
    assert!(held <= most && held > most / 2 && used > 0, "{held} and {used}");
    // What is on the disk does not fit: refused at once, as for any tier.
    let refused = rig.engine.remove_tier(disk, Unreadable::Keep, &mut |_| panic!("nothing is begun"));
    assert!(refused.is_err_and(|error| error.to_string().contains("there is room for 0")));
    rig.engine.set_ghost_limit(ByteCount::new(u64::MAX));
    remove(&rig.engine, disk);
    assert!(rig.engine.ghost_bytes().get() > most);
    for number in 0..4096 {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Segment, middling(number)), "page {number}");
    }
    rig.engine.add_tier(&TierConfig::of(TierKind::Directory, dir.path())).unwrap();
    remove(&rig.engine, ghost);
    assert_eq!(rig.engine.ghost_bytes(), ByteCount::ZERO);
    rig.finish();
}

/// A segment that moves out of memory is sealed, one that moves in is opened, and a reader may have looked up where it was before: it is to take those
/// bytes for what they were, or look again.
#[test]
fn readers_find_every_page_while_segments_move_between_a_disk_and_memory() {
    const PAGES: usize = 2048;
    let mut rig = Rig::of(engine(), 4);
    let dir = directory();
    let disk = TierConfig::new(dir.path(), ByteCount::new(LEN));
    let ghost = TierConfig::of(TierKind::Ghost, "");
    let mut at = rig.engine.add_tier(&disk).unwrap();
    let slots: Vec<_> = (0..PAGES).map(|number| rig.store(number, number)).collect();
    assert!(!rig.write_all_back());
    let (over, engine) = (AtomicBool::new(false), Arc::clone(&rig.engine));
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|reader| {
            let (slots, over, engine) = (&slots, &over, &engine);
            scope.spawn(move || {
                let (mut page, mut scratch) = ([0; PAGE_SIZE], engine.scratch());
                let (mut number, mut loads) = (reader * 7, 0_u64);
                // Relaxed: nothing is read on the strength of it.
                while !over.load(Ordering::Relaxed) {
                    number = (number * 5 + 1) % PAGES;
                    engine.load(slots[number], &mut page, &mut scratch).unwrap();
                    assert!(page == middling(number), "page {number}");
                    loads += 1;
                }
                loads
            })
        });
        for round in 0..24 {
            let next = engine.add_tier(if round % 2 == 0 { &ghost } else { &disk }).unwrap();
            remove(&engine, at);
            at = next;
        }
        over.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert_eq!(engine.stats().lost, 0);
    rig.finish();
}

/// A page that does not compress, to be found again wherever its bytes are.
fn noise(number: u64) -> [u8; PAGE_SIZE] {
    let mut seed = number + 1;
    std::array::from_fn(|_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    })
}

/// In memory pages lie in the clear; they are sealed when they go to a disk, and opened when they come back.
#[test]
fn what_is_in_a_ghost_is_not_encrypted_and_what_leaves_it_is() {
    let dir = directory();
    let path = dir.path().join("area");
    blank(&path);
    let ghost = || Arc::new(Ghost::new(LEN, Arc::default()));
    let mut rig = Rig::of(engine(), 1);
    let first = ghost();
    let first_id = rig.engine.add_storage(Arc::clone(&first) as _, 0).unwrap();
    let (page, wanted) = (noise(7), noise(7)[100..200].to_vec());
    let slots: Vec<_> = (0..500)
        .map(|number| {
            let (block, at) = Rig::place(number);
            let slot = rig.blocks[block].slot_for_store(&rig.engine, at).unwrap();
            let bytes = if number == 7 { page } else { noise(1000 + number as u64) };
            rig.engine.store(slot, &bytes, &mut rig.scratch).unwrap();
            slot
        })
        .collect();
    assert!(!rig.write_all_back());
    let is_in = |bytes: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    let inside = |ghost: &Ghost| {
        let mut bytes = AlignedBuf::zeroed(SEGMENT_BYTES);
        ghost.read_at(0, &mut bytes).unwrap();
        is_in(&bytes)
    };
    assert!(inside(&first), "encrypted in memory");
    let check = |rig: &mut Rig| {
        let mut bytes = [0; PAGE_SIZE];
        rig.engine.load(slots[7], &mut bytes, &mut rig.scratch).unwrap();
        assert!(bytes == page);
    };
    check(&mut rig);
    let file = rig.engine.add_tier(&TierConfig::of(TierKind::File, &path)).unwrap();
    remove(&rig.engine, first_id);
    check(&mut rig);
    let once = fs::read(&path).unwrap();
    assert!(!is_in(&once), "in the clear on a disk");
    let second = ghost();
    let second_id = rig.engine.add_storage(Arc::clone(&second) as _, 0).unwrap();
    remove(&rig.engine, file);
    check(&mut rig);
    assert!(inside(&second));
    // The same text under the same nonce, so the same bytes.
    rig.engine.add_tier(&TierConfig::of(TierKind::File, &path)).unwrap();
    remove(&rig.engine, second_id);
    check(&mut rig);
    let again = fs::read(&path).unwrap();
    assert!(once[SEGMENT_BYTES..] == again[SEGMENT_BYTES..], "sealed differently");
    rig.finish();
}

/// A run of pages takes one read of a device; in memory there is no read to spare, and nothing is copied that is not wanted.
#[test]
fn nothing_is_read_in_advance_from_a_ghost() {
    let mut rig = Rig::of(engine(), 1);
    rig.engine.add_tier(&TierConfig::of(TierKind::Ghost, "")).unwrap();
    let slots: Vec<_> = (0..32).map(|number| Some(rig.store(number, number))).collect();
    assert!(!rig.write_all_back());
    let read = |rig: &Rig| rig.engine.stats().read_bytes.get();
    (0..32).for_each(|number| drop(rig.load(number)));
    let one_by_one = read(&rig);
    let mut scratch = rig.engine.scratch_for_runs();
    let (mut pages, mut loaded) = (vec![[0; PAGE_SIZE]; 32], Vec::new());
    loaded.resize_with(32, || None);
    rig.engine.load_run(&slots, 3, &mut pages, &mut loaded, &mut scratch);
    assert_eq!(read(&rig), 2 * one_by_one);
    assert!((0..32).all(|number| pages[number] == middling(number)));
    rig.finish();
}
