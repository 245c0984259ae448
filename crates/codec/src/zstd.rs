//! zstd, as the rest of the crate uses it.
//!
//! It is C, which Miri does not run: there a stand-in refuses every page, which then stays raw. So Miri sees all that is done around a codec, and
//! all of lz4, which is Rust and not without `unsafe`.

#[cfg(miri)]
pub(crate) use stand_in::*;
#[cfg(not(miri))]
pub(crate) use zstd_safe::{
    CCtx, CParameter, DCtx, DDict, DParameter, FrameFormat, get_error_name, train_from_buffer,
};

#[cfg(miri)]
mod stand_in {
    use std::marker::PhantomData;

    /// As the library: a number of bytes, or an error's code.
    type Answer = Result<usize, usize>;
    const REFUSED: Answer = Err(1);

    pub(crate) enum FrameFormat {
        Magicless,
    }

    /// Those that are set; nobody reads them.
    #[allow(dead_code)]
    pub(crate) enum CParameter {
        Format(FrameFormat),
        CompressionLevel(i32),
        WindowLog(u32),
        HashLog(u32),
        ContentSizeFlag(bool),
        DictIdFlag(bool),
        ChecksumFlag(bool),
    }

    #[allow(dead_code)]
    pub(crate) enum DParameter {
        Format(FrameFormat),
    }

    pub(crate) struct CCtx<'a>(PhantomData<&'a ()>);

    impl CCtx<'_> {
        pub(crate) fn create() -> Self {
            Self(PhantomData)
        }

        pub(crate) fn set_parameter(&mut self, _: CParameter) -> Answer {
            Ok(0)
        }

        pub(crate) fn load_dictionary(&mut self, _: &[u8]) -> Answer {
            Ok(0)
        }

        pub(crate) fn compress2(&mut self, _: &mut [u8], _: &[u8]) -> Answer {
            REFUSED
        }

        pub(crate) fn sizeof(&self) -> usize {
            0
        }
    }

    pub(crate) struct DCtx<'a>(PhantomData<&'a ()>);

    impl DCtx<'_> {
        pub(crate) fn create() -> Self {
            Self(PhantomData)
        }

        pub(crate) fn set_parameter(&mut self, _: DParameter) -> Answer {
            Ok(0)
        }

        pub(crate) fn decompress(&mut self, _: &mut [u8], _: &[u8]) -> Answer {
            REFUSED
        }

        pub(crate) fn decompress_using_ddict(&mut self, _: &mut [u8], _: &[u8], _: &DDict<'_>) -> Answer {
            REFUSED
        }

        pub(crate) fn sizeof(&self) -> usize {
            0
        }
    }

    pub(crate) struct DDict<'a>(PhantomData<&'a ()>);

    impl DDict<'_> {
        pub(crate) fn try_create(_: &[u8]) -> Option<Self> {
            Some(Self(PhantomData))
        }

        pub(crate) fn sizeof(&self) -> usize {
            0
        }
    }

    pub(crate) fn train_from_buffer(_: &mut [u8], _: &[u8], _: &[usize]) -> Answer {
        REFUSED
    }

    pub(crate) fn get_error_name(_: usize) -> &'static str {
        "Miri does not run it"
    }
}
