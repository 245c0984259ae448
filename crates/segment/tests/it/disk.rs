//! A real file: direct where the file system takes it, full midway, room given back.

use super::keys;
use crate::support::{payload, slot, tag, write_slots};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, ClassId, FileStorage, MAX_ENTRY_BLOCKS, Purpose, SEGMENT_BYTES,
    SegmentStore, Storage,
};
use vswap_sys::direct::{DirectFile, DirectWriter, PlaceError, place};

fn disk_dir() -> PathBuf {
    place::default_dir().expect("TMPDIR or /var/tmp on a disk")
}

#[test]
fn segments_on_a_file_come_back() {
    let storage = Arc::new(FileStorage::create(&disk_dir(), 64 << 20).unwrap());
    let store = SegmentStore::new(storage.clone(), keys());
    let entries: Vec<_> = (0..8).flat_map(|i| write_slots(&store, i * 1000..i * 1000 + 900)).collect();
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in &entries {
        let entry = store.read_entry(*addr, slot(*number), &mut buf).unwrap();
        assert_eq!(entry.bytes, payload(*number, 0));
    }
    let before = storage.file().allocated().unwrap();
    for (_, addr) in entries {
        store.release(addr).unwrap();
    }
    store.trim(false);
    let after = storage.file().allocated().unwrap();
    assert!(before >= 8 << 20 && after < before / 8, "{before} bytes of disk before, {after} after");
}

#[test]
fn several_segments_in_flight_through_io_uring_all_arrive() {
    let storage = Arc::new(FileStorage::create(&disk_dir(), 64 << 20).unwrap());
    let store = SegmentStore::new(storage, keys());
    let mut writer = store.writer(3);
    let mut written = Vec::new();
    for round in 0..12_u64 {
        let mut builder =
            store.begin(Purpose::Writeback, ClassId::COMMON, AlignedBuf::zeroed(SEGMENT_BYTES)).unwrap();
        for number in round * 500..round * 500 + 500 {
            let appended = builder.append(slot(number), tag(number), &payload(number, 0));
            assert!(matches!(appended, Appended::At(_)));
        }
        writer.submit(builder).unwrap();
    }
    while let Some(segment) = writer.wait().unwrap() {
        segment.result.as_ref().unwrap();
        written.extend(segment.entries());
    }
    assert_eq!((written.len(), writer.outstanding()), (6000, 0));
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (slot, addr) in written {
        assert_eq!(store.read_entry(addr, slot, &mut buf).unwrap().bytes, payload(slot.get(), 0));
    }
}

#[test]
fn the_fallback_without_io_uring_writes_the_same() {
    let file = Arc::new(DirectFile::create(&disk_dir()).unwrap());
    let with_ring = DirectWriter::new(file.clone(), 2);
    println!("direct: {}, io_uring: {}", file.is_direct(), with_ring.uses_io_uring());
    for mut writer in [with_ring, DirectWriter::without_io_uring(file.clone(), 2)] {
        for tag in 0..6_u64 {
            let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
            buf.fill(tag as u8 + 1);
            if writer.is_full() {
                writer.wait().unwrap().unwrap().result.unwrap();
            }
            writer.submit(tag * SEGMENT_BYTES as u64, buf, SEGMENT_BYTES, tag).unwrap();
        }
        while let Some(done) = writer.wait().unwrap() {
            done.result.unwrap();
            assert_eq!(done.buf[0], done.tag as u8 + 1);
        }
        let mut buf = AlignedBuf::zeroed(6 * SEGMENT_BYTES);
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 6 * SEGMENT_BYTES);
        for (i, part) in buf.chunks(SEGMENT_BYTES).enumerate() {
            assert!(part.iter().all(|byte| *byte == i as u8 + 1));
        }
        file.set_len(0).unwrap();
    }
}

/// Beside reads a write is given to the device in pieces; each piece is to lie where it belongs, the last, which is shorter, too.
#[test]
fn writes_in_pieces_beside_reads_arrive_whole() {
    let file = Arc::new(DirectFile::create(&disk_dir()).unwrap());
    let mut writer = DirectWriter::new(file.clone(), 2);
    let lengths = [SEGMENT_BYTES, BLOCK, SEGMENT_BYTES - BLOCK, 300 << 10, 256 << 10];
    let word = |write: usize, at: usize| (write << 32 | at) as u64;
    let (mut offset, mut places, mut block) = (0, Vec::new(), AlignedBuf::zeroed(BLOCK));
    file.write_at(0, &block).unwrap();
    for (write, len) in lengths.into_iter().enumerate() {
        let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
        for (at, bytes) in buf.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&word(write, at).to_le_bytes());
        }
        if writer.is_full() {
            writer.wait().unwrap().unwrap().result.unwrap();
        }
        file.read_at(0, &mut block).unwrap();
        writer.submit(offset, buf, len, write as u64).unwrap();
        places.push((write, offset, len));
        offset += len as u64;
    }
    while let Some(done) = writer.wait().unwrap() {
        done.result.unwrap();
    }
    // Those that are longer than a piece.
    assert_eq!(writer.divided(), if writer.uses_io_uring() { 3 } else { 0 });
    for (write, offset, len) in places {
        let mut buf = AlignedBuf::zeroed(len);
        assert_eq!(file.read_at(offset, &mut buf).unwrap(), len);
        let wrong =
            buf.chunks_exact(8).enumerate().find(|(at, bytes)| *bytes != word(write, *at).to_le_bytes());
        assert!(wrong.is_none(), "write {write} of {len}: {wrong:?}");
    }
}

#[test]
fn the_page_cache_fallback_keeps_bytes_and_gives_room_back() {
    let file = Arc::new(DirectFile::create_buffered(&disk_dir()).unwrap());
    assert!(!file.is_direct());
    let mut writer = DirectWriter::new(file.clone(), 2);
    assert!(!writer.uses_io_uring());
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    buf.fill(9);
    writer.submit(0, buf, SEGMENT_BYTES, 0).unwrap();
    let mut buf = writer.wait().unwrap().unwrap().buf;
    buf.fill(0);
    assert_eq!(file.read_at(0, &mut buf).unwrap(), SEGMENT_BYTES);
    assert!(buf.iter().all(|byte| *byte == 9));
    file.punch(0, SEGMENT_BYTES as u64).unwrap();
    assert_eq!(file.allocated().unwrap(), 0, "a file that has been punched takes no room");
}

#[test]
fn unaligned_requests_are_refused_before_the_kernel_sees_them() {
    let file = Arc::new(DirectFile::create(&disk_dir()).unwrap());
    let mut buf = AlignedBuf::zeroed(2 * BLOCK);
    assert_eq!(file.read_at(512, &mut buf).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(file.read_at(0, &mut buf[..100]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(file.read_at(0, &mut buf[8..8 + BLOCK]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(file.write_at(1, &buf).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut writer = DirectWriter::new(file, 1);
    let (error, buf) = writer.submit(0, buf, 3 * BLOCK, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    writer.submit(0, buf, BLOCK, 0).unwrap();
    let (error, _) = writer.submit(0, AlignedBuf::zeroed(BLOCK), BLOCK, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_memory_file_system_is_refused_as_a_disk() {
    let shm = Path::new("/dev/shm");
    if place::memory_file_system(shm).ok().flatten().is_none() {
        return println!("skipped: /dev/shm is not a tmpfs here");
    }
    let error = DirectFile::create(shm).unwrap_err();
    assert!(matches!(error, PlaceError::Memory { kind: "tmpfs", .. }), "{error}");
    let error = place::first_usable([shm.into(), "/no/such/dir".into()]).unwrap_err().to_string();
    assert!(error.contains("/dev/shm is on tmpfs") && error.contains("/no/such/dir"), "{error}");
}

#[test]
fn nothing_of_the_file_is_left_in_its_directory() {
    let dir = disk_dir().join(format!("vswap-test-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let storage = FileStorage::create(&dir, 4 << 20).unwrap();
    let names = std::fs::read_dir(&dir).unwrap().count();
    std::fs::remove_dir(&dir).unwrap();
    assert_eq!(names, 0);
    let buf = AlignedBuf::zeroed(BLOCK);
    storage.write_at(0, &buf).unwrap();
}

/// A small ext4 on a loop device, unmounted when dropped.
struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    fn mount(mib: u64) -> Result<Self, String> {
        let dir = disk_dir().join(format!("vswap-small-{}", std::process::id()));
        let image = dir.with_extension("img");
        let run = |program: &str, args: &[&str]| match Command::new(program).args(args).output() {
            Ok(out) if out.status.success() => Ok(()),
            Ok(out) => Err(format!("{program}: {}", String::from_utf8_lossy(&out.stderr).trim())),
            Err(e) => Err(format!("{program}: {e}")),
        };
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(mib << 20).map_err(|e| e.to_string())?;
        let (dir_arg, image_arg) = (dir.display().to_string(), image.display().to_string());
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0", &image_arg])
            .and_then(|()| run("mount", &["-o", "loop", &image_arg, &dir_arg]));
        // The loop device keeps the image alive; without it nothing should.
        let _ = std::fs::remove_file(&image);
        match made {
            Ok(()) => Ok(Self { dir }),
            Err(why) => {
                let _ = std::fs::remove_dir(&dir);
                Err(why)
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        let _ = std::fs::remove_dir(&self.dir);
    }
}

#[test]
fn a_disk_that_fills_midway_loses_nothing_and_works_again_after_a_trim() {
    let disk = match SmallDisk::mount(24) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no small disk to fill ({why}); needs root and a loop device"),
    };
    // The file may be longer than the disk has room: it is full before the table is.
    let storage = Arc::new(FileStorage::create(&disk.dir, 64 << 20).unwrap());
    let store = SegmentStore::new(storage.clone(), keys());
    println!("direct on the small disk: {}", storage.file().is_direct());
    let mut writer = store.writer(2);
    let mut alive = Vec::new();
    let mut refused = 0;
    for round in 0..20_u64 {
        let mut builder =
            store.begin(Purpose::Writeback, ClassId::COMMON, AlignedBuf::zeroed(SEGMENT_BYTES)).unwrap();
        for number in round * 1000..round * 1000 + 1000 {
            let _ = builder.append(slot(number), tag(number), &payload(number, 0));
        }
        writer.submit(builder).unwrap();
    }
    while let Some(written) = writer.wait().unwrap() {
        match &written.result {
            Ok(()) => alive.push(written.entries().collect::<Vec<_>>()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !alive.is_empty(), "{refused} refused, {} written", alive.len());
    assert_eq!(store.stats().segments as usize, alive.len());
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (slot, addr) in alive.iter().flatten() {
        assert_eq!(store.read_entry(*addr, *slot, &mut buf).unwrap().bytes, payload(slot.get(), 0));
    }
    for (_, addr) in alive.iter().flatten() {
        store.release(*addr).unwrap();
    }
    store.trim(false);
    let free = place::free_space(&disk.dir).unwrap();
    assert!(free > 12 << 20, "{free} bytes free of 24 MiB after everything was released");
    assert_eq!(storage.capacity(), 64 << 20);
    assert_eq!(write_slots(&store, 0..1000).len(), 1000);
}
