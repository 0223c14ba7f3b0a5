//! The kernel's messages: any bytes, cut anywhere, give messages or an error, and the same ones whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lhsm_parsers::kernel_messages(data));
