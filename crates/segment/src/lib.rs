//! Segments: 2 MiB sealed containers of compressed pages on a tier.
