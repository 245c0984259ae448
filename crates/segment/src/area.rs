//! [`Area`]: a tier on a file or a block device that has a name.
//!
//! Its first 2 MiB, one segment's room, are ours to recognise it by: a header of 64 bytes, then zeroes. Segments lie behind it, at
//! whole multiples of 2 MiB. They are of no use to anybody after the run that wrote them, so an area that nobody has may be used anew
//! at once; what else is on a file or device is somebody's, and is left as it is unless that is to be overwritten.
//!
//! The header is described in `docs/segment-format.md`.

mod durable;
pub(crate) mod header;

use crate::error::AreaError;
use crate::signatures::{self, HEAD_BYTES, TAIL_BYTES};
use crate::storage::{Storage, TierKind, WriteQueue};
use crate::{AlignedBuf, BLOCK, SEGMENT_BYTES};
use header::{HEADER_BYTES, Header, NoHeader, VERSION};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vswap_sys::direct::{DirectFile, DirectWriter, NameKind, Named, NamedError};

/// Where segments begin.
const START: u64 = SEGMENT_BYTES as u64;
/// The least area: the header's segment and one more.
const LEAST: u64 = 2 * START;
/// Places between beginning and end at which something is looked for.
const SAMPLES: u64 = 64;

/// How long one that is in use is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file or device that is wanted as an area.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AreaConfig {
    /// Its name.
    pub path: PathBuf,
    /// The most bytes that are used of it, header included; all of it if nothing is said. A file that is not there, or empty, is made that long.
    pub size: Option<u64>,
    /// What is on it is overwritten, whoever's it is; beyond `size` nothing is.
    pub force: bool,
}

/// A file or device in use as a tier.
#[derive(Debug)]
pub struct Area {
    named: Named,
    bytes: u64,
    /// Room of freed segments goes back to the file system: it was not all there from the start.
    sparse: bool,
    /// What is on it is kept at the end.
    durable: bool,
    /// Whose it is. A forked child that drops its copy must not take the bytes away.
    process: u32,
}

impl Area {
    /// Opens a file, and makes it if it is not there and a size is given.
    ///
    /// # Errors
    /// [`AreaError`], which says what may have been changed.
    pub fn file(config: &AreaConfig) -> Result<Self, AreaError> {
        let path = &config.path;
        let missing = || NameKind::of(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let named = match config.size {
            Some(size) if missing() => {
                Self::long_enough(path, size)?;
                Named::create_file(path, size)?
            }
            _ => patiently(|| Named::open_file(path))?,
        };
        Self::open(named, config)
    }

    /// Opens a block device.
    ///
    /// # Errors
    /// [`AreaError`], which says what may have been changed.
    pub fn device(config: &AreaConfig) -> Result<Self, AreaError> {
        Self::open(patiently(|| Named::open_device(&config.path))?, config)
    }

    fn long_enough(path: &Path, bytes: u64) -> Result<(), AreaError> {
        if bytes >= LEAST {
            return Ok(());
        }
        Err(AreaError::TooSmall { path: path.to_owned(), bytes, least: LEAST })
    }

    fn open(mut named: Named, config: &AreaConfig) -> Result<Self, AreaError> {
        if let (0, NameKind::File, Some(size)) = (named.len(), named.kind(), config.size) {
            Self::long_enough(named.path(), size)?;
            named.grow(size)?;
        }
        let (path, len) = (named.path().to_owned(), named.len());
        let bytes = config.size.unwrap_or(len);
        if bytes > len {
            return Err(AreaError::Shorter { path, bytes: len, wanted: bytes });
        }
        Self::long_enough(&path, bytes)?;
        let io = |act| move |source| AreaError::Io { path: path.clone(), act, source };
        let found = look(&named, bytes)?;
        if let Some(found) = &found
            && !config.force
        {
            return Err(found.clone().refused(named.path()));
        }
        if found.is_some() {
            // Else the next one to look would find it again. Beyond `bytes` nothing is ours to change, so there it will.
            let tail = len.saturating_sub(TAIL_BYTES as u64).max(START).min(bytes);
            named.wipe(tail, bytes - tail).map_err(io("overwrite the end of"))?;
        }
        let mut head = AlignedBuf::zeroed(if found.is_some() { SEGMENT_BYTES } else { BLOCK });
        head[..HEADER_BYTES].copy_from_slice(&Header::new(bytes).encode());
        let path = named.path().to_owned();
        let io = |act| move |source| AreaError::Io { path, act, source };
        named.file().write_at(0, &head).map_err(io("write to"))?;
        let sparse = named.file().allocated().is_ok_and(|allocated| allocated < named.len());
        Ok(Self { named, bytes, sparse, durable: false, process: std::process::id() })
    }
}

/// A run that has ended to the eye of whoever started it may take a moment to let go of what it had; others look at a device for a moment.
fn patiently(open: impl Fn() -> Result<Named, NamedError>) -> Result<Named, NamedError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(NamedError::FileInUse { .. } | NamedError::DeviceInUse { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// Why a file or device is not to be used.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Found {
    Signature(signatures::Signature),
    /// No signature that is known, but not nothing.
    Data {
        offset: u64,
    },
    /// An area of another version.
    Version {
        found: u16,
    },
    /// The header of an area, damaged.
    Damaged {
        offset: u64,
    },
    /// An area that holds a store.
    Durable,
    /// An area of which a part is missing.
    Truncated {
        says: u64,
        len: u64,
    },
}

impl Found {
    fn refused(self, path: &Path) -> AreaError {
        let path = path.to_owned();
        match self {
            Self::Signature(found) => AreaError::Holds { path, what: found.what, offset: found.offset },
            Self::Data { offset } => AreaError::Data { path, offset },
            Self::Version { found } => {
                AreaError::Version { path, store: false, offset: 8, found, known: VERSION }
            }
            Self::Damaged { offset } => AreaError::Damaged { path, store: false, offset },
            Self::Durable => AreaError::HoldsStore { path },
            Self::Truncated { says, len } => AreaError::Truncated { path, store: false, offset: len, says },
        }
    }
}

/// What speaks against using `bytes` of it: `None` for an area of ours and for what holds nothing.
fn look(named: &Named, bytes: u64) -> Result<Option<Found>, AreaError> {
    let len = named.len();
    let head = read(named, 0, HEAD_BYTES)?;
    let tail_at = (len - TAIL_BYTES as u64).next_multiple_of(BLOCK as u64) - BLOCK as u64;
    let tail = read(named, tail_at, (len - tail_at) as usize)?;
    if let Some(found) = signatures::find(&head, &tail, tail_at, len) {
        return Ok(Some(Found::Signature(found)));
    }
    let says = match Header::decode(&head) {
        Ok(header) if header.durable => return Ok(Some(Found::Durable)),
        Ok(header) => header.bytes,
        Err(NoHeader::Magic) => return data(named, 0, len),
        Err(NoHeader::Version { found }) => return Ok(Some(Found::Version { found })),
        Err(NoHeader::Damaged { offset }) => return Ok(Some(Found::Damaged { offset })),
    };
    if says > len {
        return Ok(Some(Found::Truncated { says, len }));
    }
    if let Some(at) = nonzero(&head[HEADER_BYTES..]) {
        return Ok(Some(Found::Data { offset: HEADER_BYTES as u64 + at }));
    }
    // What was never a part of the area may be somebody's.
    if says < bytes { data(named, says, bytes) } else { Ok(None) }
}

/// Something between two offsets: at the beginning, at the end, or at places between.
fn data(named: &Named, from: u64, to: u64) -> Result<Option<Found>, AreaError> {
    let head_end = to.min(from + HEAD_BYTES as u64);
    let tail = to.saturating_sub(TAIL_BYTES as u64).max(head_end);
    let step = (tail - head_end) / SAMPLES / BLOCK as u64 * BLOCK as u64;
    let samples = (1..SAMPLES).map(|sample| head_end + sample * step).filter(|_| step > 0);
    let samples = samples.map(|at| (at, BLOCK as u64));
    for (at, len) in [(from, head_end - from), (tail, to - tail)].into_iter().chain(samples) {
        // Reads are of whole blocks.
        let block = at - at % BLOCK as u64;
        let before = (at - block) as usize;
        let bytes = read(named, block, before + len as usize)?;
        if let Some(found) = nonzero(&bytes[before..]) {
            return Ok(Some(Found::Data { offset: at + found }));
        }
    }
    Ok(None)
}

fn nonzero(bytes: &[u8]) -> Option<u64> {
    bytes.iter().position(|byte| *byte != 0).map(|at| at as u64)
}

/// `len` bytes, which are there, from a block's beginning on.
fn read(named: &Named, offset: u64, len: usize) -> Result<Vec<u8>, AreaError> {
    let mut buf = AlignedBuf::zeroed(len.next_multiple_of(BLOCK));
    let source = match named.file().read_at(offset, &mut buf) {
        Ok(got) if got >= len => return Ok(buf[..len].to_vec()),
        Ok(_) => io::ErrorKind::UnexpectedEof.into(),
        Err(source) => source,
    };
    Err(AreaError::Io { path: named.path().to_owned(), act: "read", source })
}

impl Storage for Area {
    fn kind(&self) -> TierKind {
        match self.named.kind() {
            NameKind::Device => TierKind::Device,
            _ => TierKind::File,
        }
    }

    fn start(&self) -> u64 {
        START
    }

    fn capacity(&self) -> u64 {
        self.bytes - START
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.named.file().read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.named.file().write_at(offset, from)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.named.kind() {
            NameKind::Device => self.named.discard(offset, len),
            _ if self.sparse => self.named.file().punch(offset, len),
            // Whoever gave a file all its room wants it to keep that.
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.named.file().sync()
    }

    fn file(&self) -> Option<&Arc<DirectFile>> {
        (self.kind() == TierKind::File).then(|| self.named.file())
    }

    fn path(&self) -> Option<&Path> {
        Some(self.named.path())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(DirectWriter::new(Arc::clone(self.named.file()), depth))
    }
}

impl Drop for Area {
    /// A sparse file is sparse again. (A device would take a while to discard all of it, and nobody waits for the room.)
    fn drop(&mut self) {
        if self.sparse && !self.durable && self.kind() == TierKind::File && self.process == std::process::id()
        {
            let _ = self.named.file().punch(START, self.bytes - START);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt;

    const LEN: u64 = 16 << 20;

    struct File {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl File {
        fn new() -> Self {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            let path = dir.path().join("area");
            fs::File::create(&path).unwrap().set_len(LEN).unwrap();
            Self { _dir: dir, path }
        }

        fn put(&self, at: u64, bytes: &[u8]) {
            fs::OpenOptions::new().write(true).open(&self.path).unwrap().write_all_at(bytes, at).unwrap();
        }

        fn open(&self, force: bool) -> Result<Area, AreaError> {
            Area::file(&AreaConfig { path: self.path.clone(), size: None, force })
        }

        fn open_part(&self, size: u64, force: bool) -> Result<Area, AreaError> {
            Area::file(&AreaConfig { path: self.path.clone(), size: Some(size), force })
        }

        /// Refused with name and offset, left as it was, and overwritten if that is wanted, so that it is not refused again.
        fn is_refused(&self, says: &str, at: u64) {
            let before = fs::read(&self.path).unwrap();
            let error = self.open(false).unwrap_err().to_string();
            let place = format!("offset {at:#x}");
            for wanted in [says, &place, self.path.to_str().unwrap(), "--force"] {
                assert!(error.contains(wanted), "{wanted}: {error}");
            }
            assert!(before == fs::read(&self.path).unwrap(), "it was written to");
            drop(self.open(true).unwrap());
            drop(self.open(false).unwrap());
        }
    }

    #[test]
    fn an_area_of_a_former_run_is_used_anew_and_one_in_use_is_refused() {
        let file = File::new();
        let area = file.open(false).unwrap();
        assert_eq!((area.capacity(), area.start(), area.kind()), (LEN - START, START, TierKind::File));
        area.write_at(START, &AlignedBuf::zeroed(BLOCK)).unwrap();
        let error = file.open(true).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        drop(area);
        file.put(START, &[0xab; 4096]);
        file.open(false).unwrap();
    }

    /// Else a child that was forked, and drops what it has of its parent's, takes away what the parent has written.
    #[test]
    fn only_the_process_that_opened_it_gives_a_file_its_holes_back() {
        let written = |file: &File| fs::read(&file.path).unwrap()[START as usize] != 0;
        for (process, stays) in [(1, true), (std::process::id(), false)] {
            let file = File::new();
            let mut area = file.open(false).unwrap();
            let mut block = AlignedBuf::zeroed(BLOCK);
            block.fill(7);
            area.write_at(START, &block).unwrap();
            area.process = process;
            drop(area);
            assert_eq!(written(&file), stays);
        }
    }

    #[test]
    fn a_file_with_a_signature_is_refused_unless_it_is_to_be_overwritten() {
        for (at, bytes, says) in [
            (0, b"XFSB".as_slice(), "an XFS file system"),
            (0, b"LUKS\xba\xbe", "a LUKS header"),
            (4086, b"SWAPSPACE2", "a swap area"),
            (512, b"LABELONE", "an LVM physical volume"),
            (0x10040, b"_BHRfS_M", "a btrfs file system"),
            (LEN - 512, b"EFI PART", "a GUID partition table"),
            (LEN - 8192, b"\xfc\x4e\x2b\xa9", "RAID"),
        ] {
            let file = File::new();
            // One that keeps its room, so that nothing goes but what is overwritten.
            file.put(0, &vec![0; LEN as usize]);
            file.put(at, bytes);
            file.is_refused(says, at);
        }
    }

    #[test]
    fn what_is_not_known_is_refused_where_it_begins() {
        for at in [0, 4711, HEAD_BYTES as u64 - 1, LEN / 2, LEN - 1] {
            let file = File::new();
            // As large as what is looked at in the middle is apart.
            file.put(at.saturating_sub(1 << 20), &[0; 1]);
            let bytes = if at == LEN / 2 { vec![7; 512 << 10] } else { vec![7] };
            file.put(at, &bytes);
            let error = file.open(false).unwrap_err();
            assert!(matches!(error, AreaError::Data { .. }), "{error}");
            if at != LEN / 2 {
                file.is_refused("data", at);
            }
        }
    }

    #[test]
    fn a_signature_over_an_area_of_ours_counts_for_more() {
        let file = File::new();
        drop(file.open(false).unwrap());
        file.put(4086, b"SWAPSPACE2");
        file.is_refused("a swap area", 4086);
    }

    #[test]
    fn what_lies_behind_an_area_of_ours_is_somebody_elses() {
        let half = LEN / 2 + 100;
        for at in [half, half + 5000, LEN / 4 * 3, LEN - 1] {
            let file = File::new();
            drop(file.open_part(half, false).unwrap());
            file.put(half - 1, &[7]);
            file.put(at, &vec![7; (LEN - at).min(1 << 20) as usize]);
            // As much as before is ours, and no more.
            drop(file.open_part(half, false).unwrap());
            let before = fs::read(&file.path).unwrap();
            let error = file.open(false).unwrap_err();
            assert!(
                matches!(error, AreaError::Data { offset, .. } if (at..at + (1 << 20)).contains(&offset)),
                "{error}"
            );
            assert!(before == fs::read(&file.path).unwrap(), "it was written to");
            drop(file.open(true).unwrap());
            drop(file.open(false).unwrap());
        }
    }

    #[test]
    fn nothing_is_changed_behind_what_is_used_not_even_by_force() {
        for (used, at, bytes) in [
            (LEN / 2, 4086, b"SWAPSPACE2".as_slice()),
            (LEN / 2 + 100, LEN - 512, b"EFI PART"),
            (LEN - 4096, LEN - 8192, b"\xfc\x4e\x2b\xa9"),
        ] {
            let file = File::new();
            file.put(0, &vec![7; LEN as usize]);
            file.put(at, bytes);
            let behind = |file: &File| fs::read(&file.path).unwrap().split_off(used as usize);
            let before = behind(&file);
            assert!(file.open_part(used, false).is_err());
            drop(file.open_part(used, true).unwrap());
            assert!(behind(&file) == before);
            // A signature there is found again.
            assert_eq!(file.open_part(used, false).is_err(), at >= used);
        }
    }

    #[test]
    fn a_truncated_damaged_or_newer_area_is_refused() {
        let file = File::new();
        drop(file.open(false).unwrap());
        fs::OpenOptions::new().write(true).open(&file.path).unwrap().set_len(LEN / 2).unwrap();
        file.is_refused("truncated", LEN / 2);
        file.put(17, &[0xff]);
        file.is_refused("damaged", 56);
        file.put(8, &[9]);
        file.is_refused("version 9", 8);
        file.put(100, &[1]);
        file.is_refused("data", 100);
    }

    /// Flags, a place of segments and fields that were not there when this was written mean something.
    #[test]
    fn a_header_that_says_more_than_is_known_is_refused_whatever_its_checksum() {
        for at in [10, 11, 12, 15, 32, 55] {
            let file = File::new();
            let mut header = Header { bytes: LEN, number: 7, durable: false }.encode();
            header[at] ^= 0x10;
            Header::sum(&mut header);
            file.put(0, &header);
            file.is_refused("damaged", at as u64);
        }
    }

    #[test]
    fn a_file_is_made_only_if_its_size_is_given_and_is_never_shorter_than_wanted() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("new");
        let config = |size| AreaConfig { path: path.clone(), size, force: false };
        assert!(Area::file(&config(None)).is_err() && !path.exists());
        let error = Area::file(&config(Some(START))).unwrap_err();
        assert!(matches!(error, AreaError::TooSmall { .. }) && !path.exists(), "{error}");
        assert_eq!(Area::file(&config(Some(LEN))).unwrap().capacity(), LEN - START);
        assert_eq!(fs::metadata(&path).unwrap().len(), LEN);
        assert_eq!(Area::file(&config(Some(LEN / 2))).unwrap().capacity(), LEN / 2 - START);
        let error = Area::file(&config(Some(2 * LEN))).unwrap_err();
        assert!(matches!(error, AreaError::Shorter { .. }), "{error}");
        let memory = AreaConfig { path: "/dev/shm/vswap-no-such-file".into(), ..config(Some(LEN)) };
        let error = Area::file(&memory).unwrap_err().to_string();
        assert!(error.contains("tmpfs") && !memory.path.exists(), "{error}");
    }

    #[test]
    fn a_file_that_has_all_its_room_keeps_it_and_another_gives_it_back() {
        for full in [false, true] {
            let file = File::new();
            if full {
                file.put(0, &vec![0; LEN as usize]);
            }
            let area = file.open(false).unwrap();
            let allocated = || area.named.file().allocated().unwrap();
            let mut segment = AlignedBuf::zeroed(SEGMENT_BYTES);
            segment.fill(1);
            area.write_at(START, &segment).unwrap();
            let before = allocated();
            area.punch(START, SEGMENT_BYTES as u64).unwrap();
            let given = before - allocated();
            assert_eq!(given, if full { 0 } else { SEGMENT_BYTES as u64 });
        }
    }
}
