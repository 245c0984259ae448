//! Slot words: what is cast in comes out, and no field disturbs another.
use proptest::prelude::*;
use vswap_core::slot::SlotWord;
use vswap_core::{
    Age, Backing, ClusterState, FillPattern, MoveId, Moving, PAGE_SIZE, PageIndex, PoolHandle, SegmentAddr,
    SlotId, Sparse, SwapCount,
};

fn handle() -> impl Strategy<Value = PoolHandle> {
    (0..PoolHandle::CLASSES, 0..PoolHandle::CHUNKS, 0..PoolHandle::ENTRIES)
        .prop_map(|(class, chunk, index)| PoolHandle::new(class, chunk, index).unwrap())
}

fn backing() -> impl Strategy<Value = Backing> {
    let word = prop_oneof![
        any::<u32>().prop_map(|half| u64::from(half) << 32 | u64::from(half)),
        any::<u64>().prop_map(|word| word & 0x7fff_ffff_ffff),
        any::<u64>().prop_map(|word| word | 0xffff_8000_0000_0000),
    ];
    prop_oneof![
        Just(Backing::Empty),
        word.prop_map(|word| Backing::Fill(FillPattern::of_word(word).unwrap())),
        handle().prop_map(Backing::Pool),
        (0..1u64 << SegmentAddr::BITS).prop_map(|bits| Backing::Segment(SegmentAddr::new(bits).unwrap())),
        (handle(), 0..1u8 << MoveId::BITS)
            .prop_map(|(source, id)| Backing::Moving(Moving { source, batch: MoveId::new(id).unwrap() })),
        Just(Backing::Poisoned),
    ]
}

fn age() -> impl Strategy<Value = Age> {
    (0..Age::COUNT as u64).prop_map(Age::of_generation)
}

proptest! {
    #![proptest_config(crate::cases(2000))]

    #[test]
    fn a_word_gives_back_what_was_cast_in(backing in backing(), age in age(), count in 0..400u64, other in backing(), later in age()) {
        let word = SlotWord::new(backing, age).with_count(count);
        let expected = match count {
            0..255 => SwapCount::Exact(count as u8),
            _ => SwapCount::Overflowed,
        };
        prop_assert_eq!((word.backing(), word.count(), word.accessed()), (backing, expected, false));
        let empty = backing == Backing::Empty;
        prop_assert_eq!((word.is_empty(), word.is_pool()), (empty, matches!(backing, Backing::Pool(_))));
        prop_assert_eq!(word.age(), if empty { Age::default() } else { age });

        let seen = word.with_accessed();
        prop_assert_eq!((seen.accessed(), seen.backing(), seen.count()), (!empty, backing, expected));
        prop_assert!(seen.same_backing(word));
        let aged = seen.with_age(later);
        prop_assert_eq!((aged.accessed(), aged.backing(), aged.count()), (false, backing, expected));
        prop_assert_eq!(aged.age(), if empty { Age::default() } else { later });

        let stored = seen.with_backing(other, later);
        prop_assert_eq!((stored.backing(), stored.count(), stored.accessed()), (other, expected, false));
        prop_assert_eq!(stored.same_backing(word), other == backing);
        if !empty && other != Backing::Empty {
            let moved = seen.moved_to(other);
            prop_assert_eq!((moved.backing(), moved.accessed(), moved.age()), (other, true, word.age()));
        }
    }

    #[test]
    fn handles_keep_their_parts(class in 0..PoolHandle::CLASSES, chunk in 0..PoolHandle::CHUNKS, index in 0..PoolHandle::ENTRIES) {
        let handle = PoolHandle::new(class, chunk, index).unwrap();
        prop_assert_eq!((handle.class(), handle.chunk(), handle.index()), (class, chunk, index));
        prop_assert_eq!(PoolHandle::new(PoolHandle::CLASSES, chunk, index), None);
    }

    #[test]
    fn a_pattern_is_found_and_written_exactly(word: u64, small in any::<i32>(), byte: u8) {
        for word in [word, small as i64 as u64, u64::from_le_bytes([byte; 8]), word & 0x7fff_ffff_ffff] {
            let mut page = [0; PAGE_SIZE];
            page.as_chunks_mut::<8>().0.fill(word.to_le_bytes());
            let pattern = FillPattern::of_page(&page);
            prop_assert_eq!(pattern, FillPattern::of_word(word));
            if let Some(pattern) = pattern {
                prop_assert_eq!(pattern.word(), word);
                let mut out = [0xee; PAGE_SIZE];
                pattern.write(&mut out);
                prop_assert!(out == page);
            }
        }
    }

    #[test]
    fn one_other_byte_anywhere_is_no_pattern(word: u32, at in 0..PAGE_SIZE, change in 1..=255u8) {
        let mut page = [0; PAGE_SIZE];
        page.as_chunks_mut::<4>().0.fill(word.to_le_bytes());
        page[at] ^= change;
        prop_assert_eq!(FillPattern::of_page(&page), None);
    }

    #[test]
    fn slots_name_their_cluster_and_place(number in 0..1u64 << SlotId::BITS) {
        let slot = SlotId::new(number).unwrap();
        prop_assert_eq!(slot.cluster().slot(slot.index()), slot);
        prop_assert_eq!(u64::from(slot.cluster().get()) * 512 + slot.index().get() as u64, number);
        prop_assert_eq!(SlotId::new(number | 1 << SlotId::BITS), None);
    }

    #[test]
    fn neighbours_in_a_sparse_array_are_neighbours_or_start_a_segment(index in 0..u32::MAX, log2 in 0..12u32) {
        let sparse = Sparse::new(log2);
        let (here, next) = (sparse.locate(index), sparse.locate(index + 1));
        prop_assert!(here.at < sparse.segment_len(here.segment) && here.segment < sparse.segments());
        if next.segment == here.segment {
            prop_assert_eq!(next.at, here.at + 1);
        } else {
            prop_assert_eq!((next.segment, next.at), (here.segment + 1, 0));
            prop_assert_eq!(here.at + 1, sparse.segment_len(here.segment));
        }
    }

    #[test]
    fn a_clusters_owners_are_counted(shares in 0..200u32, listed in 0..=512usize) {
        let mut state = ClusterState::direct();
        for _ in 0..shares { state = state.share().unwrap(); }
        for _ in 0..listed { state = state.list_slot().unwrap(); }
        prop_assert_eq!((state.direct_owners(), state.listed_slots()), (shares + 1, listed));
        prop_assert_eq!(state.is_sole_direct(), shares == 0);
        prop_assert_eq!(ClusterState::from_word(state.to_word()), state);
        for _ in 0..=shares { state = state.unshare().unwrap(); }
        prop_assert_eq!(state.unshare(), None);
        prop_assert_eq!(state.is_abandoned(), listed == 0);
        for _ in 0..listed { state = state.unlist_slot().unwrap(); }
        prop_assert!(state.is_abandoned() && state.in_use() && state.unlist_slot().is_none());
    }
}

#[test]
fn the_word_zero_is_the_empty_slot_and_a_held_cluster_is_not_abandoned() {
    assert_eq!(SlotWord::default(), SlotWord::new(Backing::Empty, Age::of_generation(7)));
    assert!(!ClusterState::held().is_abandoned());
    assert!(ClusterState::held().let_go().is_abandoned());
    assert_eq!(PageIndex::new(512), None);
    assert_eq!(PageIndex::of_addr(0x7f00_0020_3fff), PageIndex::new(3).unwrap());
}
