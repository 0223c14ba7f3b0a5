//! The kernel's messages: any bytes, cut anywhere, give messages or an error, and the same ones whole.
//!
//! The parser and the types that it gives are taken as source: an instrumented build of the S3 client
//! would take longer than the fuzzing.
#![no_main]
#![expect(dead_code, reason = "only the parser is called")]

#[path = "../../src/action.rs"]
mod action;
#[path = "../../src/types/mod.rs"]
mod types;
#[path = "../../src/lustre/wire.rs"]
mod wire;

use libfuzzer_sys::fuzz_target;

use wire::{Framer, Message, WireError};

fn read(pieces: &[&[u8]]) -> (Vec<Message>, Option<WireError>) {
    let mut framer = Framer::default();
    let mut messages = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let whole = read(&[stream]);
    let cut = usize::from(*cut).min(stream.len());
    let (head, tail) = stream.split_at(cut);
    assert_eq!(read(&[head, tail]), whole);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&bytes), whole);
});
