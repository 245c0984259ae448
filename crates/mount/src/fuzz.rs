//! What is kept of directories and beside files, of bytes that nobody has written. Built for `crates/fuzz` only.

use crate::attr::Attr;
use crate::listing::Listing;
use crate::stamp::Mark;

/// A listing (first byte even) or a mark: what is read says the same when it is written again, and can be asked for everything.
///
/// # Panics
/// When that does not hold.
pub fn kept(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    if kind % 2 == 0 {
        let Some(listing) = Listing::decode(bytes) else { return };
        let written = listing.encode().expect("plain data");
        let again = Listing::decode(&written).expect("it was written so");
        assert_eq!(again.encode().expect("plain data"), written);
        assert_eq!(listing.lines().len(), again.lines().len());
        assert!(listing.all_lines().len() >= listing.lines().len());
    } else if let Some(mark) = Mark::decode(bytes) {
        let again = Mark::decode(&mark.encode()).expect("it was written so");
        assert_eq!(again.encode(), mark.encode());
        let _ = (mark.holds(&again.stamp), mark.stamp.is_settled());
    }
}

/// What is really written of a directory.
pub fn seeds() -> Vec<Vec<u8>> {
    let (mut listing, mut mark) = (Listing::default(), Vec::new());
    if let Ok(found) = rustix::fs::stat(c"/") {
        let attr = Attr::new(&found, 1);
        listing.see_own(&attr);
        mark = Mark { stamp: attr.stamp(), settled: true }.encode();
    }
    let empty = Listing::default().encode().expect("plain data");
    let own = listing.encode().expect("plain data");
    vec![[&[0], empty.as_slice()].concat(), [&[0], own.as_slice()].concat(), [&[1], mark.as_slice()].concat()]
}
