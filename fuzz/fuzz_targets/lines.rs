//! `vswap_fuzz::lines` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswap_fuzz::lines(data));
