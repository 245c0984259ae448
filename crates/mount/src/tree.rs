//! Which objects of a volume show a part of its directory while that is gone.

use crate::session::ABOUT;
use crate::{content, listings};

/// Keys of objects; see [`objects_of_tree`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeObjects {
    /// Of these each has something of what is at the path or below it: this key.
    pub own: Vec<Vec<u8>>,
    /// And each that begins so.
    pub below: Vec<Vec<u8>>,
    /// What leads there: that there is such a directory, and what those above have. Others lead through it, too.
    pub way: Vec<Vec<u8>>,
}

/// The objects by which a file, or a directory with all below it, can be read and listed: what is to be pinned for that. `path` is below the source's directory; that itself is the
/// empty path. Slashes at its ends count for nothing.
pub fn objects_of_tree(path: &[u8]) -> TreeObjects {
    let first = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(first, |last| last + 1);
    let path = &path[first..end];
    let within = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let above = slashes.map(|(at, _)| listings::key(&path[..at]));
    let (mut own, mut way) = (vec![content::key(path), listings::key(path)], vec![ABOUT.to_vec()]);
    if path.is_empty() {
        // Nobody else has it.
        own.append(&mut way);
    } else {
        way.push(listings::key(b""));
        way.extend(above);
    }
    TreeObjects { own, below: vec![content::key(&within), listings::key(&within)], way }
}

#[cfg(test)]
mod tests {
    use super::objects_of_tree;

    #[test]
    fn a_tree_has_what_is_below_it_and_what_leads_there_and_not_its_neighbours() {
        let found = objects_of_tree(b"/a/b c/");
        assert_eq!(found.own, [b"fa/b c", b"da/b c"]);
        assert_eq!(found.below, [b"fa/b c/", b"da/b c/"]);
        assert_eq!(found.way, [b"m" as &[u8], b"d", b"da"]);
        let all = objects_of_tree(b"//");
        assert_eq!((all.below, all.way.len()), (vec![b"f".to_vec(), b"d".to_vec()], 0));
        assert!(all.own.contains(&b"m".to_vec()), "it goes with all");
    }
}
