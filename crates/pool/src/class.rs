//! Size classes.
//!
//! A class's size is what is left of a chunk divided by a whole number, so chunks have no tail; from one
//! class to the next it grows by at most about 6 %. Headers are apart, so a raw page takes exactly 4096
//! bytes.

use vswap_core::{PAGE_SIZE, PoolHandle};

const SMALLEST: usize = 32;
const GRAIN: usize = 8;

/// The sizes of the classes of a chunk size.
#[derive(Clone, Debug)]
pub struct ClassTable {
    sizes: Box<[usize]>,
    /// The class of a length, by length in grains rounded up.
    by_grains: Box<[u8]>,
}

impl ClassTable {
    /// Makes the classes for chunks of so many bytes (a multiple of the page size).
    pub(crate) fn new(chunk_bytes: usize) -> Self {
        let mut sizes = vec![PAGE_SIZE];
        loop {
            let last = sizes[sizes.len() - 1];
            // The smallest size that wastes no more than 1/17 of the next one, or else just one entry more.
            let most = (chunk_bytes * 17).div_euclid(last * 16);
            let entries = most.max(chunk_bytes / last + 1).min(PoolHandle::ENTRIES);
            let size = chunk_bytes / entries / GRAIN * GRAIN;
            if size < SMALLEST || size >= last || sizes.len() == PoolHandle::CLASSES {
                break;
            }
            sizes.push(size);
        }
        sizes.reverse();
        let by_grains = (0..=PAGE_SIZE / GRAIN)
            .map(|grains| sizes.partition_point(|size| *size < grains * GRAIN) as u8)
            .collect();
        Self { sizes: sizes.into_boxed_slice(), by_grains }
    }

    /// How many classes there are.
    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// The bytes that an entry of a class takes.
    pub fn size(&self, class: usize) -> usize {
        self.sizes[class]
    }

    /// The smallest class for a length; `None` for more than a page.
    pub fn of_length(&self, length: usize) -> Option<usize> {
        self.by_grains.get(length.div_ceil(GRAIN)).map(|class| usize::from(*class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_class_wastes_more_than_it_says() {
        for chunk in [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10] {
            let table = ClassTable::new(chunk);
            assert!(table.count() <= PoolHandle::CLASSES);
            assert_eq!(table.size(table.count() - 1), PAGE_SIZE);
            for class in 1..table.count() {
                let (below, size) = (table.size(class - 1), table.size(class));
                // 1/16 apart, or as near as whole numbers of entries and grains allow.
                let next = chunk / (chunk / size + 1) / GRAIN * GRAIN;
                assert!((size - below) * 16 <= size + 16 * GRAIN || below >= next, "{chunk}: {below} {size}");
            }
            for length in 0..=PAGE_SIZE {
                let class = table.of_length(length).unwrap();
                assert!(table.size(class) >= length && (class == 0 || table.size(class - 1) < length));
            }
            assert_eq!(table.of_length(PAGE_SIZE + 1), None);
        }
    }
}
