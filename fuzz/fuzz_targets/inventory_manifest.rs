//! An inventory's manifest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lhsm_parsers::inventory_manifest(data));
