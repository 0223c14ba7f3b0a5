//! An object's metadata, as lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lhsm_parsers::metadata(data));
