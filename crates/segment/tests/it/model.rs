//! The store against a map: random writes, releases, cleaning, faults. Every page always reads right.

use super::keys;
use crate::support::{Fake, Fault, payload, slot, tag};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, ClassId, EntryAddr, MAX_ENTRY_BLOCKS, Purpose, SEGMENT_BYTES, SegmentStore,
    SegmentWriter, Wanted, Written,
};

#[derive(Clone, Debug)]
enum Act {
    /// Write new versions of so many slots from this one on.
    Write {
        from: u64,
        count: u64,
    },
    Release {
        from: u64,
        count: u64,
    },
    Clean,
    Fail(Fault),
    Trim(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..3000_u64, 1..700_u64).prop_map(|(from, count)| Act::Write { from, count }),
        3 => (0..3000_u64, 1..900_u64).prop_map(|(from, count)| Act::Release { from, count }),
        3 => Just(Act::Clean),
        1 => (0..400_000_usize).prop_map(|n| Act::Fail(Fault::DiskFullAfter(n))),
        1 => Just(Act::Fail(Fault::WriteError)),
        1 => any::<bool>().prop_map(Act::Trim),
    ];
    prop::collection::vec(act, 1..40)
}

struct Model {
    fake: Arc<Fake>,
    store: Arc<SegmentStore>,
    writer: SegmentWriter,
    /// What each live slot must read as: its version, and where.
    live: BTreeMap<u64, (u64, EntryAddr)>,
    version: u64,
}

impl Model {
    fn new() -> Self {
        let fake = Fake::new(8);
        let store = SegmentStore::new(fake.clone(), keys());
        let writer = store.writer(2);
        Self { fake, store, writer, live: BTreeMap::new(), version: 0 }
    }

    fn begin(&self, purpose: Purpose) -> Option<vswap_segment::SegmentBuilder> {
        self.store.begin(purpose, ClassId::COMMON, AlignedBuf::zeroed(SEGMENT_BYTES)).ok()
    }

    fn write(&mut self, from: u64, count: u64) {
        self.version += 1;
        let version = self.version;
        let Some(mut builder) = self.begin(Purpose::Writeback) else { return };
        for number in from..from + count {
            match builder.append(slot(number), tag(number), &payload(number, version)) {
                Appended::At(_) => {}
                _ => break,
            }
        }
        self.writer.submit(builder).unwrap();
        while let Some(written) = self.writer.wait().unwrap() {
            self.take(&written, |_, _| Some(version));
        }
    }

    /// Applies a written segment: each entry for which `version` says so replaces the slot's old one.
    fn take(&mut self, written: &Written, version: impl Fn(&Self, u64) -> Option<u64>) {
        if written.result.is_err() {
            return;
        }
        for (slot, addr) in written.entries() {
            match version(self, slot.get()) {
                Some(version) => {
                    if let Some((_, old)) = self.live.insert(slot.get(), (version, addr)) {
                        self.store.release(old).unwrap();
                    }
                }
                None => drop(self.store.release(addr).unwrap()),
            }
        }
    }

    fn clean(&mut self) {
        let Some(candidate) = self.store.pick_to_clean(0.9, &Wanted::default()) else { return };
        let alive = self.live.values().filter(|(_, addr)| addr.segment() == candidate.segment).count();
        assert_eq!(candidate.live as usize, alive, "the count of live entries is exact");
        if let Some(mut builder) = self.begin(Purpose::Cleaning) {
            let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
            let view = self.store.read_segment(candidate.segment, &mut buf).unwrap();
            for entry in view.entries() {
                let entry = entry.unwrap();
                if self.live.get(&entry.slot.get()).is_some_and(|(_, addr)| *addr == entry.addr) {
                    let appended = builder.append(entry.slot, entry.tag, entry.bytes);
                    assert!(matches!(appended, Appended::At(_)), "what was in one fits one");
                }
            }
            self.writer.submit(builder).unwrap();
            while let Some(written) = self.writer.wait().unwrap() {
                self.take(&written, |model, slot| model.live.get(&slot).map(|(version, _)| *version));
            }
        }
        self.store.stop_cleaning(candidate.segment);
    }

    fn check(&self) {
        let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
        let mut segments = std::collections::BTreeSet::new();
        for (number, (version, addr)) in &self.live {
            let entry = self.store.read_entry(*addr, slot(*number), &mut buf).unwrap();
            assert_eq!(entry.bytes, payload(*number, *version), "slot {number}");
            segments.insert(addr.segment());
        }
        let stats = self.store.stats();
        assert_eq!(stats.live_entries, self.live.len() as u64);
        assert_eq!(stats.segments, segments.len() as u64, "a segment without live entries is free");
    }

    fn apply(&mut self, act: &Act) {
        match *act {
            Act::Write { from, count } => self.write(from, count),
            Act::Release { from, count } => {
                let numbers: Vec<u64> = self.live.range(from..from + count).map(|(n, _)| *n).collect();
                for number in numbers {
                    let (_, addr) = self.live.remove(&number).unwrap();
                    self.store.release(addr).unwrap();
                }
            }
            Act::Clean => self.clean(),
            Act::Fail(fault) => {
                self.fake.set(fault);
                self.write(0, 300);
                self.clean();
                self.fake.set(None);
            }
            Act::Trim(keep) => drop(self.store.trim(keep)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10) })]

    #[test]
    fn the_store_agrees_with_a_map(acts in acts()) {
        let mut model = Model::new();
        for act in &acts {
            model.apply(act);
            model.check();
        }
    }
}
