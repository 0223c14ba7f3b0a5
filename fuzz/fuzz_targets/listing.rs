//! Pages of a listing, as JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lhsm_parsers::listing(data));
