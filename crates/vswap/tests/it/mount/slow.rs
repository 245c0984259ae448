//! A source that does not answer for a while.

use super::{Mounted, Place, noise};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Ended in this order, so that nobody waits for the one that is stopped.
struct Both {
    below: Mounted,
    _above: Mounted,
}

/// Each of several reads waits for the source; what is kept is read meanwhile.
#[test]
fn a_read_that_waits_for_the_source_holds_no_other_up() {
    let (below, mut above) = (Place::new(), Place::new());
    fs::write(below.real("kept"), noise(200_000, 1)).unwrap();
    fs::write(below.real("other"), noise(2 << 20, 2)).unwrap();
    above.source.clone_from(&below.point);
    let mounted = below.mount(&[]);
    let both = Both { below: mounted, _above: above.mount(&["--ttl", "60"]) };
    assert!(fs::read(above.shown("kept")).unwrap() == noise(200_000, 1));
    let (kept, other) = (File::open(above.shown("kept")).unwrap(), File::open(above.shown("other")).unwrap());
    // Not from the kernel's own pages.
    rustix::fs::fadvise(&kept, 0, None, rustix::fs::Advice::DontNeed).unwrap();

    both.below.stop();
    let waiting: Vec<_> = (0..6_u64)
        .map(|number| {
            let other = other.try_clone().unwrap();
            std::thread::spawn(move || {
                let mut bytes = vec![0; 4096];
                other.read_exact_at(&mut bytes, number * (300 << 10)).unwrap();
                bytes
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let mut bytes = vec![0; 200_000];
    let read = kept.read_exact_at(&mut bytes, 0);
    let (took, waits) = (begun.elapsed(), waiting.iter().all(|waiting| !waiting.is_finished()));
    both.below.go_on();
    read.unwrap();
    assert!(bytes == noise(200_000, 1), "other bytes");
    assert!(waits, "somebody was answered by who is stopped");
    assert!(took < Duration::from_secs(5), "{took:?}"); // Else it waits for ever.
    for (number, waiting) in waiting.into_iter().enumerate() {
        assert!(waiting.join().unwrap() == noise(2 << 20, 2)[number * (300 << 10)..][..4096]);
    }
}
