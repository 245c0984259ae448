//! Faults noted on memory of this process.

use crate::fixture::{Fixture, PAGE, config, fixture_with};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use vswap_core::recording::{Recorded, Why};
use vswap_pager::Recorder;
use vswap_sys::mapping::Mapping;

const PAGES: usize = 16 * 512;

fn recorded() -> (Fixture, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let mut config = config();
    config.record = Some(Arc::clone(&recorder));
    let fixture = fixture_with(16, config);
    fixture.manage(0..PAGES);
    (fixture, recorder)
}

/// What was noted since the last time.
fn notes(recorder: &Recorder) -> Vec<Recorded> {
    let mut notes = Recorder::buffer();
    recorder.take(&mut notes);
    assert_eq!(recorder.dropped(), 0);
    notes
}

fn pages(fixture: &Fixture, notes: &[Recorded], why: Why) -> Vec<usize> {
    let noted = notes.iter().filter(|note| note.why == why);
    noted.map(|note| (note.page - fixture.start / PAGE as u64) as usize).collect()
}

/// One write fault lifted the protection of sixteen pages when a program wrote page after page, and those written after it were not seen.
#[test]
fn each_first_write_is_noted_though_they_come_page_after_page() {
    let (mut fixture, recorder) = recorded();
    // Each of one byte: such a page comes back protected.
    for page in 0..512 {
        fixture.bytes.as_mut_slice()[page * PAGE..][..PAGE].fill(7);
    }
    fixture.press(512..PAGES, 1);
    for page in 0..512 {
        assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], 7);
    }
    let back = pages(&fixture, &notes(&recorder), Why::Out);
    let back: Vec<usize> = back.into_iter().filter(|page| *page < 512).collect();
    assert!(back.len() > 400, "{}", back.len());
    fixture.press(0..512, 8);
    let notes = notes(&recorder);
    let written = pages(&fixture, &notes, Why::Write);
    assert!(written.len() > back.len() / 2, "{} of {}", written.len(), back.len());
    // Some may have gone once more before.
    let seen = [written, pages(&fixture, &notes, Why::Out), pages(&fixture, &notes, Why::Staged)].concat();
    let unseen = back.iter().filter(|page| !seen.contains(page)).count();
    assert_eq!(unseen, 0, "{} of {}", seen.len(), back.len());
}

/// A fault that the kernel wants asked again, because an event is to be read first, was noted each time.
#[test]
fn a_fault_is_noted_once_though_events_come_between() {
    let (mut fixture, recorder) = recorded();
    let mut other = Mapping::aligned(2 << 20, 2 << 20).unwrap();
    fixture.space.manage(other.address()..other.address() + other.len() as u64).unwrap();
    let over = AtomicBool::new(false);
    let mut firsts = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each is an event, before which nothing can be installed.
            while !over.load(Relaxed) {
                other.discard(0, 2 << 20);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let mut firsts = Vec::new();
        for start in (0..PAGES).step_by(512) {
            fixture.press(start..start + 512, 1);
            firsts.extend(pages(&fixture, &notes(&recorder), Why::First));
        }
        over.store(true, Relaxed);
        firsts
    });
    let count = firsts.len();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!((firsts.len(), count), (PAGES, PAGES));
}

#[test]
fn once_it_has_ended_nothing_is_noted_and_pages_come_ahead() {
    let (mut fixture, recorder) = recorded();
    fixture.press(0..512, 1);
    assert_eq!(pages(&fixture, &notes(&recorder), Why::First).len(), 512);
    assert_eq!(fixture.pager.stats().zero_ahead, 0);
    recorder.end();
    fixture.press(512..1024, 1);
    assert_eq!(notes(&recorder), []);
    assert!(fixture.pager.stats().zero_ahead > 100);
}
