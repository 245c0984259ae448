//! `vswap_fuzz::setup_state` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswap_fuzz::setup_state(data));
