//! `vswap_fuzz::codec` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswap_fuzz::codec(data));
