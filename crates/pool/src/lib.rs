//! Compressed pages in memory, in size classes.
