//! Decompression of one page at a time, in one thread's context.

use crate::dictionary::Dictionaries;
use crate::tag::{Algorithm, CodecTag, DecodeError};
use crate::zstd::{DCtx, DParameter, FrameFormat};
use vswap_core::{PAGE_SIZE, Page};

/// One thread's context for decompression, for every tag there is. Nothing is allocated a page.
pub struct Decompressor {
    zstd: DCtx<'static>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").field("memory", &self.memory()).finish()
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Decompressor {
    /// Makes a context.
    pub fn new() -> Self {
        let mut zstd = DCtx::create();
        let format = DParameter::Format(FrameFormat::Magicless);
        zstd.set_parameter(format).expect("zstd is built with its experimental parameters");
        Self { zstd }
    }

    /// Memory that the context holds.
    pub fn memory(&self) -> usize {
        self.zstd.sizeof()
    }

    /// Decodes `bytes` into `page`.
    ///
    /// # Errors
    /// When the bytes do not give exactly a page, or need an unknown dictionary; `page` then holds nonsense.
    pub fn decompress(
        &mut self,
        tag: CodecTag,
        bytes: &[u8],
        dictionaries: &Dictionaries,
        page: &mut Page,
    ) -> Result<(), DecodeError> {
        let written = match (tag.algorithm(), tag.dictionary()) {
            (Algorithm::Raw, _) => {
                if let Ok(raw) = <&Page>::try_from(bytes) {
                    *page = *raw;
                }
                Some(bytes.len())
            }
            (Algorithm::Lz4, _) => lz4_flex::block::decompress_into(bytes, page).ok(),
            (Algorithm::Zstd, None) => self.zstd.decompress(&mut page[..], bytes).ok(),
            (Algorithm::Zstd, Some(id)) => {
                let dictionary = dictionaries.get(id).ok_or(DecodeError::NoDictionary { id })?;
                self.zstd.decompress_using_ddict(&mut page[..], bytes, dictionary.digest()).ok()
            }
        };
        match written {
            Some(PAGE_SIZE) => Ok(()),
            _ => Err(DecodeError::Damaged { algorithm: tag.algorithm(), length: bytes.len() }),
        }
    }
}
