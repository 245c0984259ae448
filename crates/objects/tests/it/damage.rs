//! A store of which any one byte is another one, or of which the end is missing: each read is exact or an error, and nothing panics.

use crate::power::on_power::Index;
use std::io;
use std::sync::Arc;
use vswap_engine::{CodecChoice, EngineConfig};
use vswap_objects::{NamedError, Store, StoreConfig};
use vswap_segment::Storage;
use vswap_segment::power::Power;

const FILE: u64 = 4711;
const DATA: usize = 24 << 20;

/// The same bytes for many stores, of which each has another one at one place; they only read.
#[derive(Debug)]
struct Data {
    bytes: Arc<Vec<u8>>,
    other: Option<(usize, u8)>,
}

impl Storage for Data {
    fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = self.bytes.get(offset as usize..).unwrap_or_default();
        let got = from.len().min(into.len());
        into[..got].copy_from_slice(&from[..got]);
        if let Some((at, mask)) = self.other
            && let Some(byte) = at.checked_sub(offset as usize).and_then(|at| into[..got].get_mut(at))
        {
            *byte ^= mask;
        }
        Ok(got)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn vswap_segment::WriteQueue> {
        Box::new(vswap_segment::SyncQueue::new(self, depth))
    }
}

fn config() -> StoreConfig {
    let engine = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    StoreConfig { engine, index_cache: 1 << 20, page_cache: 0, marks: None, ..StoreConfig::default() }
}

/// Objects by key.
fn objects() -> Vec<(Vec<u8>, Vec<u8>)> {
    let noise = |at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8;
    let bytes = |of: u32| (0..of * 1900).map(move |at| if at % 3000 < 1500 { noise(at + of) } else { 7 });
    (0..4_u32).map(|of| (vec![of as u8; of as usize], bytes(of).collect())).collect()
}

/// The disks of a store that has them.
fn disks() -> (Arc<Vec<u8>>, Vec<u8>) {
    let (data, index) = (Power::new(DATA), Power::new(0));
    let store = Store::create_on(Arc::clone(&data) as _, FILE, Index(Arc::clone(&index)), &config()).unwrap();
    for (key, bytes) in objects() {
        let object = store.object(b"v", &key, 1).unwrap();
        object.write(0, &bytes).unwrap();
        object.set_aux(&bytes[..bytes.len().min(40)]).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let mut bytes = vec![0; DATA];
    data.read(0, &mut bytes);
    let mut lines = vec![0; index.len() as usize];
    index.read(0, &mut lines);
    (Arc::new(bytes), lines)
}

/// Everything is as it was, or an error says that it is not. Gives how many errors there were.
fn is_exact_or_says_so(data: Data, index: Vec<u8>, of: &str) -> usize {
    let mut refused = 0;
    let len = index.len();
    let opened = Store::open_on(Arc::new(data), FILE, Index(Power::holding(index, len)), &config());
    let Ok(store) = opened.inspect_err(|error| assert!(!error.to_string().is_empty())) else { return 1 };
    for (key, bytes) in objects() {
        let Ok(found) = store.find(b"v", &key).inspect_err(|_| refused += 1) else { continue };
        let object = found.unwrap_or_else(|| panic!("{of}: {key:?} is gone, and nothing says so"));
        assert!(object.len() == bytes.len() as u64 && object.version() == 1, "{of}");
        assert!(object.aux() == bytes[..bytes.len().min(40)], "{of}");
        let mut buf = vec![0; bytes.len()];
        match object.read(0, &mut buf) {
            Ok(read) => assert!(read.missing.is_empty() && buf == bytes, "{of}"),
            Err(_) => refused += 1,
        }
    }
    let mut listed = Vec::new();
    let each = |found: vswap_objects::Listed| {
        listed.push((found.key, found.damaged || found.version == 1));
        true
    };
    match store.list(b"v", b"", each) {
        Ok(()) => assert!(listed.len() == objects().len() && listed.iter().all(|(_, right)| *right), "{of}"),
        Err(_) => refused += 1,
    }
    refused + usize::from(store.audit().is_err())
}

/// All that are not zero, and of the others some: they are room that nobody has written to.
fn places(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (0..end).filter(|at| bytes[*at] != 0 || at.is_multiple_of(509))
}

#[test]
fn every_byte_that_is_another_one_is_found_or_does_no_harm() {
    let (data, index) = disks();
    let whole = || Data { bytes: Arc::clone(&data), other: None };
    assert_eq!(is_exact_or_says_so(whole(), index.clone(), "nothing"), 0);
    let (mut tried, mut refused) = (0, 0);
    for at in places(&index) {
        let mut other = index.clone();
        other[at] ^= 1 << (at % 8);
        refused +=
            usize::from(is_exact_or_says_so(whole(), other, &format!("byte {at:#x} of the index")) > 0);
        tried += 1;
    }
    assert!(refused > 1000, "{refused} of {tried} in the index");

    (tried, refused) = (0, 0);
    for at in places(&data) {
        let other = Data { bytes: Arc::clone(&data), other: Some((at, 1 << (at % 8))) };
        refused +=
            usize::from(is_exact_or_says_so(other, index.clone(), &format!("byte {at:#x} of the data")) > 0);
        tried += 1;
    }

    assert!(refused > 1000, "{refused} of {tried} in the data");
}

#[test]
fn an_index_or_a_file_of_which_the_end_is_missing_is_refused_or_does_no_harm() {
    let (data, index) = disks();
    let mut refused = 0;
    for len in (0..index.len()).step_by(4096).flat_map(|len| [len, len + 1, len + 4000]) {
        let whole = Data { bytes: Arc::clone(&data), other: None };
        let cut = index[..len.min(index.len() - 1)].to_vec();
        refused += usize::from(is_exact_or_says_so(whole, cut, &format!("{len:#x} bytes of the index")) > 0);
    }
    assert!(refused > 10, "{refused}");
}

fn says(opened: Result<Arc<Store>, NamedError>, words: &[&str]) {
    let said = opened.unwrap_err().to_string();
    assert!(words.iter().all(|word| said.contains(word)) && !said.contains("--force"), "{said}");
}

#[test]
fn a_store_of_which_a_part_is_missing_or_newer_is_refused_by_name() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (name, open) = (dir.path().to_str().unwrap(), || Store::open(dir.path(), &config()));
    drop(Store::create(dir.path(), 64 << 20, &config()).unwrap());
    let path = dir.path().join("data");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    file.set_len(5 << 20).unwrap();
    says(
        open(),
        &[path.to_str().unwrap(), "truncated at offset 0x500000", "its header says 0x4000000", "put back"],
    );
    file.set_len(64 << 20).unwrap();
    drop(open().unwrap());
    std::os::unix::fs::FileExt::write_at(&file, &[whole[8] + 1], 8).unwrap();
    says(open(), &[path.to_str().unwrap(), "of version", "at offset 0x8", "use the program that made it"]);
    std::os::unix::fs::FileExt::write_at(
        &file,
        &[whole[8], whole[9], whole[10], whole[11], whole[12] ^ 1],
        8,
    )
    .unwrap();
    says(open(), &[path.to_str().unwrap(), "checksum"]);
    std::os::unix::fs::FileExt::write_at(&file, &whole[..64], 0).unwrap();
    drop(open().unwrap());
    std::fs::write(dir.path().join("index"), b"").unwrap();
    says(open(), &[name, "the index is not that of a store"]);
}
