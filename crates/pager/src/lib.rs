//! Residence: faults, eviction, staging, limits.
