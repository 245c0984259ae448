//! Slot word, clusters, groups and policy: no_std, no I/O, no clock, no thread, no unsafe.
