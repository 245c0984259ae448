//! [`Last`]: the last few of something that may come any number of times, in a fixed place.

/// The last `N` items that were put in, each in the place of the oldest once there are so many.
#[derive(Clone, Debug)]
pub struct Last<T, const N: usize> {
    items: [Option<T>; N],
    /// Where the next goes: behind it lies the oldest.
    next: usize,
}

impl<T, const N: usize> Last<T, N> {
    /// None yet.
    pub const fn new() -> Self {
        const { assert!(N > 0, "nothing can be kept in no place") }
        Self { items: [const { None }; N], next: 0 }
    }

    /// Puts one in.
    pub fn push(&mut self, item: T) {
        self.items[self.next] = Some(item);
        self.next = (self.next + 1) % N;
    }

    /// Those that are kept, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &T> {
        let (newer, older) = self.items.split_at(self.next);
        newer.iter().rev().chain(older.iter().rev()).flatten()
    }
}

impl<T, const N: usize> Default for Last<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Last;

    fn kept<const N: usize>(puts: u32) -> ([u32; 8], usize) {
        let mut last = Last::<u32, N>::new();
        (0..puts).for_each(|item| last.push(item));
        let (mut found, mut count) = ([0; 8], 0);
        for item in last.newest_first() {
            found[count] = *item;
            count += 1;
        }
        (found, count)
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_goes_when_there_are_too_many() {
        assert_eq!(kept::<4>(0).1, 0);
        assert_eq!(kept::<4>(3), ([2, 1, 0, 0, 0, 0, 0, 0], 3));
        assert_eq!(kept::<4>(4), ([3, 2, 1, 0, 0, 0, 0, 0], 4));
        assert_eq!(kept::<4>(5), ([4, 3, 2, 1, 0, 0, 0, 0], 4));
        assert_eq!(kept::<4>(4003), ([4002, 4001, 4000, 3999, 0, 0, 0, 0], 4));
        assert_eq!(kept::<1>(9), ([8, 0, 0, 0, 0, 0, 0, 0], 1));
    }
}
