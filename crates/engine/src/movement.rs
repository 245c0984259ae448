//! Store and load: the bytes of one page in or out of a slot.
//!
//! The caller guarantees by its own page state that nobody stores into or releases the slot meanwhile. What
//! the engine itself does at any time (writeback, cleaning) changes where the bytes are, never what they are;
//! a load that finds an entry gone looks at the word again and finds the new place.

use crate::engine::Engine;
use crate::error::{LoadError, StoreError};
use crate::groups::Bounds;
use crate::losses::{Lost, Reason};
use crate::scratch::Scratch;
use crate::stats::{Counters, LoadedFrom, StoredAs};
use vswap_codec::{Algorithm, CodecTag, Decompressor, Dictionaries};
use vswap_core::{
    Backing, Event, FillPattern, Load, Moving, PAGE_SIZE, Page, PoolHandle, SegmentAddr, SlotCell, SlotId,
    SlotWord,
};
use vswap_pool::EntryTag;
use vswap_segment::{self as segment, EntryAddr, ReadError};

/// How often a load may find that the bytes moved under it. Each time a whole writeback or cleaning of the
/// slot must have passed, so even a few are unlikely; past this many something is wrong.
const PATIENCE: usize = 1000;

pub(crate) fn entry_tag(tag: CodecTag) -> EntryTag {
    EntryTag::new(tag.to_bits()).expect("codec tags have ten bits and are not zero")
}

pub(crate) fn codec_tag(tag: EntryTag) -> Option<CodecTag> {
    CodecTag::from_bits(tag.get())
}

/// A pool entry's tag as a segment keeps it.
pub(crate) fn segment_tag(tag: EntryTag) -> segment::CodecTag {
    let bits = tag.get();
    segment::CodecTag { codec: (bits >> 7) as u8, dictionary: u32::from(bits & 127) }
}

/// A segment's tag as the codec knows it.
pub(crate) fn from_segment_tag(tag: segment::CodecTag) -> Option<CodecTag> {
    let dictionary = u16::try_from(tag.dictionary).ok().filter(|id| *id < 128)?;
    CodecTag::from_bits(u16::from(tag.codec) << 7 | dictionary)
}

/// The segment's address in a locator's bits.
pub(crate) fn entry_addr(addr: SegmentAddr) -> Option<EntryAddr> {
    EntryAddr::from_bits(addr.get())
}

/// What one attempt to load came to.
enum Attempt {
    Loaded,
    /// The entry was gone: look at the word again.
    Stale,
    /// The entry was the slot's own but gives no page. The word says so now; this is what it said.
    Lost(SlotWord),
    /// The same of a segment's entry, which the word does not say yet.
    Undecodable,
    Unreadable(ReadError),
}

/// Whether the bytes give a page.
pub(crate) fn decodes(
    decompressor: &mut Decompressor,
    tag: Option<CodecTag>,
    bytes: &[u8],
    known: &Dictionaries,
    page: &mut Page,
) -> bool {
    tag.is_some_and(|tag| decompressor.decompress(tag, bytes, known, page).is_ok())
}

fn attempt(decoded: bool) -> Attempt {
    if decoded { Attempt::Loaded } else { Attempt::Undecodable }
}

impl Engine {
    /// Stores a page into a slot that is exclusively the caller's, replacing what it held.
    ///
    /// # Errors
    /// When there is no room for it in the pool, or its group is at a limit; the slot then keeps what it held.
    pub fn store(&self, slot: SlotId, page: &Page, scratch: &mut Scratch) -> Result<StoredAs, StoreError> {
        self.store_within(Bounds::All, slot, page, scratch)
    }

    /// [`Engine::store`], within these limits of its group and not the others.
    ///
    /// # Errors
    /// As there.
    pub fn store_within(
        &self,
        bounds: Bounds,
        slot: SlotId,
        page: &Page,
        scratch: &mut Scratch,
    ) -> Result<StoredAs, StoreError> {
        let cell = self.space.slot(slot).ok_or(StoreError::NoSlot { slot })?;
        if let Some(pattern) = FillPattern::of_page(page) {
            self.charge(slot, self.load_of_store(cell, 0), bounds)?;
            self.replace(slot, cell, Backing::Fill(pattern));
            Counters::add(&self.counters.stored_fill, 1);
            self.count_event(slot, Event::SwpoutZero);
            return Ok(StoredAs::Fill);
        }
        if !scratch.plain && scratch.compressor.dictionary() != self.trainer.current() {
            scratch.compressor.replace(self.compressor());
        }
        let encoded = scratch.compressor.compress(page);
        let (encoded_tag, length) = (encoded.tag, encoded.bytes.len());
        let load = self.load_of_store(cell, length);
        self.charge(slot, load, bounds)?;
        let inserted = self.pool.insert(slot, entry_tag(encoded.tag), encoded.bytes);
        let handle = inserted.map_err(|_| {
            self.uncharge(slot, load);
            StoreError::PoolFull { slot, length, held: self.pool.held() }
        })?;
        self.replace(slot, cell, Backing::Pool(handle));
        self.count_event(slot, Event::Zswpout);
        // Nothing else would be stored by a dictionary.
        if encoded_tag.algorithm() == Algorithm::Zstd {
            self.trainer.offer(slot);
        }
        let raw = length == PAGE_SIZE;
        if raw {
            self.raw.note(self.class_of_cluster(slot.cluster()), slot);
        }
        Counters::add(if raw { &self.counters.stored_raw } else { &self.counters.stored_compressed }, 1);
        Counters::add(&self.counters.stored_bytes, length as u64);
        Ok(StoredAs::Pool { length })
    }

    /// What a store adds to what its cluster takes, before what it replaces has gone. (Only the caller changes whether the slot holds a page.)
    fn load_of_store(&self, cell: SlotCell<'_>, length: usize) -> Load {
        Load { pages: u16::from(cell.load().is_empty()), pool: length as u32 }
    }

    /// Puts another backing in the slot's word and frees the former one.
    fn replace(&self, slot: SlotId, cell: SlotCell<'_>, backing: Backing) {
        let age = self.generations.now();
        if backing.pool_entry().is_some() {
            self.generations.came(age);
        }
        let old = cell.update(|word| Some(word.with_backing(backing, age)));
        let pool = self.free_backing(slot, old.unwrap_or_default()) as u32;
        self.uncharge(slot, Load { pages: 0, pool });
    }

    /// Reads the page of a slot; what it reads from stays as it is. Allocates nothing; at most one read of
    /// the device.
    ///
    /// # Errors
    /// When the bytes cannot be had. The reader must not go on: the page's content is lost (or, after
    /// [`LoadError::Io`], perhaps only out of reach), and `page` holds nonsense.
    pub fn load(
        &self,
        slot: SlotId,
        page: &mut Page,
        scratch: &mut Scratch,
    ) -> Result<LoadedFrom, LoadError> {
        let cell = self.space.slot(slot).ok_or(LoadError::NoSlot { slot })?;
        let mut missed = false;
        for _ in 0..PATIENCE {
            let word = cell.load();
            let (from, attempt) = match word.backing() {
                Backing::Empty => {
                    page.fill(0);
                    Counters::add(&self.counters.loaded_empty, 1);
                    return Ok(LoadedFrom::Empty);
                }
                Backing::Fill(pattern) => {
                    pattern.write(page);
                    Counters::add(&self.counters.loaded_fill, 1);
                    self.count_event(slot, Event::SwpinZero);
                    return Ok(LoadedFrom::Fill);
                }
                Backing::Poisoned => return Err(LoadError::Poisoned { slot }),
                Backing::Pool(handle) | Backing::Moving(Moving { source: handle, .. }) => {
                    (LoadedFrom::Pool, self.load_entry(slot, cell, handle, page, scratch))
                }
                Backing::Segment(addr) => (LoadedFrom::Segment, self.load_segment(slot, addr, page, scratch)),
            };
            if let Attempt::Loaded = attempt {
                cell.mark_accessed(word);
                let pool = from == LoadedFrom::Pool;
                Counters::add(
                    if pool { &self.counters.loaded_pool } else { &self.counters.loaded_segment },
                    1,
                );
                self.count_event(slot, if pool { Event::Zswpin } else { Event::Pswpin });
                return Ok(from);
            }
            if let Attempt::Lost(old) = attempt {
                Counters::add(&self.counters.lost, 1);
                self.free_lost(slot, old);
                return Err(LoadError::Damaged { slot });
            }
            // Whatever went wrong is believed only if the bytes did not move meanwhile.
            if cell.load().same_backing(word) {
                match attempt {
                    Attempt::Loaded | Attempt::Stale | Attempt::Lost(_) => {}
                    // The bytes may have been away and come back to where they were, in between: so it is believed the second time.
                    Attempt::Unreadable(ReadError::NotThere { .. }) if !missed => missed = true,
                    Attempt::Undecodable => {
                        let lost = self.undecodable(word);
                        return Err(self.poison(slot, cell, word, lost));
                    }
                    Attempt::Unreadable(error) => return Err(self.unreadable(slot, cell, word, error)),
                }
            }
            std::hint::spin_loop();
        }
        Err(LoadError::Damaged { slot })
    }

    /// Loads the entry that the slot's word named, if the word names it still: an entry there under the slot's name may be older, since compaction
    /// puts a copy of what the slot held before under that name and only then finds that it has lost. The word is looked at with the entry's
    /// chunk locked: while that is so, nothing else can come to be there, and whatever a word names is there, so what is there is what it names.
    fn load_entry(
        &self,
        slot: SlotId,
        cell: SlotCell<'_>,
        handle: PoolHandle,
        page: &mut Page,
        scratch: &mut Scratch,
    ) -> Attempt {
        let named = |word: SlotWord| word.backing().pool_entry() == Some(handle);
        let read = self.pool.read(handle, slot, |tag, bytes| {
            if !named(cell.load()) {
                return None;
            }
            if decodes(&mut scratch.decompressor, codec_tag(tag), bytes, &self.dictionaries, page) {
                return Some(Ok(()));
            }
            // Later the handle may be another's of the slot's own, stored since.
            Some(Err(self.mark_lost(slot, cell, named, Reason::Undecodable.into())))
        });
        match read.flatten() {
            Some(Ok(())) => Attempt::Loaded,
            Some(Err(Some(old))) => Attempt::Lost(old),
            _ => Attempt::Stale,
        }
    }

    /// A slot's page has been read, though not here: somebody has a copy of it.
    pub fn note_use(&self, slot: SlotId) {
        if let Some(cell) = self.space.slot(slot) {
            cell.mark_accessed(cell.load());
        }
    }

    fn load_segment(
        &self,
        slot: SlotId,
        addr: SegmentAddr,
        page: &mut Page,
        scratch: &mut Scratch,
    ) -> Attempt {
        let Some(addr) = entry_addr(addr) else { return Attempt::Undecodable };
        let Scratch { io, decompressor, .. } = scratch;
        match self.disk.store().read_entry(addr, slot, io) {
            Ok(entry) => {
                let tag = from_segment_tag(entry.tag);
                attempt(decodes(decompressor, tag, entry.bytes, &self.dictionaries, page))
            }
            Err(error) => Attempt::Unreadable(error),
        }
    }

    /// The page is lost: later loads say so at once, and the bytes of no use are freed.
    fn poison(&self, slot: SlotId, cell: SlotCell<'_>, seen: SlotWord, lost: Lost) -> LoadError {
        Counters::add(&self.counters.lost, 1);
        if let Backing::Segment(addr) = seen.backing()
            && entry_addr(addr).is_some_and(|addr| self.disk.store().is_kept(addr))
        {
            // What outlives the run names it: let go of, it would leave an older one to be found. So its readers find it damaged each time.
            self.losses.remember(slot, lost);
            return LoadError::Damaged { slot };
        }
        let old = self.mark_lost(slot, cell, |word| word.same_backing(seen), lost);
        old.into_iter().for_each(|old| self.free_lost(slot, old));
        LoadError::Damaged { slot }
    }

    /// Puts it into the slot's word that its page is lost, if that `is` the one. Gives what it said before.
    fn mark_lost(
        &self,
        slot: SlotId,
        cell: SlotCell<'_>,
        is: impl Fn(SlotWord) -> bool,
        lost: Lost,
    ) -> Option<SlotWord> {
        // Before the word says so: whoever sees it there finds why.
        self.losses.remember(slot, lost);
        cell.update(|word| is(word).then(|| word.moved_to(Backing::Poisoned))).ok()
    }

    /// Frees what a word named whose page is lost. The reader's own reference keeps the cluster.
    fn free_lost(&self, slot: SlotId, old: SlotWord) {
        let pool = self.free_backing(slot, old) as u32;
        self.uncharge(slot, Load { pages: 0, pool });
    }

    fn undecodable(&self, seen: SlotWord) -> Lost {
        let addr = match seen.backing() {
            Backing::Segment(addr) => entry_addr(addr),
            _ => None,
        };
        self.lost_at(addr, Reason::Undecodable)
    }

    fn unreadable(&self, slot: SlotId, cell: SlotCell<'_>, seen: SlotWord, source: ReadError) -> LoadError {
        match source {
            ReadError::Io { offset: file_offset, .. } => LoadError::Io { slot, file_offset, source },
            ReadError::Damaged { at, fault, .. } => {
                let file_offset = at + fault.offset() as u64;
                self.poison(slot, cell, seen, self.lost_by(&source));
                LoadError::Corrupt { slot, file_offset, source }
            }
            source => {
                self.poison(slot, cell, seen, self.lost_by(&source));
                LoadError::Corrupt { slot, file_offset: 0, source }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attempt, entry_tag};
    use crate::config::{CodecChoice, EngineConfig, TierConfig};
    use crate::engine::Engine;
    use crate::error::LoadError;
    use crate::losses::Reason;
    use vswap_codec::{Algorithm, CodecTag};
    use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PageIndex, PoolHandle, SlotId};

    /// The algorithm of the last of many pages that lz4 makes as short as zstd does: half zeroes, half noise.
    fn chosen(codec: CodecChoice, disk: bool) -> Algorithm {
        let tier = disk.then(|| TierConfig::new(std::env::temp_dir(), ByteCount::mib(16)));
        let tiers = tier.into_iter().collect();
        let engine = Engine::new(EngineConfig { codec, tiers, ..EngineConfig::default() }).unwrap();
        let mut scratch = engine.scratch();
        let mut block = engine.owner_block(GroupId::ROOT).unwrap();
        let slot = block.slot_for_store(&engine, PageIndex::new(0).unwrap()).unwrap();
        let mut page = [0; PAGE_SIZE];
        let mut noise = 88_172_645_463_325_252_u64;
        for word in page[..PAGE_SIZE / 2].as_chunks_mut::<8>().0 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *word = noise.to_le_bytes();
        }
        for _ in 0..500 {
            engine.store(slot, &page, &mut scratch).unwrap();
        }
        let handle = engine.word(slot).backing().pool_entry().unwrap();
        let tag = engine.pool.read(handle, slot, |tag, _| super::codec_tag(tag)).unwrap().unwrap();
        block.dispose(&engine);
        tag.algorithm()
    }

    #[test]
    fn over_a_disk_pages_that_zstd_makes_no_shorter_are_stored_by_lz4_unless_zstd_is_asked_for() {
        assert_eq!(chosen(CodecChoice::Auto, true), Algorithm::Lz4);
        assert_eq!(chosen(CodecChoice::Lz4, true), Algorithm::Lz4);
        assert_eq!(chosen(CodecChoice::Zstd, true), Algorithm::Zstd);
        // Nothing goes below: room is all that counts.
        assert_eq!(chosen(CodecChoice::Auto, false), Algorithm::Zstd);
    }

    /// A reader saw the word name `h`; before it looks there, the page is stored anew elsewhere, and a compaction that has lost puts
    /// its copy of the former content at `h`, under the same slot's name.
    #[test]
    fn an_entry_that_the_word_no_longer_names_is_not_believed() {
        let engine =
            Engine::new(EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() }).unwrap();
        let mut scratch = engine.scratch();
        let mut block = engine.owner_block(GroupId::ROOT).unwrap();
        let slot = block.slot_for_store(&engine, PageIndex::new(0).unwrap()).unwrap();
        let page = |seed: u8| std::array::from_fn(|at| if at % 64 == 0 { (at / 64) as u8 ^ seed } else { 0 });
        let (former, present): ([u8; PAGE_SIZE], [u8; PAGE_SIZE]) = (page(1), page(2));

        engine.store(slot, &former, &mut scratch).unwrap();
        let handle = engine.word(slot).backing().pool_entry().unwrap();
        let copy = engine.pool.read(handle, slot, |_, bytes| bytes.to_vec()).unwrap();
        engine.store(slot, &present, &mut scratch).unwrap();
        let stale = engine.pool.insert(slot, entry_tag(CodecTag::LZ4), &copy).unwrap();
        assert_eq!(stale, handle, "the place that was freed last is the first to be used again");

        let cell = engine.space.slot(slot).unwrap();
        let mut found = [0; PAGE_SIZE];
        let attempt = engine.load_entry(slot, cell, handle, &mut found, &mut scratch);
        assert!(matches!(attempt, Attempt::Stale));
        engine.load(slot, &mut found, &mut scratch).unwrap();
        assert!(found == present);
        // Nor is what gives no page there.
        damage(&engine, slot, stale);
        assert!(matches!(engine.load_entry(slot, cell, handle, &mut found, &mut scratch), Attempt::Stale));
        engine.load(slot, &mut found, &mut scratch).unwrap();
        assert!(found == present);
        engine.pool.remove(stale, slot);
        block.dispose(&engine);
    }

    /// Puts bytes that no codec gives in the place of an entry, as many.
    fn damage(engine: &Engine, slot: SlotId, handle: PoolHandle) {
        let length = engine.pool.remove(handle, slot).unwrap();
        let damaged = engine.pool.insert(slot, entry_tag(CodecTag::LZ4), &vec![0xff; length]).unwrap();
        assert_eq!(damaged, handle, "the place that was freed last is the first to be used again");
    }

    #[test]
    fn an_entry_that_gives_no_page_is_lost_and_freed_once_and_says_why() {
        let engine =
            Engine::new(EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() }).unwrap();
        let mut scratch = engine.scratch();
        let mut block = engine.owner_block(GroupId::ROOT).unwrap();
        let slot = block.slot_for_store(&engine, PageIndex::new(0).unwrap()).unwrap();
        let mut page = std::array::from_fn(|at| (at / 16) as u8);
        engine.store(slot, &page, &mut scratch).unwrap();
        damage(&engine, slot, engine.word(slot).backing().pool_entry().unwrap());

        let error = engine.load(slot, &mut page, &mut scratch).unwrap_err();
        assert!(matches!(error, LoadError::Damaged { .. }), "{error}");
        let again = engine.load(slot, &mut page, &mut scratch).unwrap_err();
        assert!(matches!(again, LoadError::Poisoned { .. }), "{again}");
        assert_eq!(engine.lost(&again), Reason::Undecodable.into());
        assert_eq!((engine.pool_payload(), engine.generations.total()), (ByteCount::ZERO, 0));
        assert_eq!(engine.stats().lost, 1);
        engine.audit_groups().unwrap();
        block.dispose(&engine);
    }
}
