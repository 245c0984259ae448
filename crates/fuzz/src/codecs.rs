//! Encoded pages: what is encoded comes back, and what is not decodes to a page or an error.

use crate::input::Input;
use std::cell::RefCell;
use std::sync::OnceLock;
use vswap_codec::{
    Algorithm, CodecTag, Compressor, Decompressor, Dictionaries, Dictionary, DictionaryId, Method,
};
use vswap_core::{FillPattern, PAGE_SIZE, Page};

const METHODS: [Method; 3] = [Method::Lz4, Method::ZSTD_FAST, Method::ZSTD_SMALL];

/// A page like those of a heap, so that there is something to learn.
fn heap_page(seed: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for (at, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let value = match at % 8 {
            0 | 4 => 0x0000_7f3a_5500_0000 + (state & 0xff_fff0),
            1 => 1 + state % 3,
            2 => 0x0000_55d0_1020_3040,
            7 => state & 0xffff,
            _ => 0,
        };
        *word = value.to_le_bytes();
    }
    page
}

/// One dictionary, always the same.
fn dictionaries() -> &'static Dictionaries {
    static TRAINED: OnceLock<Dictionaries> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let samples: Vec<Page> = (0..Dictionary::SAMPLES as u64).map(heap_page).collect();
        let dictionaries = Dictionaries::default();
        let bytes = Dictionary::train(&samples).expect("they have much in common");
        dictionaries.add(bytes).expect("room for one");
        dictionaries
    })
}

fn dictionary() -> Option<&'static Dictionary> {
    dictionaries().get(DictionaryId::new(1)?)
}

struct Contexts {
    all: Vec<Compressor>,
    decompressor: Decompressor,
}

thread_local! {
    /// As in the engine, one for all pages: what one leaves behind must not show in the next.
    static CONTEXTS: RefCell<Contexts> = RefCell::new(Contexts {
        all: METHODS.iter().flat_map(|method| [None, dictionary()].map(|with| Compressor::new(*method, with))).collect(),
        decompressor: Decompressor::new(),
    });
}

impl Contexts {
    /// Every codec gives the page back.
    fn round_trips(&mut self, page: &Page) {
        for compressor in &mut self.all {
            let encoded = compressor.compress(page);
            assert_eq!(CodecTag::from_bits(encoded.tag.to_bits()), Some(encoded.tag));
            let mut out = [0xee; PAGE_SIZE];
            let done = self.decompressor.decompress(encoded.tag, encoded.bytes, dictionaries(), &mut out);
            assert_eq!(done, Ok(()), "{:?}", encoded.tag);
            assert!(out == *page, "{:?}: another page", encoded.tag);
        }
        if let Some(pattern) = FillPattern::of_page(page) {
            let mut out = [0xee; PAGE_SIZE];
            pattern.write(&mut out);
            assert!(out == *page, "{pattern:?}: another page");
        }
    }
}

/// The rest of the bytes over and over.
fn page_of(bytes: &[u8]) -> Page {
    std::array::from_fn(|at| bytes.get(at % bytes.len().max(1)).copied().unwrap_or(0))
}

/// Bytes are decoded by each tag, twice, and taken for the content of a page.
pub fn codec(data: &[u8]) {
    let mut input = Input::new(data);
    let bits = input.u16();
    let bytes = input.rest();
    let tag = CodecTag::from_bits(bits % (1 << CodecTag::BITS));
    assert!(tag.is_none_or(|tag| tag.to_bits() == bits % (1 << CodecTag::BITS)));
    let known = [CodecTag::RAW, CodecTag::LZ4, CodecTag::zstd(None), CodecTag::zstd(DictionaryId::new(1))];
    CONTEXTS.with_borrow_mut(|contexts| {
        for tag in known.into_iter().chain(tag) {
            let mut pages = [[0; PAGE_SIZE], [0xee; PAGE_SIZE]];
            let [one, two] = pages
                .each_mut()
                .map(|page| contexts.decompressor.decompress(tag, bytes, dictionaries(), page));
            assert_eq!(one, two, "{tag:?}: it depends on what was there");
            if one.is_err() {
                continue;
            }
            assert!(pages[0] == pages[1], "{tag:?}: a part of the page was not written");
            assert!(tag.algorithm() != Algorithm::Raw || bytes == pages[0], "raw bytes are the page");
            contexts.round_trips(&pages[0]);
        }
        contexts.round_trips(&page_of(bytes));
    });
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    // Of each kind: a heap, text, one word over and over.
    let pages = [heap_page(3), page_of(b"A line of text that is there again and again. "), page_of(&[7])];
    for page in &pages {
        for method in METHODS {
            for with in [None, dictionary()] {
                let mut compressor = Compressor::new(method, with);
                let encoded = compressor.compress(page);
                seeds.push([&encoded.tag.to_bits().to_le_bytes()[..], encoded.bytes].concat());
            }
        }
    }
    seeds.sort();
    seeds.dedup();
    seeds
}
