//! Streaming a body out: over the blobs of an object, in chunks, with the faults that were asked for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use s3s::dto::StreamingBlob;
use tokio::task::spawn_blocking;

use crate::blob::Blob;
use crate::faults::Spoil;
use crate::store::Store;

/// How much is read from the disk, and handed to the connection, at a time.
const CHUNK: u64 = 256 * 1024;

/// How long a connection that is to be cut may take to send what it has.
const LINGER: Duration = Duration::from_millis(20);

/// A blob and the part of it that is wanted.
struct Piece {
    blob: Arc<Blob>,
    start: u64,
    end: u64,
    file: Option<Arc<File>>,
}

/// The pieces of `blobs`, one after the other, that make up `start..end` of the whole.
fn pieces(blobs: &[Arc<Blob>], start: u64, end: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    for blob in blobs {
        let (first, last) = (start.max(offset), end.min(offset + blob.len()));
        if first < last {
            pieces.push(Piece {
                blob: Arc::clone(blob),
                start: first - offset,
                end: last - offset,
                file: None,
            });
        }
        offset += blob.len();
    }
    pieces
}

/// One chunk of a piece, and what is left of it.
async fn next(mut piece: Piece) -> io::Result<Option<(Bytes, Piece)>> {
    let length = CHUNK.min(piece.end - piece.start);
    if length == 0 {
        return Ok(None);
    }
    let start = piece.start;
    piece.start += length;
    let Ok(length) = usize::try_from(length) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if let Blob::Memory(bytes) = &*piece.blob {
        let Ok(start) = usize::try_from(start) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        return Ok(Some((bytes.slice(start..start + length), piece)));
    }
    let read = move || {
        if let (Blob::File(blob), None) = (&*piece.blob, &piece.file) {
            piece.file = Some(Arc::new(blob.open()?));
        }
        let mut buffer = vec![0; length];
        if let Some(file) = &piece.file {
            file.read_exact_at(&mut buffer, start)?;
        }
        Ok(Some((Bytes::from(buffer), piece)))
    };
    spawn_blocking(read).await.map_err(io::Error::other)?
}

/// Streams `start..end` of an object.
pub(crate) fn stream(store: &Arc<Store>, blobs: &[Arc<Blob>], start: u64, end: u64, spoil: Spoil) -> StreamingBlob {
    let chunks = stream::iter(pieces(blobs, start, end))
        .map(|piece| stream::try_unfold(piece, next))
        .flatten();
    let store = Arc::clone(store);
    let chunks = spoiled(chunks, spoil).inspect_ok(move |bytes| store.stats.sent(bytes.len()));
    StreamingBlob::wrap(chunks)
}

/// The same chunks, with a bit flipped in the first or cut short as a fault asks.
fn spoiled<S>(chunks: S, spoil: Spoil) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync
where
    S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
{
    let state = (Box::pin(chunks), spoil);
    stream::try_unfold(state, async |(mut chunks, mut spoil)| {
        if spoil.cut_after == Some(0) {
            // What was sent so far has to leave the connection's buffer before the error closes it.
            tokio::time::sleep(LINGER).await;
            return Err(io::Error::other("cut by a fault"));
        }
        let Some(mut bytes) = chunks.try_next().await? else {
            return Ok(None);
        };
        if std::mem::take(&mut spoil.flip) {
            bytes = flipped(&bytes);
        }
        if let Some(left) = &mut spoil.cut_after {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        Ok(Some((bytes, (chunks, spoil))))
    })
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&bytes[..]);
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: &'static [u8]) -> Arc<Blob> {
        Arc::new(Blob::Memory(Bytes::from_static(bytes)))
    }

    #[tokio::test]
    async fn ranges_run_over_the_parts() {
        let blobs = [memory(b"abc"), memory(b""), memory(b"defg")];
        for (start, end, expected) in [
            (0, 7, "abcdefg"),
            (1, 3, "bc"),
            (2, 5, "cde"),
            (3, 7, "defg"),
            (7, 7, ""),
        ] {
            let mut read = Vec::new();
            for piece in pieces(&blobs, start, end) {
                let mut piece = Some(piece);
                while let Some((bytes, rest)) = next(piece.take().unwrap()).await.unwrap() {
                    read.extend_from_slice(&bytes);
                    piece = Some(rest);
                }
            }
            assert_eq!(read, expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_flip_keeps_the_length() {
        let chunks = stream::iter([Ok(Bytes::from_static(b"abcd")), Ok(Bytes::from_static(b"efgh"))]);
        let spoil = Spoil {
            flip: true,
            cut_after: None,
        };
        let read: Vec<Bytes> = spoiled(chunks, spoil).try_collect().await.unwrap();
        assert_eq!(read.concat(), b"absdefgh");
    }

    #[tokio::test]
    async fn a_cut_is_an_error_after_what_was_let_through() {
        let chunks = stream::iter([Ok(Bytes::from_static(b"abcd")), Ok(Bytes::from_static(b"efgh"))]);
        let spoil = Spoil {
            flip: false,
            cut_after: Some(6),
        };
        let read: Vec<io::Result<Bytes>> = spoiled(chunks, spoil).collect().await;
        assert_eq!(read.len(), 3);
        assert_eq!(read[1].as_ref().unwrap(), "ef");
        assert!(read[2].is_err());
    }
}
