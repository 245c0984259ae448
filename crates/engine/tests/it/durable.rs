//! What outlives the run, on a disk that loses power: after each loss the pages are those of the last commit, or of the one that was under way.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use vswap_core::{Bitmap512, ClusterId, GroupId, PAGE_SIZE, Page, PageIndex};
use vswap_engine::{
    CodecChoice, Commit, DurableError, DurableTier, Engine, EngineConfig, Kept, KeptCluster, KeptEntry,
    SEGMENT_BYTES, Scratch,
};
use vswap_segment::{KeptSegment, SegmentId, power::Power};

const KEY: u64 = 77;
const RUN: u64 = 1 << 32;

/// By number of block and page.
type Bytes = BTreeMap<(usize, usize), Page>;

/// What somebody who keeps lists has kept.
#[derive(Clone, Default)]
struct List {
    segments: BTreeMap<SegmentId, (KeptSegment, Arc<[KeptEntry]>)>,
    /// By number of block.
    clusters: BTreeMap<usize, KeptCluster>,
    bytes: Bytes,
}

impl List {
    fn next(&self, commit: &Commit, clusters: BTreeMap<usize, KeptCluster>, bytes: Bytes) -> Self {
        let of = |kept: &KeptSegment| match commit.entries.get(&kept.segment) {
            Some(entries) => Arc::clone(entries),
            None => {
                let (former, entries) = &self.segments[&kept.segment];
                assert_eq!(former, kept, "a segment that was listed has changed");
                Arc::clone(entries)
            }
        };
        let segments = commit.segments.iter().map(|kept| (kept.segment, (*kept, of(kept))));
        Self { segments: segments.collect(), clusters, bytes }
    }

    fn kept(&self) -> Kept {
        let segments = self.segments.values().map(|(kept, entries)| (*kept, entries.to_vec()));
        Kept { segments: segments.collect(), clusters: self.clusters.values().cloned().collect() }
    }
}

struct Run {
    engine: Arc<Engine>,
    scratch: Scratch,
    group: GroupId,
    disk: Arc<Power>,
    blocks: BTreeMap<usize, ClusterId>,
    bytes: Bytes,
    list: List,
}

fn config() -> EngineConfig {
    EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() }
}

impl Run {
    fn open(disk: Arc<Power>, list: List, run: u64) -> Self {
        let engine = Engine::new(config()).unwrap();
        let tier = DurableTier { priority: 0, key: KEY, after: run * RUN };
        let group = engine.open_durable(Arc::clone(&disk) as _, tier, &list.kept()).unwrap();
        let blocks = list.clusters.iter().map(|(number, kept)| (*number, kept.cluster)).collect();
        let scratch = engine.scratch();
        let run = Self { engine, scratch, group, disk, blocks, bytes: list.bytes.clone(), list };
        run.engine.audit_groups().unwrap();
        run.engine.audit_tiers().unwrap();
        run
    }

    fn check(&mut self) {
        for (number, block) in &self.blocks {
            for page in PageIndex::all() {
                let wanted = self.bytes.get(&(*number, page.get()));
                assert_eq!(self.engine.has_page(block.slot(page)), wanted.is_some(), "{number} {page:?}");
                let Some(wanted) = wanted else { continue };
                let mut found = [0; PAGE_SIZE];
                self.engine.load(block.slot(page), &mut found, &mut self.scratch).unwrap();
                assert!(found == *wanted, "block {number}, {page:?} has other bytes");
            }
        }
    }

    fn store(&mut self, number: usize, page: usize, bytes: Page) {
        let engine = &self.engine;
        let block = self.blocks.entry(number);
        let block = block.or_insert_with(|| engine.new_kept_cluster(self.group).unwrap());
        let slot = block.slot(PageIndex::new(page).unwrap());
        engine.store(slot, &bytes, &mut self.scratch).unwrap();
        self.bytes.insert((number, page), bytes);
    }

    fn release(&mut self, number: usize, page: usize) {
        if let Some(block) = self.blocks.get(&number) {
            self.engine.empty_kept(block.slot(PageIndex::new(page).unwrap()));
            self.bytes.remove(&(number, page));
        }
    }

    fn drop_block(&mut self, number: usize) {
        if let Some(block) = self.blocks.remove(&number) {
            self.engine.free_kept_cluster(block);
            self.bytes.retain(|(other, _), _| *other != number);
        }
    }

    /// A commit, with what whoever keeps lists does in between: `Err` has the list that may have been kept or not.
    fn commit(&mut self, chance: &mut impl FnMut() -> u64) -> Result<(), Option<Box<List>>> {
        let down = |run: &Self| run.engine.write_down(run.group);
        match down(self) {
            Ok(()) => {}
            // What waits for a commit cannot win this one room, since it has to be whole; what was there before is committed again instead.
            Err(DurableError::Full { .. }) => return Ok(()),
            Err(_) => return Err(None),
        }
        let mut clusters = BTreeMap::new();
        for (number, block) in &self.blocks {
            clusters.insert(*number, self.engine.kept_cluster(*block, &Bitmap512::FULL).unwrap());
        }
        let commit = self.engine.to_commit();
        self.engine.sync_durable().map_err(|_| None)?;
        let list = self.list.next(&commit, clusters, self.bytes.clone());
        // Others go on before it arrives, and what they write takes no room of what the former list names.
        for _ in 0..chance() % 3 {
            (0..200).for_each(|page| {
                self.store((page % 5) as usize, (chance() % 512) as usize, self::page(chance()))
            });
            let _ = self.engine.write_down(self.group);
        }
        // The list is on its way, and arrives or not.
        if self.disk.flush().is_err() {
            return Err(Some(Box::new(list)));
        }
        self.list = list;
        self.engine.committed(commit);
        Ok(())
    }

    fn cut(self, list: Option<Box<List>>, run: u64, mut chance: impl FnMut() -> u64) -> Self {
        let list = match list {
            Some(arrived) if chance() & 1 == 0 => *arrived,
            _ => self.list,
        };
        let disk = self.disk.cut(&mut chance);
        for block in self.blocks.into_values() {
            self.engine.free_kept_cluster(block);
        }
        Self::open(disk, list, run)
    }
}

fn page(seed: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    // A third are one word over and over, the others compress by half.
    if seed.is_multiple_of(3) {
        page.as_chunks_mut::<8>().0.iter_mut().for_each(|word| *word = (seed & 0xffff).to_le_bytes());
        return page;
    }
    for word in page[..PAGE_SIZE / 2].as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    page
}

fn play(seed: u64, steps: usize) -> (usize, usize) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut chance = move || rng.next_u64();
    let mut run = Run::open(Power::new(6 * SEGMENT_BYTES), List::default(), 1);
    let (mut number, mut commits, mut cuts, mut doom) = (1, 0, 0, 0_u32);
    for step in 0..steps {
        let (block, at) = ((chance() % 5) as usize, (chance() % 512) as usize);
        let mut failed = None;
        match chance() % 100 {
            0..70 => {
                let many = chance() % 40;
                (0..many).for_each(|more| run.store(block, (at + more as usize) % 512, page(chance())));
            }
            70..85 => (0..chance() % 60).for_each(|more| run.release(block, (at + more as usize) % 512)),
            85..87 => run.drop_block(block),
            87..90 => {
                // Room comes back, or nothing is done.
                let _ = run.engine.pack_durable();
            }
            90..93 => {
                run.disk.fail_after(chance() % 12);
                doom = 2 + (chance() % 10) as u32;
            }
            _ => {
                commits += 1;
                failed = run.commit(&mut chance).err();
            }
        }
        doom = doom.saturating_sub(1);
        if failed.is_some() || doom == 1 || chance() % 200 == 0 {
            (cuts, doom) = (cuts + 1, 0);
            number += 1;
            run = run.cut(failed.flatten(), number, &mut chance);
            run.check();
        }
        if step % 64 == 0 {
            run.check();
        }
    }
    (commits, cuts)
}

#[test]
fn after_a_loss_of_power_the_pages_are_those_of_a_commit() {
    for seed in 0..4 {
        let (commits, cuts) = play(seed, 1000);
        assert!(commits > 30 && cuts > 5, "{commits} commits, {cuts} cuts");
    }
}

#[test]
fn what_a_list_says_that_cannot_be_is_refused() {
    let refuse = |kept: &Kept| {
        let engine = Engine::new(config()).unwrap();
        let tier = DurableTier { priority: 0, key: KEY, after: RUN };
        engine.open_durable(Power::new(4 * SEGMENT_BYTES) as _, tier, kept).unwrap_err().to_string()
    };
    let segment = SegmentId::new(0).unwrap();
    let good = KeptSegment { segment, at: 0, sequence: 1, entries_end: 128, entries: 1 };
    for (one, says) in [
        (KeptSegment { at: 4 * SEGMENT_BYTES as u64, ..good }, "has become shorter"),
        (KeptSegment { at: 4096, ..good }, "where none can be"),
        (KeptSegment { sequence: RUN + 1, ..good }, "cannot be"),
        (KeptSegment { entries: u32::MAX, ..good }, "cannot be"),
    ] {
        let said = refuse(&Kept { segments: vec![(one, Vec::new())], clusters: Vec::new() });
        assert!(said.contains(says), "{said}");
    }
    let twice = Kept { segments: vec![(good, Vec::new()), (good, Vec::new())], clusters: Vec::new() };
    assert!(refuse(&twice).contains("twice"));
    let cluster = ClusterId::new(3);
    let empty =
        || KeptCluster { cluster, stored: Default::default(), fills: Vec::new(), lost: Default::default() };
    let twice = Kept { segments: Vec::new(), clusters: vec![empty(), empty()] };
    assert!(refuse(&twice).contains("twice"));
}
