//! Invalidation by prefix: one line stands for all objects that it ends, however many there are.
//!
//! Objects are numbered in the order in which they are made, so whatever was there when a prefix was invalidated has a number up to the highest one of
//! that moment. A *tomb* says so of a prefix; whoever looks up a name asks the tombs. The objects themselves are removed later, some at each commit, and then
//! the tomb goes.

use std::collections::{BTreeMap, HashMap};

/// The tombs of a store: by volume, length of the prefix, and prefix, up to which number objects are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tombs(BTreeMap<u32, BTreeMap<usize, HashMap<Vec<u8>, u64>>>);

impl Tombs {
    /// Objects of this volume whose key begins so are gone, of those numbered up to `last`.
    pub(crate) fn add(&mut self, volume: u32, prefix: &[u8], last: u64) {
        let of_length = self.0.entry(volume).or_default().entry(prefix.len()).or_default();
        let until = of_length.entry(prefix.to_vec()).or_default();
        *until = last.max(*until);
    }

    /// Whether an object is among the gone. Asks once for each length that some prefix in its volume has.
    pub(crate) fn covers(&self, volume: u32, key: &[u8], id: u64) -> bool {
        let Some(lengths) = self.0.get(&volume) else { return false };
        lengths
            .range(..=key.len())
            .any(|(length, tombs)| tombs.get(&key[..*length]).is_some_and(|last| id <= *last))
    }

    /// Some tomb.
    pub(crate) fn any(&self) -> Option<(u32, Vec<u8>, u64)> {
        self.iter().next().map(|(volume, prefix, last)| (volume, prefix.to_vec(), last))
    }

    /// All objects of a tomb are removed, unless it has been renewed since.
    pub(crate) fn remove(&mut self, volume: u32, prefix: &[u8], last: u64) {
        let Some(lengths) = self.0.get_mut(&volume) else { return };
        if let Some(tombs) = lengths.get_mut(&prefix.len()) {
            if tombs.get(prefix) == Some(&last) {
                tombs.remove(prefix);
            }
            if tombs.is_empty() {
                lengths.remove(&prefix.len());
            }
        }
        if lengths.is_empty() {
            self.0.remove(&volume);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8], u64)> {
        self.0.iter().flat_map(|(volume, lengths)| {
            let tombs = lengths.values().flatten();
            tombs.map(|(prefix, last)| (*volume, prefix.as_slice(), *last))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Tombs;

    #[test]
    fn a_tomb_covers_what_begins_with_its_prefix_and_was_there() {
        let mut tombs = Tombs::default();
        tombs.add(1, b"a/", 10);
        tombs.add(1, b"", 3);
        assert!(tombs.covers(1, b"a/b", 10) && tombs.covers(1, b"a/", 4) && tombs.covers(1, b"z", 3));
        assert!(!tombs.covers(1, b"a/b", 11) && !tombs.covers(1, b"a", 4) && !tombs.covers(2, b"a/b", 1));
        tombs.add(1, b"a/", 20);
        tombs.add(1, b"a/", 15);
        assert!(tombs.covers(1, b"a/b", 20));
        // What was renewed is not over.
        tombs.remove(1, b"a/", 10);
        assert!(tombs.covers(1, b"a/b", 20));
        tombs.remove(1, b"a/", 20);
        tombs.remove(1, b"", 3);
        assert_eq!(tombs, Tombs::default());
    }
}
