//! The pager on memory of this process: each bug that was found keeps a test that names it.

mod ahead;
mod fixture;
mod groups;
mod halfway;
mod levels;
mod passing;
mod reclaim;
mod record;

use fixture::{LIMIT, PAGE, config, fixture, fixture_with};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;
use vswap_core::ByteCount;
use vswap_pager::{FullPolicy, PagerConfig};
use vswap_sys::sched::{allowed_cpus, bind_to_cpu};

/// Asking the kernel whether events are pending once lifted the write protection of the first page of the range: a clean
/// page was then written unseen and dropped as clean.
#[test]
fn managing_a_range_again_leaves_its_clean_pages_protected() {
    let mut fixture = fixture(16);
    fixture.manage(0..16 * 512);
    for round in 1..6u8 {
        fixture.press(0..8, round);
        fixture.press(512..16 * 512, round);
        // The pages are out. A lone page comes back writable; those of a sequential read come back clean.
        for page in 0..8 {
            assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], round);
        }
        fixture.manage(7..600);
        let before = fixture.faults("first write");
        fixture.bytes.as_mut_slice()[7 * PAGE + 9] = round + 100;
        assert_eq!(fixture.faults("first write"), before + 1, "page 7 was not clean and protected");
        fixture.press(512..16 * 512, round + 50);
        assert_eq!(fixture.bytes.as_slice()[7 * PAGE + 9], round + 100, "a write was lost in round {round}");
    }
}

/// A lone page that is read back gives up its compressed copy and is writable: were its slot let go before it is in place, or
/// kept and taken for its backing when it is moved out again, bytes would be old or gone.
#[test]
fn a_lone_page_keeps_its_bytes_without_a_backing() {
    let mut fixture = fixture(16);
    fixture.manage(0..16 * 512);
    fixture.press(0..512, 1);
    for round in 1..20u8 {
        fixture.press(512..16 * 512, round);
        let written = fixture.faults("first write");
        // Never one beside another: that would be a read that goes on.
        for page in (0..512).rev().step_by(7) {
            let value = fixture.bytes.as_slice()[page * PAGE + 9];
            let last = if page % 2 == 0 { (round - 1).max(1) } else { 1 };
            assert_eq!(value, last, "page {page}, round {round}");
            if page % 2 == 0 {
                fixture.bytes.as_mut_slice()[page * PAGE + 9] = round;
            }
        }
        assert_eq!(fixture.faults("first write"), written, "a lone page was protected");
    }
}

/// One thread that faults all the time is served by one handler alone. Wherever it is moved, somebody must listen.
#[test]
fn a_thread_that_changes_its_cpu_is_followed() {
    let mut fixture = fixture(16);
    fixture.manage(0..16 * 512);
    let cpus = allowed_cpus();
    for round in 1..4u8 {
        for page in 0..16 * 512 {
            if page % 97 == 0 {
                bind_to_cpu(cpus[page / 97 % cpus.len()]);
            }
            // Scattered, so that each is a fault of its own.
            let page = page * 2_731 % (16 * 512);
            let byte = &mut fixture.bytes.as_mut_slice()[page * PAGE + 9];
            assert_eq!(*byte, round - 1, "page {page}");
            *byte = round;
        }
    }
}

/// An eviction once moved every page of its block along, those of mappings that are not managed too, and nobody
/// brought them back.
#[test]
fn pages_of_a_block_that_are_not_managed_stay() {
    let mut fixture = fixture(16);
    fixture.manage(0..100);
    fixture.manage(200..16 * 512);
    fixture.press(100..200, 77);
    for round in 0..4 {
        fixture.press(0..100, round);
        fixture.press(200..16 * 512, round);
        for page in 100..200 {
            assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], 77, "page {page} in round {round}");
        }
    }
    assert!(fixture.pager.stats().evicted > 512);
}

#[test]
fn what_counts_stays_within_the_limit() {
    let mut fixture = fixture(32);
    fixture.manage(0..32 * 512);
    for round in 1..4 {
        fixture.press(0..32 * 512, round);
    }
    let stats = fixture.pager.stats();
    assert!(stats.peak <= LIMIT, "{} of {LIMIT}", stats.peak);
    assert!(!stats.grown && stats.evicted > 20_000, "{stats:?}");
}

#[test]
fn a_released_space_leaves_nothing_charged() {
    let fixture = fixture(8);
    fixture.manage(0..8 * 512);
    let (pager_stats, engine) = {
        let mut fixture = fixture;
        fixture.press(0..8 * 512, 3);
        fixture.pager.release(&fixture.space);
        (fixture.pager.stats(), Arc::clone(fixture.pager.engine()))
    };
    assert_eq!(pager_stats.resident, 0);
    assert_eq!(engine.pool_payload(), ByteCount::ZERO);
}

/// Releasing a space once waited for the loads under way while it kept them from ending: when one process of a tree was
/// killed, everybody else hung.
#[test]
fn a_space_is_released_while_its_pages_are_being_loaded() {
    for round in 0..20 {
        let mut fixture = fixture(16);
        fixture.manage(0..16 * 512);
        fixture.press(0..16 * 512, round);
        let fixture = &fixture;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..3usize {
                let (over, bytes) = (&over, fixture.bytes.as_slice());
                scope.spawn(move || {
                    let mut page = reader;
                    while !over.load(Relaxed) {
                        page = (page * 1_103_515_245 + 12_345) % (16 * 512);
                        std::hint::black_box(bytes[page * PAGE + 9]);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(20));
            let (released, wait) = mpsc::channel();
            scope.spawn(move || {
                fixture.pager.release(&fixture.space);
                released.send(()).unwrap();
            });
            if wait.recv_timeout(Duration::from_secs(30)).is_err() {
                eprintln!("the space is not released in round {round}");
                // Unwinding would wait for the threads that hang.
                std::process::exit(101);
            }
            over.store(true, Relaxed);
            fixture.uffd.unregister(fixture.start, 16 * 512 * PAGE as u64).unwrap();
        });
    }
}

/// While there is room the kernel answers first touches itself; what is charged covers all that a program can touch so. Once
/// room is short, what was touched is managed with its bytes, and the rest given back.
#[test]
fn a_grant_costs_no_fault_until_room_is_short_and_keeps_its_bytes() {
    let mut fixture = fixture(16);
    fixture.take(0..1024);
    assert_eq!((fixture.space.granted_pages(), fixture.charged()), (1024, 1024));
    fixture.press(0..300, 7);
    assert_eq!(fixture.faults("first touch"), 0, "the kernel's own affair");
    // Beyond the limit with what is granted: no room to grant, and soon none to touch.
    fixture.take(1024..16 * 512);
    assert_eq!(fixture.space.granted_pages(), 1024);
    fixture.press(1024..16 * 512, 8);
    assert_eq!(fixture.space.granted_pages(), 0);
    let before = fixture.faults("first touch");
    for page in 0..16 * 512 {
        let expected = if page < 300 {
            7
        } else if page < 1024 {
            0
        } else {
            8
        };
        assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], expected, "page {page}");
    }
    assert!(fixture.faults("first touch") > before, "what was not touched was given back");
    assert!(fixture.pager.stats().peak <= LIMIT);
}

/// The kernel does not tell of what becomes of a grant. What is there when it is called in counts.
#[test]
fn what_has_left_a_grant_is_given_back_when_it_is_called_in() {
    let mut fixture = fixture(16);
    fixture.take(0..1024);
    fixture.press(0..1024, 3);
    fixture.bytes.discard(0, 1000 * PAGE);
    assert_eq!(fixture.charged(), 1024);
    assert!(fixture.space.call_in());
    assert_eq!((fixture.space.granted_pages(), fixture.charged()), (0, 24));
    assert!(!fixture.space.call_in());
    assert_eq!(fixture.bytes.as_slice()[9], 0);
    assert_eq!(fixture.bytes.as_slice()[1000 * PAGE + 9], 3);
}

#[test]
fn a_mapping_is_granted_only_if_an_eighth_of_the_limit_stays_free_and_only_once() {
    let fixture = fixture(16);
    let limit = (LIMIT / PAGE as u64) as usize;
    fixture.take(0..limit);
    assert_eq!(fixture.space.granted_pages(), 0, "all of it is managed");
    fixture.take(4096..4096 + 512);
    fixture.take(4096 + 256..4096 + 768);
    assert_eq!((fixture.space.granted_pages(), fixture.charged()), (768, 768));
    // Managing what is granted, or taking it for something else, ends the grant.
    fixture.manage(4096..4096 + 100);
    fixture.space.forget_grants(&fixture.range(4096 + 700..4096 + 1024));
    assert_eq!((fixture.space.granted_pages(), fixture.charged()), (600, 600));
    fixture.space.cover(fixture.range(4096 + 100..4096 + 700), true).unwrap();
    fixture.space.cover(fixture.range(4096..4096 + 700), true).unwrap();
    assert_eq!(fixture.space.granted_pages(), 600, "covered already");
    fixture.space.cover(fixture.range(4096..4096 + 800), true).unwrap();
    assert_eq!((fixture.space.granted_pages(), fixture.charged()), (0, 0), "a part was managed");
}

#[test]
fn what_is_granted_to_a_space_goes_with_it() {
    let mut fixture = fixture(16);
    fixture.take(0..512);
    fixture.press(0..512, 1);
    fixture.pager.release(&fixture.space);
    assert_eq!((fixture.space.granted_pages(), fixture.charged()), (0, 0));
    fixture.take(512..1024);
    assert_eq!(fixture.space.granted_pages(), 0, "nothing is granted to the dead");
}

/// A release drained what was staged; an eviction that landed just then staged more, which counted for ever.
#[test]
fn a_space_that_goes_while_pages_are_moved_out_leaves_none_staged() {
    for round in 0..40 {
        let mut fixture = fixture(16);
        fixture.manage(0..16 * 512);
        fixture.press(0..4096 + round * 61, 1);
        fixture.pager.release(&fixture.space);
        let since = std::time::Instant::now();
        while (fixture.pager.stats().staged, fixture.charged()) != (0, 0) {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "pages of a dead space stay staged or charged"
            );
            std::thread::yield_now();
        }
    }
}

/// While a process forks nothing can be moved out of it. Where that took longer than a moment, a tree under `--full kill` was ended
/// as if nothing was left.
#[test]
fn a_hold_is_not_taken_for_the_end_of_all_room() {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let on_full: vswap_pager::OnFull = Box::new(move |_| tell.store(true, Relaxed));
    let config = PagerConfig { full: FullPolicy::Kill, on_full: Some(on_full), ..config() };
    let mut fixture = fixture_with(16, config);
    fixture.manage(0..16 * 512);
    fixture.press(0..1024, 1);
    let space = Arc::clone(&fixture.space);
    let hold = space.hold();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            drop(hold);
        });
        // Waits for room until the hold ends.
        fixture.press(1024..8192, 1);
    });
    assert!(!told.load(Relaxed), "the tree would have been killed");
}

/// What is there of a grant becomes resident block by block when it is called in. Another evictor moved some of it out before all was
/// done; then it was taken for untouched and given back a second time, and the limit counted less than there was.
#[test]
fn what_is_moved_out_while_its_grant_is_called_in_is_counted_once() {
    for round in 0..40 {
        let mut fixture = fixture(16);
        fixture.take(0..1536);
        assert_eq!(fixture.space.granted_pages(), 1536);
        // Many runs, so that it takes long.
        for page in (0..1536).step_by(2) {
            fixture.bytes.as_mut_slice()[page * PAGE] = 1;
        }
        fixture.manage(2048..16 * 512);
        fixture.press(2048..6144 + round * 40, 2);
        assert_eq!(fixture.space.granted_pages(), 0);
        for page in 0..1536 {
            assert_eq!(fixture.bytes.as_slice()[page * PAGE], u8::from(page % 2 == 0), "page {page}");
        }
        fixture.pager.release(&fixture.space);
        let since = std::time::Instant::now();
        while fixture.charged() != 0 {
            assert!(since.elapsed() < Duration::from_secs(10), "{} pages stay charged", fixture.charged());
            std::thread::yield_now();
        }
    }
}

/// `sort` fills and reads an array from its end: each page cost a fault.
#[test]
fn who_fills_and_reads_downwards_has_as_few_faults_as_upwards() {
    for down in [false, true] {
        let mut fixture = fixture(16);
        fixture.manage(0..16 * 512);
        let order = |at: usize| if down { 1023 - at } else { at };
        for at in 0..1024 {
            fixture.bytes.as_mut_slice()[order(at) * PAGE] = at as u8;
        }
        let first = fixture.faults("first touch");
        fixture.press(1024..16 * 512, 3);
        let back = fixture.faults("pool");
        for at in 0..1024 {
            assert_eq!(fixture.bytes.as_slice()[order(at) * PAGE], at as u8, "page {}", order(at));
        }
        let back = fixture.faults("pool") - back;
        // The limit leaves no room for long runs.
        assert!(first < 60 && back < 600, "{first} and {back} faults for 1024 pages, downwards: {down}");
    }
}
