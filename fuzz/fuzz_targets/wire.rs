//! The kernel's messages: any bytes, cut anywhere, give messages or an error, and the same ones whole.
#![no_main]

use lhsmtool_s3::lustre::wire::{Framer, Message, WireError};
use libfuzzer_sys::fuzz_target;

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
