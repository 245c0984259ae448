//! Page codecs: fill detection, lz4, zstd, raw.
