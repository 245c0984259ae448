//! Integration tests of the codecs: what goes in comes out, and what is damaged is refused.
use proptest::prelude::*;
use vswap_codec::{
    Algorithm, Chooser, CodecTag, Compressor, DecodeError, Decompressor, Dictionaries, Dictionary,
    DictionaryId, Method,
};
use vswap_core::{PAGE_SIZE, Page};

/// A page like those of a heap: runs of small words, pointers with common upper halves, some text.
fn heap_page(seed: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for (at, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = match at % 8 {
            0 | 4 => 0x0000_7f3a_5500_0000 + (state & 0xff_fff0),
            1 => 1 + state % 3,
            2 => 0x0000_55d0_1020_3040,
            7 => state & 0xffff,
            _ => 0,
        }
        .to_le_bytes();
    }
    page
}

fn noise_page(seed: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut state = seed | 1;
    for word in page.as_chunks_mut::<8>().0 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        *word = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_le_bytes();
    }
    page
}

fn any_page() -> impl Strategy<Value = Page> {
    // `fraction` of noise, the rest of a heap: lengths on both sides of every limit.
    (any::<u64>(), 0..=PAGE_SIZE).prop_map(|(seed, noisy)| {
        let mut page = heap_page(seed);
        page[..noisy].copy_from_slice(&noise_page(seed)[..noisy]);
        page
    })
}

/// Pages that a property is tried on, and of a row: few under Miri, which is slow.
const CASES: u32 = if cfg!(miri) { 2 } else { 300 };
const ROW: u64 = if cfg!(miri) { 3 } else { 200 };

const METHODS: [Method; 3] = [Method::Lz4, Method::ZSTD_FAST, Method::ZSTD_SMALL];

fn round_trip(compressor: &mut Compressor, dictionaries: &Dictionaries, page: &Page) -> (CodecTag, usize) {
    let encoded = compressor.compress(page);
    let mut out = [0xee; PAGE_SIZE];
    let result = Decompressor::new().decompress(encoded.tag, encoded.bytes, dictionaries, &mut out);
    assert_eq!(result, Ok(()));
    assert!(out == *page, "{:?}: another page came back", encoded.tag);
    (encoded.tag, encoded.bytes.len())
}

fn trained() -> Dictionaries {
    let samples: Vec<Page> = (0..Dictionary::SAMPLES as u64).map(heap_page).collect();
    let dictionaries = Dictionaries::default();
    dictionaries.add(Dictionary::train(&samples).expect("pages have much in common")).expect("room for one");
    dictionaries
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn every_page_comes_back(page in any_page()) {
        for method in METHODS {
            let (tag, length) = round_trip(&mut Compressor::new(method, None), &Dictionaries::default(), &page);
            prop_assert_eq!(length == PAGE_SIZE, tag == CodecTag::RAW);
        }
    }

    #[test]
    fn damaged_bytes_never_crash_or_overrun(page in any_page(), at in any::<prop::sample::Index>(), flip in 1..=255u8, cut in any::<prop::sample::Index>()) {
        let none = Dictionaries::default();
        let mut out = [0; PAGE_SIZE];
        for method in METHODS {
            let mut compressor = Compressor::new(method, None);
            let encoded = compressor.compress(&page);
            let mut bytes = encoded.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // A flipped literal decodes to another page: the segment's checksum finds that, not the codec.
            let _ = Decompressor::new().decompress(encoded.tag, &bytes, &none, &mut out);
            let cut = cut.index(bytes.len());
            let result = Decompressor::new().decompress(encoded.tag, &encoded.bytes[..cut], &none, &mut out);
            prop_assert!(result.is_err());
        }
    }
}

#[test]
fn a_page_that_does_not_compress_is_raw_not_longer() {
    for method in METHODS {
        let (tag, length) =
            round_trip(&mut Compressor::new(method, None), &Dictionaries::default(), &noise_page(7));
        assert_eq!((tag, length), (CodecTag::RAW, PAGE_SIZE));
    }
}

#[test]
fn compressed_bytes_of_a_pages_length_are_not_taken_for_a_raw_page() {
    let bytes = noise_page(3);
    let mut out = [0; PAGE_SIZE];
    let result = Decompressor::new().decompress(CodecTag::LZ4, &bytes, &Dictionaries::default(), &mut out);
    assert_eq!(result, Err(DecodeError::Damaged { algorithm: Algorithm::Lz4, length: PAGE_SIZE }));
}

#[test]
fn a_context_forgets_the_page_before() {
    // Nothing is learnt under Miri.
    let dictionaries = if cfg!(miri) { Dictionaries::default() } else { trained() };
    let dictionary = dictionaries.get(DictionaryId::new(1).unwrap());
    let cases = [
        (Method::Lz4, None),
        (Method::ZSTD_FAST, None),
        (Method::ZSTD_FAST, dictionary),
        (Method::ZSTD_SMALL, None),
        (Method::ZSTD_SMALL, dictionary),
    ];
    for (method, dictionary) in cases {
        let mut reused = Compressor::new(method, dictionary);
        for seed in 0..ROW {
            let page = if seed % 5 == 0 { noise_page(seed) } else { heap_page(seed / 2) };
            round_trip(&mut reused, &dictionaries, &page);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn a_dictionary_of_the_workload_shortens_pages_and_is_named_by_them() {
    let dictionaries = trained();
    let dictionary = dictionaries.get(DictionaryId::new(1).unwrap());
    for method in [Method::ZSTD_FAST, Method::ZSTD_SMALL] {
        let page = heap_page(70_001);
        let (_, plain) = round_trip(&mut Compressor::new(method, None), &dictionaries, &page);
        let (tag, with) = round_trip(&mut Compressor::new(method, dictionary), &dictionaries, &page);
        assert_eq!(tag.dictionary(), DictionaryId::new(1));
        assert!(with < plain, "{method:?}: {with} bytes with a dictionary, {plain} without");
    }
}

#[test]
fn an_unknown_dictionary_is_refused() {
    let mut out = [0; PAGE_SIZE];
    let id = DictionaryId::new(9).unwrap();
    let none = Dictionaries::default();
    let result = Decompressor::new().decompress(CodecTag::zstd(Some(id)), &[1, 2, 3], &none, &mut out);
    assert_eq!(result, Err(DecodeError::NoDictionary { id }));
}

#[test]
fn too_few_samples_train_nothing() {
    assert!(Dictionary::train(&[heap_page(1)]).is_err());
    assert!(Dictionary::train(&[]).is_err());
}

#[test]
fn tags_survive_their_ten_bits_and_zero_is_none() {
    let dictionary = DictionaryId::new(127);
    for tag in [CodecTag::RAW, CodecTag::LZ4, CodecTag::zstd(None), CodecTag::zstd(dictionary)] {
        assert!(tag.to_bits() < 1 << CodecTag::BITS);
        assert_eq!(CodecTag::from_bits(tag.to_bits()), Some(tag));
    }
    assert_eq!(CodecTag::from_bits(0), None);
}

/// Half zeroes, half noise: lz4 leaves as much as zstd does.
fn plain_page(seed: u64) -> Page {
    let mut page = noise_page(seed);
    page[..PAGE_SIZE / 2].fill(0);
    page
}

/// The algorithm that a chooser took last of so many pages, all of which come back.
fn last_choice(chooser: &mut Chooser, pages: impl Iterator<Item = Page>) -> Algorithm {
    let (mut decompressor, none) = (Decompressor::new(), Dictionaries::default());
    let mut last = Algorithm::Raw;
    for page in pages {
        let encoded = chooser.compress(&page);
        let mut out = [0xee; PAGE_SIZE];
        decompressor.decompress(encoded.tag, encoded.bytes, &none, &mut out).unwrap();
        assert!(out == page, "{:?}: another page came back", encoded.tag);
        last = encoded.tag.algorithm();
    }
    last
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn a_chooser_takes_zstd_where_it_saves_much_and_lz4_where_it_saves_little() {
    let mut chooser = Chooser::between(Compressor::new(Method::ZSTD_FAST, None));
    for round in 0..3 {
        let seeds = round * 1000..round * 1000 + 500;
        assert_eq!(last_choice(&mut chooser, seeds.clone().map(heap_page)), Algorithm::Zstd, "{round}");
        assert_eq!(last_choice(&mut chooser, seeds.map(plain_page)), Algorithm::Lz4, "{round}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn a_chooser_without_a_choice_keeps_to_it() {
    let mut chooser = Chooser::fixed(Compressor::new(Method::ZSTD_FAST, None));
    assert_eq!(last_choice(&mut chooser, (0..500).map(plain_page)), Algorithm::Zstd);
}

/// Counted as pages of which zstd saves nothing, the noise would send the heap's pages to lz4, which makes them longer by half.
#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn pages_that_nothing_makes_shorter_do_not_sway_a_chooser() {
    let mut chooser = Chooser::between(Compressor::new(Method::ZSTD_FAST, None));
    let pages = (0..4000).map(|seed| if seed % 8 < 5 { noise_page(seed) } else { heap_page(seed) });
    assert_eq!(last_choice(&mut chooser, pages), Algorithm::Zstd);
    let heap = (0..10).map(heap_page);
    assert_eq!(last_choice(&mut chooser, heap), Algorithm::Zstd);
}

/// The dictionary may be what makes zstd worth its time.
#[test]
#[cfg_attr(miri, ignore = "zstd is C, which Miri does not run")]
fn a_chooser_begins_with_zstd_and_comes_back_to_it_with_a_new_dictionary() {
    let dictionaries = trained();
    let dictionary = dictionaries.get(DictionaryId::new(1).unwrap());
    let mut chooser = Chooser::between(Compressor::new(Method::ZSTD_FAST, None));
    let page = heap_page(70_001);
    assert_eq!(chooser.compress(&page).tag, CodecTag::zstd(None));
    assert_eq!(last_choice(&mut chooser, (0..500).map(plain_page)), Algorithm::Lz4);
    chooser.replace(Compressor::new(Method::ZSTD_FAST, dictionary));
    assert_eq!(chooser.dictionary(), DictionaryId::new(1));
    let encoded = chooser.compress(&page);
    assert_eq!(encoded.tag, CodecTag::zstd(DictionaryId::new(1)));
    let mut out = [0xee; PAGE_SIZE];
    Decompressor::new().decompress(encoded.tag, encoded.bytes, &dictionaries, &mut out).unwrap();
    assert!(out == page);
}
