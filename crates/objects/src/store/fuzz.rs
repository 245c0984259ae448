//! A store whose index has lines that nobody has written, each with a checksum that is right. Built for `crates/fuzz` only.

use crate::store::begin_write;
use crate::store::on_power::Index;
use crate::store::records::{CLUSTERS, OBJECTS, ObjectRecord, SEGMENTS, decode_cluster, decode_segment};
use crate::store::records::{encode_cluster, encode_segment, forged};
use crate::{CodecChoice, EngineConfig, Store, StoreConfig};
use redb::{ReadableDatabase, ReadableTable};
use std::sync::Arc;
use vswap_segment::power::Power;

const FILE: u64 = 4711;
const DATA: usize = 16 << 20;

fn config() -> StoreConfig {
    let engine = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    StoreConfig { engine, index_cache: 1 << 16, page_cache: 0, marks: None, ..StoreConfig::default() }
}

/// A store with some objects, and its disks.
fn store() -> (Arc<Store>, Arc<Power>, Arc<Power>) {
    let (data, index) = (Power::new(DATA), Power::new(0));
    let made = Store::create_on(Arc::clone(&data) as _, FILE, Index(Arc::clone(&index)), &config());
    let store = made.expect("nothing fails");
    for key in 0..3_u8 {
        let object = store.object(b"v", &[key], 1).expect("there is room");
        let bytes: Vec<u8> = (0..9000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        object.write(u64::from(key) * 3000, &bytes[..usize::from(key) * 4000]).expect("there is room");
        object.write(1 << 20, &[key; 4096]).expect("there is room");
    }
    store.sync().expect("nothing fails");
    (store, data, index)
}

/// Lines for the index: a table (one byte), a key and a length (two bytes each, lowest first), and the line without its checksum. A line that is read says what it says when it is
/// written again. A store that has them is refused, or says what is damaged, or is used like any other.
///
/// # Panics
/// When that does not hold.
pub fn lines(mut data: &[u8]) {
    let (store, disk, index) = store();
    let txn = begin_write(&store.index).expect("nothing fails");
    while let Some((head, rest)) = data.split_first_chunk::<5>() {
        let key = u16::from_le_bytes([head[1], head[2]]);
        let length = usize::from(u16::from_le_bytes([head[3], head[4]])).min(rest.len());
        let (line, rest) = rest.split_at(length);
        data = rest;
        match head[0] % 3 {
            0 => {
                // Objects of a first run have numbers from here on.
                let id = (1 << 32) + u64::from(key);
                let line = forged("objects", id, line);
                if let Ok(record) = ObjectRecord::decode(id, &line) {
                    let again = ObjectRecord::decode(id, &record.encode(id)).expect("it was written so");
                    assert_eq!(format!("{record:?}"), format!("{again:?}"));
                }
                let mut table = txn.open_table(OBJECTS).expect("it is there");
                table.insert(id, line.as_slice()).expect("nothing fails");
            }
            1 => {
                let line = forged("clusters", key.into(), line);
                if let Ok(kept) = decode_cluster(key.into(), &line) {
                    let again =
                        decode_cluster(key.into(), &encode_cluster(&kept)).expect("it was written so");
                    assert_eq!(format!("{kept:?}"), format!("{again:?}"));
                }
                let mut table = txn.open_table(CLUSTERS).expect("it is there");
                table.insert(u32::from(key), line.as_slice()).expect("nothing fails");
            }
            _ => {
                let line = forged("segments", key.into(), line);
                if let Ok((kept, entries)) = decode_segment(key.into(), &line) {
                    let again = decode_segment(key.into(), &encode_segment(&kept, &entries));
                    assert_eq!(
                        format!("{:?}", (kept, entries)),
                        format!("{:?}", again.expect("it was written so"))
                    );
                }
                let mut table = txn.open_table(SEGMENTS).expect("it is there");
                table.insert(u32::from(key), line.as_slice()).expect("nothing fails");
            }
        }
    }
    txn.commit().expect("nothing fails");
    drop(store);
    let Ok(store) = Store::open_on(disk, FILE, Index(index), &config()) else { return };
    let mut keys = Vec::new();
    let each = |found: crate::Listed| {
        keys.push(found.key);
        true
    };
    let _ = store.list(b"v", b"", each);
    let _ = store.audit();
    for key in keys {
        let Ok(Some(object)) = store.find(b"v", &key) else { continue };
        let mut buf = [0; 20_000];
        let _ = object.read(0, &mut buf);
        let _ = object.read(object.len() / 2, &mut buf);
        let _ = object.write(100, b"something else");
        let _ = object.pin();
    }
    let _ = store.sync();
    let _ = store.reclaim(crate::ByteCount::mib(1));
    let _ = store.remove(b"v", &[1]);
    let _ = store.sync();
}

/// The lines of a store's index, as [`lines`] takes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let (store, ..) = store();
    let txn = store.index.begin_read().expect("nothing fails");
    let mut found: Vec<(u8, u64, Vec<u8>)> = Vec::new();
    for line in txn.open_table(OBJECTS).expect("it is there").iter().expect("nothing fails") {
        let (key, line) = line.expect("nothing fails");
        found.push((0, key.value(), line.value().to_vec()));
    }
    for (table, definition) in [(1, CLUSTERS), (2, SEGMENTS)] {
        for line in txn.open_table(definition).expect("it is there").iter().expect("nothing fails") {
            let (key, line) = line.expect("nothing fails");
            found.push((table, key.value().into(), line.value().to_vec()));
        }
    }
    let line = |(table, key, line): &(u8, u64, Vec<u8>)| {
        let line = &line[..line.len() - 8];
        let head = [*table, *key as u8, (*key >> 8) as u8, line.len() as u8, (line.len() >> 8) as u8];
        [&head[..], line].concat()
    };
    let all: Vec<Vec<u8>> = found.iter().map(line).collect();
    let mut seeds = all.clone();
    seeds.push(all.concat());
    // The line of another object.
    seeds.push(
        all.first().map_or_else(Vec::new, |first| [&first[..1], &[first[1] + 1], &first[2..]].concat()),
    );
    seeds
}
