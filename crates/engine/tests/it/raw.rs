//! Pages that do not compress are the first to leave the pool.
use crate::pages::page;
use crate::rig::{Rig, middling};
use std::sync::Arc;
use vswap_core::{ByteCount, Page};
use vswap_engine::{BackingKind, SEGMENT_BYTES};

use crate::flaky::{Faults, Flaky};

fn noise(number: usize) -> Page {
    page(number as u64 * 8 + 2)
}

/// 1024 pages that compress to half, then `raw` that do not.
fn filled(segments: usize, raw: usize) -> Rig {
    let mut rig = Rig::over(Flaky::new(segments * SEGMENT_BYTES, Faults::default()), 8);
    for number in 0..1024 {
        rig.store(number, number);
    }
    for number in 1024..1024 + raw {
        let (block, at) = Rig::place(number);
        let slot = rig.blocks[block].slot_for_store(&rig.engine, at).unwrap();
        rig.engine.store(slot, &noise(number), &mut rig.scratch).unwrap();
    }
    rig
}

fn is_pooled(rig: &Rig, number: usize) -> bool {
    let (block, at) = Rig::place(number);
    rig.engine.backing(rig.blocks[block].slot(at).unwrap()) == BackingKind::Pool
}

/// The hand took what had been there for longest, and left those that save nothing.
#[test]
fn what_does_not_compress_goes_before_older_pages_that_do() {
    let mut rig = filled(8, 1024);
    rig.engine.writeback(ByteCount::new(2 * SEGMENT_BYTES as u64 - 65_536), &mut rig.scratch).unwrap();
    assert!((0..1024).all(|number| is_pooled(&rig, number)), "one that compresses has gone");
    let raw_left = (1024..2048).filter(|number| is_pooled(&rig, *number)).count();
    assert!(raw_left < 64, "{raw_left} that do not compress are still in the pool");
    for number in 0..2048 {
        let content = if number < 1024 { middling(number) } else { noise(number) };
        assert!(rig.load(number).unwrap().1 == content, "page {number}");
    }
    rig.finish();
}

#[test]
fn a_note_of_a_page_that_has_changed_or_gone_or_is_in_use_sends_nothing() {
    let mut rig = filled(8, 3);
    rig.store(1024, 7);
    let (block, at) = Rig::place(1025);
    rig.blocks[block].release(&rig.engine, at);
    rig.load(1026).unwrap();
    // Little is wanted, but a segment is filled with the oldest; the hand comes to these last.
    rig.engine.writeback(ByteCount::new(1), &mut rig.scratch).unwrap();
    assert!(is_pooled(&rig, 1024) && is_pooled(&rig, 1026));
    assert!(rig.load(1024).unwrap().1 == middling(7) && rig.load(1026).unwrap().1 == noise(1026));
    rig.finish();
}

/// A tier that fails or is full takes none of them, and none is lost.
#[test]
fn without_room_below_they_stay_in_the_pool() {
    let mut rig = filled(1, 1024);
    let report = rig.engine.writeback(ByteCount::mib(4), &mut rig.scratch).unwrap();
    assert!(report.disk_full);
    let engine = Arc::clone(&rig.engine);
    assert!(engine.stats().segment_pages.get() > 480, "{:?}", engine.stats());
    for number in 1024..2048 {
        assert!(rig.load(number).unwrap().1 == noise(number), "page {number}");
    }
    drop(engine);
    rig.finish();
}
