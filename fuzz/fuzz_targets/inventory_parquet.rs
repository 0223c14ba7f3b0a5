//! An inventory's rows as Parquet.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lhsm_parsers::inventory_parquet(data));
