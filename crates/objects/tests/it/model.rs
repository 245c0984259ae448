//! Objects against a map of bytes.
use crate::{bytes, finish, objects};
use proptest::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use vswap_core::ByteCount;
use vswap_engine::{Engine, EngineConfig, Scratch, TierConfig};
use vswap_objects::{Dirty, Object, Objects};

/// What an object is to have.
#[derive(Clone, Default)]
struct Model {
    /// Its bytes, those that are there.
    bytes: Vec<Option<u8>>,
    /// For each byte the number of the write that made it dirty, or 0.
    dirty: Vec<u64>,
    writes: u64,
    /// What was told as dirty and not yet stored, each with the number of the last write before that.
    asked: Vec<(Vec<Dirty>, u64)>,
}

impl Model {
    fn clip(&self, range: &Range<u64>) -> Range<usize> {
        let end = (range.end as usize).min(self.bytes.len());
        (range.start as usize).min(end)..end
    }

    fn set_len(&mut self, len: usize) {
        self.bytes.resize(len, None);
        self.dirty.resize(len, 0);
    }

    fn write(&mut self, at: u64, bytes: &[u8], dirty: bool) {
        let (at, end) = (at as usize, at as usize + bytes.len());
        if end > self.bytes.len() {
            self.set_len(end);
        }
        self.writes += 1;
        self.dirty[at..end].fill(if dirty { self.writes } else { 0 });
        for (to, byte) in self.bytes[at..end].iter_mut().zip(bytes) {
            *to = Some(*byte);
        }
    }

    fn punch(&mut self, range: &Range<u64>) {
        let clipped = self.clip(range);
        self.bytes[clipped.clone()].fill(None);
        self.dirty[clipped].fill(0);
    }

    /// Ranges of bytes that are there, or that are not.
    fn ranges(&self, range: &Range<u64>, there: bool) -> Vec<Range<u64>> {
        Self::joined(self.clip(range).filter(|at| self.bytes[*at].is_some() == there))
    }

    fn dirty(&self) -> Vec<Range<u64>> {
        Self::joined((0..self.dirty.len()).filter(|at| self.dirty[*at] > 0))
    }

    fn joined(places: impl Iterator<Item = usize>) -> Vec<Range<u64>> {
        let mut found: Vec<Range<u64>> = Vec::new();
        for at in places.map(|at| at as u64) {
            match found.last_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => found.push(at..at + 1),
            }
        }
        found
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write { object: usize, at: u64, length: usize, number: u64, dirty: bool },
    Read { object: usize, at: u64, length: usize },
    SetLen { object: usize, len: u64 },
    Punch { object: usize, range: Range<u64> },
    Ranges { object: usize, range: Range<u64> },
    AskDirty { object: usize },
    Cleaned { object: usize, which: usize },
    Snapshot { object: usize },
    Create,
    Drop { object: usize },
    Writeback { bytes: u64 },
    Maintain,
}

/// Places worth trying: about the beginning, about the first border of 2 MiB, on borders of pages and beside them.
fn place() -> impl Strategy<Value = u64> {
    let about = prop_oneof![3 => 0_u64..12, 2 => 508_u64..516, 1 => 0_u64..1100];
    let within = prop_oneof![2 => Just(0), 1 => Just(1), 1 => Just(4095), 2 => 0_u64..4096];
    (about, within).prop_map(|(page, byte)| page * 4096 + byte)
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 0_usize..200, 2 => Just(4096), 2 => 0_usize..20_000, 1 => (1_usize..40).prop_map(|n| n * 4096)]
}

fn range() -> impl Strategy<Value = Range<u64>> {
    prop_oneof![
        4 => (place(), length()).prop_map(|(at, length)| at..at + length as u64),
        1 => (place(), place()).prop_map(|(a, b)| a.min(b)..a.max(b)),
        1 => place().prop_map(|at| at..u64::MAX),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let object = 0_usize..4;
    prop_oneof![
        8 => (object.clone(), place(), length(), any::<u64>(), any::<bool>())
            .prop_map(|(object, at, length, number, dirty)| Op::Write { object, at, length, number, dirty }),
        6 => (object.clone(), place(), length()).prop_map(|(object, at, length)| Op::Read { object, at, length }),
        3 => (object.clone(), place()).prop_map(|(object, len)| Op::SetLen { object, len }),
        3 => (object.clone(), range()).prop_map(|(object, range)| Op::Punch { object, range }),
        3 => (object.clone(), range()).prop_map(|(object, range)| Op::Ranges { object, range }),
        2 => object.clone().prop_map(|object| Op::AskDirty { object }),
        1 => (object.clone(), any::<usize>()).prop_map(|(object, which)| Op::Cleaned { object, which }),
        2 => object.clone().prop_map(|object| Op::Snapshot { object }),
        1 => Just(Op::Create),
        1 => object.prop_map(|object| Op::Drop { object }),
        2 => (0_u64..1 << 20).prop_map(|bytes| Op::Writeback { bytes }),
        1 => Just(Op::Maintain),
    ]
}

struct Run {
    engine: Arc<Engine>,
    objects: Arc<Objects>,
    scratch: Scratch,
    all: Vec<(Object, Model)>,
}

impl Run {
    fn check(&self, object: &Object, model: &Model, at: u64, length: usize) {
        let mut buf = vec![0xEE; length];
        let read = object.read(at, &mut buf).unwrap();
        let within = model.clip(&(at..at + length as u64));
        assert_eq!(read.len, within.len());
        assert_eq!(read.missing, model.ranges(&(at..at + length as u64), false));
        let wanted = model.bytes[within].iter().map(|byte| byte.unwrap_or(0)).chain(std::iter::repeat(0xEE));
        assert!(buf.iter().copied().eq(wanted.take(length)), "wrong bytes within {length} from {at:#x} on");
    }

    fn apply(&mut self, op: Op) {
        let count = self.all.len();
        match op {
            Op::Write { object, at, length, number, dirty } => {
                let (object, model) = &mut self.all[object % count];
                let new = bytes(number, length);
                if dirty { object.write_dirty(at, &new) } else { object.write(at, &new) }.unwrap();
                // A write of nothing is nothing: it does not lengthen either.
                if length > 0 {
                    model.write(at, &new, dirty);
                }
                assert_eq!(object.len(), model.bytes.len() as u64);
            }
            Op::Read { object, at, length } => {
                let (object, model) = &self.all[object % count];
                self.check(object, model, at, length);
            }
            Op::SetLen { object, len } => {
                let (object, model) = &mut self.all[object % count];
                object.set_len(len).unwrap();
                model.set_len(len as usize);
            }
            Op::Punch { object, range } => {
                let (object, model) = &mut self.all[object % count];
                object.punch(range.clone());
                model.punch(&range);
            }
            Op::Ranges { object, range } => {
                let (object, model) = &self.all[object % count];
                assert_eq!(object.present(range.clone()), model.ranges(&range, true));
                assert_eq!(object.missing(range.clone()), model.ranges(&range, false));
                // Every page that has bytes is in one extent, in order.
                let extents = object.extents(range.clone());
                assert!(extents.windows(2).all(|two| two[0].range.end <= two[1].range.start));
                for there in object.present(range.clone()) {
                    let covered = |at: u64| extents.iter().any(|extent| extent.range.contains(&at));
                    assert!(covered(there.start) && covered(there.end - 1), "{there:?} in {extents:?}");
                }
            }
            Op::AskDirty { object } => {
                let (object, model) = &mut self.all[object % count];
                let asked = object.dirty();
                let mut joined: Vec<Range<u64>> = Vec::new();
                for range in asked.iter().map(Dirty::range) {
                    match joined.last_mut() {
                        Some(last) if last.end == range.start => last.end = range.end,
                        _ => joined.push(range),
                    }
                }
                assert_eq!(joined, model.dirty());
                assert_eq!(object.is_dirty(), !joined.is_empty());
                model.asked.push((asked, model.writes));
            }
            Op::Cleaned { object, which } => {
                let (object, model) = &mut self.all[object % count];
                if model.asked.is_empty() {
                    return;
                }
                let (stored, writes) = model.asked.swap_remove(which % model.asked.len());
                for dirty in stored {
                    object.cleaned(&dirty);
                    let range = model.clip(&dirty.range());
                    for write in model.dirty[range].iter_mut().filter(|write| **write <= writes) {
                        *write = 0;
                    }
                }
            }
            Op::Snapshot { object } if count < 4 => {
                let (object, model) = &self.all[object % count];
                let bytes = model.bytes.clone();
                let model = Model { dirty: vec![0; bytes.len()], bytes, ..Model::default() };
                let snapshot = (object.snapshot().unwrap(), model);
                self.all.push(snapshot);
            }
            Op::Create if count < 4 => self.all.push((self.objects.create(), Model::default())),
            Op::Drop { object } if count > 1 => drop(self.all.remove(object % count)),
            Op::Snapshot { .. } | Op::Create | Op::Drop { .. } => {}
            Op::Writeback { bytes } => {
                self.engine.writeback(ByteCount::new(bytes), &mut self.scratch).unwrap();
            }
            Op::Maintain => drop(self.engine.maintain(false)),
        }
    }

    fn audit(&self) {
        self.all.iter().for_each(|(object, _)| object.audit().unwrap());
    }

    fn end(mut self) {
        for (object, model) in &self.all {
            self.check(object, model, 0, model.bytes.len() + 1);
        }
        self.all.clear();
        finish(&self.engine, self.objects);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn objects_have_the_bytes_that_a_map_has(ops in prop::collection::vec(op(), 1..120)) {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let tier = TierConfig::new(dir.path(), ByteCount::mib(64));
        let (engine, objects) = objects(EngineConfig { tiers: vec![tier], ..EngineConfig::default() });
        let all = vec![(objects.create(), Model::default())];
        let mut run = Run { scratch: engine.scratch(), engine, objects, all };
        for op in ops {
            run.apply(op);
            run.audit();
        }
        run.end();
    }
}
