//! A file's record of where its copy is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lhsm_parsers::location(data));
