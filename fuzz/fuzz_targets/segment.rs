//! `vswap_fuzz::segment` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswap_fuzz::segment(data));
