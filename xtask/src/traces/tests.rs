//! The orders against plain ones that look at everything each time.

use proptest::prelude::*;

use super::generate;
use super::own::Own;
use super::peers::{Clock, Fifo, Lru, Optimum, Order, S3Fifo};

fn replay(mut order: impl Order, touches: &[u32]) -> Vec<bool> {
    touches.iter().map(|page| order.hits(*page)).collect()
}

fn plain_lru(room: usize, touches: &[u32]) -> Vec<bool> {
    let mut stack: Vec<u32> = Vec::new();
    let touch = |page: &u32| {
        let at = stack.iter().position(|other| other == page);
        if let Some(at) = at {
            stack.remove(at);
        } else if stack.len() == room {
            stack.remove(0);
        }
        stack.push(*page);
        at.is_some()
    };
    touches.iter().map(touch).collect()
}

fn plain_fifo(room: usize, touches: &[u32]) -> Vec<bool> {
    let mut came: Vec<u32> = Vec::new();
    let touch = |page: &u32| {
        let hit = came.contains(page);
        if !hit {
            came.push(*page);
            came.drain(..came.len().saturating_sub(room));
        }
        hit
    };
    touches.iter().map(touch).collect()
}

/// A ring of frames with a hand, as CLOCK is drawn in books.
fn plain_clock(room: usize, touches: &[u32]) -> Vec<bool> {
    let (mut frames, mut hand): (Vec<(u32, bool)>, usize) = (Vec::new(), 0);
    let touch = |page: &u32| {
        if let Some(frame) = frames.iter_mut().find(|frame| frame.0 == *page) {
            frame.1 = true;
            return true;
        }
        if frames.len() < room {
            frames.push((*page, false));
            return false;
        }
        while std::mem::take(&mut frames[hand].1) {
            hand = (hand + 1) % room;
        }
        frames[hand] = (*page, false);
        hand = (hand + 1) % room;
        false
    };
    touches.iter().map(touch).collect()
}

fn plain_optimum(room: usize, touches: &[u32]) -> Vec<bool> {
    let mut present: Vec<u32> = Vec::new();
    let touch = |(at, page): (usize, &u32)| {
        if present.contains(page) {
            return true;
        }
        if present.len() == room {
            let next = |other: &u32| touches[at..].iter().position(|later| later == other);
            let worst = (0..room).max_by_key(|at| next(&present[*at]).unwrap_or(usize::MAX)).unwrap();
            present.remove(worst);
        }
        present.push(*page);
        false
    };
    touches.iter().enumerate().map(touch).collect()
}

/// The paper's algorithm 1, on plain lists: newest first.
fn plain_s3fifo(room: usize, touches: &[u32]) -> Vec<bool> {
    let small_room = (room / 10).max(1);
    let mut small: Vec<(u32, u8)> = Vec::new();
    let mut main = small.clone();
    // A place whose page has come back stays taken, as a hole.
    let mut ghosts: Vec<Option<u32>> = Vec::new();
    let mut hits = Vec::new();
    for page in touches {
        if let Some(entry) = small.iter_mut().chain(&mut main).find(|entry| entry.0 == *page) {
            entry.1 = (entry.1 + 1).min(3);
            hits.push(true);
            continue;
        }
        while small.len() + main.len() == room {
            let mut gone = false;
            if small.len() >= small_room {
                while !gone && let Some((oldest, touched)) = small.pop() {
                    if touched > 1 {
                        main.insert(0, (oldest, 0));
                    } else {
                        ghosts.insert(0, Some(oldest));
                        ghosts.truncate(room - small_room);
                        gone = true;
                    }
                }
            }
            while !gone && let Some((oldest, touched)) = main.pop() {
                if touched > 0 {
                    main.insert(0, (oldest, touched - 1));
                } else {
                    gone = true;
                }
            }
        }
        let ghost = ghosts.iter_mut().find(|ghost| **ghost == Some(*page));
        let back = ghost.map(Option::take).is_some();
        if back {
            main.insert(0, (*page, 0))
        } else {
            small.insert(0, (*page, 0))
        }
        hits.push(false);
    }
    hits
}

proptest! {
    #[test]
    fn every_order_does_what_a_plain_one_does(
        touches in prop::collection::vec(0u32..40, 1..400),
        room in 2usize..30,
    ) {
        prop_assert_eq!(replay(Fifo::new(room), &touches), plain_fifo(room, &touches));
        prop_assert_eq!(replay(Lru::new(room), &touches), plain_lru(room, &touches));
        prop_assert_eq!(replay(Clock::new(room), &touches), plain_clock(room, &touches));
        prop_assert_eq!(replay(S3Fifo::new(room), &touches), plain_s3fifo(room, &touches));
        // Which of those that are never touched again goes makes no difference to the hits.
        prop_assert_eq!(replay(Optimum::new(room, &touches), &touches), plain_optimum(room, &touches));
    }

    #[test]
    fn no_order_has_more_hits_than_the_optimum(
        touches in prop::collection::vec(0u32..2000, 1000..4000),
        room in 200usize..600,
    ) {
        let hits = |order: Vec<bool>| order.into_iter().filter(|hit| *hit).count();
        let most = hits(replay(Optimum::new(room, &touches), &touches));
        prop_assert!(hits(replay(Lru::new(room), &touches)) <= most);
        prop_assert!(hits(replay(Clock::new(room), &touches)) <= most);
        prop_assert!(hits(replay(S3Fifo::new(room), &touches)) <= most);
        prop_assert!(hits(replay(Own::new(room, 2000), &touches)) <= most);
    }
}

fn ratio(name: &str, percent: usize, own: bool) -> f64 {
    let trace = generate::all().into_iter().find(|trace| trace.name == name).unwrap();
    let room = trace.footprint() * percent / 100;
    let hits = match own {
        true => replay(Own::new(room, trace.pages), &trace.touches),
        false => replay(Lru::new(room), &trace.touches),
    };
    hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64
}

#[test]
fn without_seeing_touches_a_zipf_load_is_served_hardly_worse_than_by_least_recently_used() {
    for percent in [10, 25, 50, 75] {
        let (own, lru) = (ratio("zipf", percent, true), ratio("zipf", percent, false));
        assert!(own > lru - 0.01, "{own} of {lru} with {percent} %");
    }
}

#[test]
fn a_scan_does_not_flush_the_working_set() {
    for (percent, more) in [(25, 0.03), (50, 0.08), (75, 0.1)] {
        let (own, lru) = (ratio("scan", percent, true), ratio("scan", percent, false));
        assert!(own > lru + more, "{own} of {lru} with {percent} %");
        let (own, lru) = (ratio("mixed", percent, true), ratio("mixed", percent, false));
        assert!(own > lru + 0.03, "{own} of {lru} with {percent} %");
    }
}

#[test]
fn of_a_loop_larger_than_the_memory_as_much_stays_as_fits() {
    for (percent, part) in [(25, 0.18), (50, 0.4), (75, 0.6)] {
        let (own, lru) = (ratio("loop", percent, true), ratio("loop", percent, false));
        assert!(own > part && lru == 0.0, "{own} of {lru} with {percent} %");
    }
}

#[test]
fn what_is_read_through_again_and_again_pushes_out_what_is_dead() {
    for percent in [25, 50] {
        let (own, lru) = (ratio("turns", percent, true), ratio("turns", percent, false));
        assert!(own > lru - 0.03, "{own} of {lru} with {percent} %");
    }
}
