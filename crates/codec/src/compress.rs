//! Compression of one page at a time, in one thread's contexts.

use crate::dictionary::Dictionary;
use crate::tag::{CodecTag, DictionaryId};
use crate::zstd::{CCtx, CParameter, FrameFormat};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use vswap_core::{PAGE_SIZE, Page};

/// What a [`Compressor`] does with pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Method {
    /// lz4.
    Lz4,
    /// zstd at a level: negative ones are its fast mode.
    Zstd {
        /// zstd's level.
        level: i32,
    },
}

impl Method {
    /// zstd as it is used where memory is plenty, with a dictionary or before there is one: what remains of a fault is mostly
    /// decoding, and the fast level decodes in two thirds of the time.
    pub const ZSTD_FAST: Self = Self::Zstd { level: -1 };
    /// zstd as it is used where memory is scarce and the device slow beside it: 15 % smaller on pages of a heap, 40 %
    /// on lines of text.
    pub const ZSTD_SMALL: Self = Self::Zstd { level: 1 };
}

/// An encoded page, in the compressor's buffer or (raw) the page itself.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// How.
    pub tag: CodecTag,
    /// The bytes; with `tag` and their length they give the page back.
    pub bytes: &'a [u8],
}

/// The greatest length at which a page is kept compressed. Past it the saving is smaller than what size
/// classes lose, and a raw page needs no work to come back.
const WORTHWHILE: usize = PAGE_SIZE - PAGE_SIZE / 16;

/// zstd's own bound for a page is 4096 + 16 (+ header); lz4's is 4096 * 1.1 + 20.
const BUFFER: usize = 5 * 1024;
const _: () = assert!(BUFFER >= get_maximum_output_size(PAGE_SIZE));

/// One thread's contexts for compression. Reused: nothing is allocated a page.
pub struct Compressor {
    engine: Engine,
    buffer: Box<[u8]>,
}

enum Engine {
    Lz4(CompressTable),
    Zstd { context: CCtx<'static>, dictionary: Option<DictionaryId> },
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let method = match &self.engine {
            Engine::Lz4(_) => "lz4",
            Engine::Zstd { .. } => "zstd",
        };
        f.debug_struct("Compressor").field("method", &method).field("dictionary", &self.dictionary()).finish()
    }
}

impl Compressor {
    /// Makes contexts for a method, with a dictionary if it is zstd and one is given.
    pub fn new(method: Method, dictionary: Option<&Dictionary>) -> Self {
        let engine = match method {
            Method::Lz4 => Engine::Lz4(CompressTable::small()),
            Method::Zstd { level } => Engine::Zstd {
                context: context(level, dictionary),
                dictionary: dictionary.map(Dictionary::id),
            },
        };
        Self { engine, buffer: vec![0; BUFFER].into_boxed_slice() }
    }

    /// The dictionary in use.
    pub fn dictionary(&self) -> Option<DictionaryId> {
        match self.engine {
            Engine::Lz4(_) => None,
            Engine::Zstd { dictionary, .. } => dictionary,
        }
    }

    /// Memory that the contexts hold.
    pub fn memory(&self) -> usize {
        let contexts = match &self.engine {
            Engine::Lz4(_) => 8 << 10,
            Engine::Zstd { context, .. } => context.sizeof(),
        };
        contexts + self.buffer.len()
    }

    /// Encodes a page: compressed if that is worthwhile, else raw. Never fails: what a codec refuses stays
    /// raw.
    pub fn compress<'a>(&'a mut self, page: &'a Page) -> Encoded<'a> {
        let (tag, length) = match &mut self.engine {
            Engine::Lz4(table) => {
                (CodecTag::LZ4, compress_into_with_table(page, &mut self.buffer, table).ok())
            }
            Engine::Zstd { context, dictionary } => {
                (CodecTag::zstd(*dictionary), context.compress2(&mut self.buffer[..], page).ok())
            }
        };
        match length {
            Some(length) if length <= WORTHWHILE => Encoded { tag, bytes: &self.buffer[..length] },
            _ => Encoded { tag: CodecTag::RAW, bytes: page },
        }
    }
}

/// A zstd context for 4 KiB sources. A parameter that this build of zstd refuses keeps its default, which
/// costs bytes or time but is still read back, except the format, which both sides must agree on.
fn context(level: i32, dictionary: Option<&Dictionary>) -> CCtx<'static> {
    let mut context = CCtx::create();
    let format = CParameter::Format(FrameFormat::Magicless);
    context.set_parameter(format).expect("zstd is built with its experimental parameters");
    let wanted = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(12),
        CParameter::HashLog(12),
        CParameter::ContentSizeFlag(false),
        CParameter::DictIdFlag(false),
        CParameter::ChecksumFlag(false),
    ];
    for parameter in wanted {
        let _ = context.set_parameter(parameter);
    }
    if let Some(dictionary) = dictionary {
        context.load_dictionary(dictionary.bytes()).expect("a dictionary that was digested before");
    }
    context
}
