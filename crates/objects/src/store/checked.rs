//! [`Checked`]: a disk for the index on which damage is found.
//!
//! redb reads its pages without looking at their checksums, and what it finds in a damaged one may make it panic. So each block has a checksum here, and one
//! that does not match is an error of the disk.
//!
//! In front of each 512 blocks stands one with their checksums. A block and its checksum do not reach the disk together; but what a commit
//! needs after a crash was synced with its checksum, and redb writes everything else anew before it reads it. The one block that it changes in place is the first, its
//! header, which has its checksum in itself, in the same sector: a disk writes that whole or not at all.

use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use twox_hash::XxHash3_64;

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Bytes that a disk writes together.
const SECTOR: usize = 512;
/// Checksums in a block.
const GROUP: u64 = BLOCK / SUM as u64;
/// Bytes of a checksum.
const SUM: usize = 8;
/// Where the header's checksum stands; what it is of ends there.
const HEADER_SUM: usize = SECTOR - SUM;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Checked<B> {
    disk: B,
    sums: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    /// Of each block; 0 of one that was never written, whose bytes are zero.
    of: Vec<u64>,
    /// Sectors of checksums that the disk does not have.
    changed: BTreeSet<usize>,
}

/// Where a block is.
fn place(block: u64) -> u64 {
    (block + block / GROUP + 1) * BLOCK
}

/// Where a sector of checksums is.
fn place_of_sums(sector: usize) -> u64 {
    let first = (sector * SECTOR / SUM) as u64;
    place(first / GROUP * GROUP) - BLOCK + (first % GROUP) * SUM as u64
}

/// Bytes on the disk of so many blocks.
fn length(blocks: u64) -> u64 {
    (blocks + blocks.div_ceil(GROUP)) * BLOCK
}

fn blocks_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

fn sum(block: u64, bytes: &[u8]) -> u64 {
    // 0 says that there is none.
    XxHash3_64::oneshot_with_seed(block, bytes).max(1)
}

fn damaged(block: u64) -> io::Error {
    let at = place(block);
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the index is damaged at offset {at:#x}: checksum does not match"),
    )
}

impl<B: StorageBackend> Checked<B> {
    /// A disk that was written so, or is empty.
    ///
    /// # Errors
    /// When it cannot be read, or its length is not one that this writes.
    pub(crate) fn open(disk: B) -> io::Result<Self> {
        let len = disk.len()?;
        let blocks = (len / BLOCK).saturating_sub(len.div_ceil(BLOCK * (GROUP + 1)));
        if length(blocks) != len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the index is not of this kind, or cut off at {len:#x}"),
            ));
        }
        let mut of = Vec::with_capacity(blocks as usize);
        let mut raw = [0; BLOCK as usize];
        while (of.len() as u64) < blocks {
            disk.read(place(of.len() as u64) - BLOCK, &mut raw)?;
            let here = (blocks - of.len() as u64).min(GROUP) as usize;
            of.extend(raw.as_chunks::<SUM>().0[..here].iter().map(|sum| u64::from_le_bytes(*sum)));
        }
        Ok(Self { disk, sums: Mutex::new(Sums { of, changed: BTreeSet::new() }) })
    }

    /// Reads a block and checks it. The header comes without its checksum.
    fn read_block(&self, block: u64, into: &mut [u8; BLOCK as usize]) -> io::Result<()> {
        self.disk.read(place(block), into)?;
        let known = self.sums.lock().of.get(block as usize).copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        if block == 0 {
            let (header, rest) = into.split_at_mut(HEADER_SUM);
            let found = u64::from_le_bytes(std::array::from_fn(|byte| rest[byte]));
            rest[..SUM].fill(0);
            let empty = found == 0 && header.iter().all(|byte| *byte == 0);
            let nothing_else = rest.iter().all(|byte| *byte == 0);
            return if (empty || found == sum(0, header)) && nothing_else { Ok(()) } else { Err(damaged(0)) };
        }
        let right = if known == 0 { into.iter().all(|byte| *byte == 0) } else { known == sum(block, into) };
        if right { Ok(()) } else { Err(damaged(block)) }
    }

    fn write_block(&self, block: u64, bytes: &mut [u8; BLOCK as usize]) -> io::Result<()> {
        if block == 0 {
            if bytes[HEADER_SUM..].iter().any(|byte| *byte != 0) {
                // A header that has outgrown its sector could not be changed in place.
                return Err(io::ErrorKind::Unsupported.into());
            }
            let header = sum(0, &bytes[..HEADER_SUM]);
            bytes[HEADER_SUM..SECTOR].copy_from_slice(&header.to_le_bytes());
            return self.disk.write(place(0), &bytes[..SECTOR]);
        }
        self.disk.write(place(block), &bytes[..])?;
        self.note(block, bytes)
    }

    fn note(&self, block: u64, bytes: &[u8]) -> io::Result<()> {
        let mut sums = self.sums.lock();
        let Sums { of, changed } = &mut *sums;
        let known = of.get_mut(block as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        *known = sum(block, bytes);
        changed.insert(block as usize * SUM / SECTOR);
        Ok(())
    }

    /// Does something with each block that has some of these bytes: its number, which of its bytes, and which of those wanted.
    fn each(
        bytes: Range<u64>,
        mut each: impl FnMut(u64, Range<usize>, Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        blocks_of(&bytes).try_for_each(|block| {
            let (start, end) = (bytes.start.max(block * BLOCK), bytes.end.min((block + 1) * BLOCK));
            let within = (start - block * BLOCK) as usize..(end - block * BLOCK) as usize;
            each(block, within, (start - bytes.start) as usize..(end - bytes.start) as usize)
        })
    }
}

impl<B: StorageBackend> StorageBackend for Checked<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sums.lock().of.len() as u64 * BLOCK)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut whole = [0; BLOCK as usize];
        Self::each(offset..offset + out.len() as u64, |block, within, wanted| {
            self.read_block(block, &mut whole)?;
            out[wanted].copy_from_slice(&whole[within]);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let blocks = len.div_ceil(BLOCK);
        let mut sums = self.sums.lock();
        let before = sums.of.len() as u64;
        self.disk.set_len(length(blocks))?;
        sums.of.resize(blocks as usize, 0);
        // What is new has none, whatever the disk has there of blocks that were cut off; of those nothing is written any more.
        let sectors = before as usize * SUM / SECTOR..(blocks as usize * SUM).div_ceil(SECTOR);
        sums.changed.extend(sectors);
        sums.changed.retain(|sector| sector * SECTOR / SUM < blocks as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        {
            let mut sums = self.sums.lock();
            while let Some(sector) = sums.changed.first().copied() {
                let mut raw = [0; SECTOR];
                let first = sector * SECTOR / SUM;
                for (at, sum) in raw.as_chunks_mut::<SUM>().0.iter_mut().enumerate() {
                    *sum = sums.of.get(first + at).copied().unwrap_or(0).to_le_bytes();
                }
                self.disk.write(place_of_sums(sector), &raw)?;
                sums.changed.pop_first();
            }
        }
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut whole = [0; BLOCK as usize];
        Self::each(offset..offset + data.len() as u64, |block, within, from| {
            if within.len() < BLOCK as usize {
                self.read_block(block, &mut whole)?;
            }
            whole[within].copy_from_slice(&data[from]);
            self.write_block(block, &mut whole)
        })
    }

    fn close(&self) -> io::Result<()> {
        self.disk.close()
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Checked, GROUP, length, place, place_of_sums};
    use proptest::prelude::*;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use std::io;
    use std::sync::Arc;

    #[derive(Clone, Debug, Default)]
    struct Memory(Arc<InMemoryBackend>);

    impl StorageBackend for Memory {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    #[test]
    fn blocks_and_their_checksums_have_places_of_their_own() {
        assert_eq!((place(0), place(GROUP - 1), place(GROUP)), (BLOCK, GROUP * BLOCK, (GROUP + 2) * BLOCK));
        assert_eq!((place_of_sums(0), place_of_sums(7)), (0, 7 * 512));
        assert_eq!(place_of_sums(8), (GROUP + 1) * BLOCK);
        assert_eq!(
            (length(0), length(1), length(GROUP), length(GROUP + 1)),
            (0, 2 * BLOCK, (GROUP + 1) * BLOCK, (GROUP + 3) * BLOCK)
        );
    }

    proptest! {
        #[test]
        fn bytes_come_back_as_they_were_written_also_after_it_was_opened_anew(
            acts in prop::collection::vec((0..3u8, 0..3_000_000u64, 1..20_000usize, any::<u8>()), 1..40)
        ) {
            let memory = Memory::default();
            let mut checked = Checked::open(memory.clone()).unwrap();
            let mut model: Vec<u8> = Vec::new();
            for (act, at, len, byte) in acts {
                match act {
                    0 => {
                        let to = (at / BLOCK * BLOCK) as usize;
                        checked.set_len(to as u64).unwrap();
                        // What is cut off is not asked for again: as redb does, it is written before it is read.
                        if to >= model.len() {
                            model.resize(to, 0);
                        } else {
                            model.truncate(to);
                            checked.sync_data().unwrap();
                        }
                    }
                    1 => {
                        let Some(room) = (model.len() as u64).checked_sub(at).filter(|room| *room > 0) else { continue };
                        let len = len.min(room as usize);
                        // The header ends before its checksum.
                        if at < BLOCK {
                            continue;
                        }
                        let bytes: Vec<u8> = (0..len).map(|at| byte.wrapping_add((at / 7) as u8)).collect();
                        checked.write(at, &bytes).unwrap();
                        model[at as usize..at as usize + len].copy_from_slice(&bytes);
                    }
                    _ => {
                        checked.sync_data().unwrap();
                        checked = Checked::open(memory.clone()).unwrap();
                    }
                }
                prop_assert_eq!(checked.len().unwrap() as usize, model.len());
            }
            let mut found = vec![0; model.len()];
            checked.read(0, &mut found).unwrap();
            prop_assert!(found == model);
        }
    }

    /// They would have been written behind the end, which no disk takes.
    #[test]
    fn checksums_of_blocks_that_were_cut_off_before_a_sync_are_forgotten() {
        let memory = Memory::default();
        let checked = Checked::open(memory.clone()).unwrap();
        checked.set_len(600 * BLOCK).unwrap();
        checked.write(590 * BLOCK, &[1; BLOCK as usize]).unwrap();
        checked.set_len(3 * BLOCK).unwrap();
        checked.sync_data().unwrap();
        assert_eq!(memory.len().unwrap(), length(3));
        checked.set_len(600 * BLOCK).unwrap();
        checked.sync_data().unwrap();
        let mut block = [9; BLOCK as usize];
        Checked::open(memory).unwrap().read(590 * BLOCK, &mut block).unwrap();
        assert_eq!(block, [0; BLOCK as usize]);
    }

    #[test]
    fn a_changed_byte_is_an_error_wherever_it_is() {
        let memory = Memory::default();
        let checked = Checked::open(memory.clone()).unwrap();
        checked.set_len(6 * BLOCK).unwrap();
        checked.write(0, &[7; 320]).unwrap();
        checked.write(BLOCK, &[8; 3 * BLOCK as usize]).unwrap();
        checked.sync_data().unwrap();
        let mut all = vec![0; 6 * BLOCK as usize];
        checked.read(0, &mut all).unwrap();
        let whole = memory.len().unwrap();
        for at in 0..whole {
            let mut byte = [0];
            memory.read(at, &mut byte).unwrap();
            memory.write(at, &[byte[0] ^ 4]).unwrap();
            let mut found = vec![0; all.len()];
            let read = Checked::open(memory.clone()).and_then(|checked| checked.read(0, &mut found));
            // What stands behind the checksums of blocks that are there is of no use to anybody.
            let of_use = !(6 * 8..BLOCK).contains(&at);
            assert!(read.is_err() || found == all && (!of_use || at < 8), "{at:#x}");
            memory.write(at, &byte).unwrap();
        }
    }
}
