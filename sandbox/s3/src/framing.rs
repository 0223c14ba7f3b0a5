//! The aws-chunked framing of bodies, looked at or kept before the protocol layer takes it away.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use hyper::StatusCode;
use s3s::dto::StreamingBlob;
use s3s::{Body, HttpRequest};

use crate::canned::Canned;
use crate::dialect::Dialect;
use crate::refusal::is_chunked;
use crate::store::Store;

/// The largest chunk that a store with a limit takes.
const LARGEST: u64 = 16 * 1024 * 1024;
/// The smallest one that is not the last.
const SMALLEST: u64 = 8 * 1024;
/// A head line that is longer than this is none.
const HEAD: usize = 1024;

/// A body with its framing, which the store is to keep as it is.
#[derive(Debug, Clone)]
pub(crate) struct Framed(pub(crate) Bytes);

/// Where a refusal is put that is only known while the body passes.
pub(crate) type Verdict = Arc<OnceLock<Canned>>;

/// The request as it is handed on: with its body watched, or kept beside it, as the dialects want it.
pub(crate) async fn prepare(store: &Store, request: HttpRequest) -> (HttpRequest, Verdict) {
    let verdict = Verdict::default();
    if !is_chunked(request.headers()) {
        return (request, verdict);
    }
    let request = if store.dialects.has(Dialect::ChunkedKept) {
        keep(request).await
    } else {
        request
    };
    let heads = Heads {
        largest: store.dialects.has(Dialect::ChunkLimited16MiB),
        smallest: store.dialects.has(Dialect::ChunkLimitedSmall),
        ..Heads::default()
    };
    if !heads.largest && !heads.smallest {
        return (request, verdict);
    }
    let judged = Arc::clone(&verdict);
    (request.map(|body| watched(body, heads, judged)), verdict)
}

/// All of a body in memory, beside the one that is handed on. One that breaks off is handed on as far as it came.
async fn keep(request: HttpRequest) -> HttpRequest {
    let (mut parts, mut body) = request.into_parts();
    let mut framed = BytesMut::new();
    while let Some(Ok(bytes)) = body.next().await {
        framed.extend_from_slice(&bytes);
    }
    let framed = framed.freeze();
    parts.extensions.insert(Framed(framed.clone()));
    HttpRequest::from_parts(parts, Body::from(framed))
}

/// The same body. When a chunk is not to the store's liking, the rest is read and thrown away, so that a client that is
/// still sending gets to see the answer.
fn watched(body: Body, heads: Heads, verdict: Verdict) -> Body {
    let chunks = stream::try_unfold((body, heads, verdict), async |(mut body, mut heads, verdict)| {
        let Some(bytes) = body.next().await.transpose().map_err(io::Error::other)? else {
            return Ok(None);
        };
        let Some(refusal) = heads.refusal(&bytes) else {
            return Ok(Some((bytes, (body, heads, verdict))));
        };
        // The first one stands.
        drop(verdict.set(refusal));
        while let Some(Ok(_)) = body.next().await {}
        Err(io::Error::other("a chunk of a size that the store refuses"))
    });
    Body::from(StreamingBlob::wrap(chunks))
}

/// Reads the head lines of chunks as they pass.
#[derive(Debug, Default)]
struct Heads {
    largest: bool,
    smallest: bool,
    /// Of a line that has not ended.
    line: Vec<u8>,
    /// Bytes until the next line, the end of the chunk's line included.
    skip: u64,
    /// The size of the chunk before, once there was one.
    before: Option<u64>,
    ended: bool,
}

impl Heads {
    /// What is to be answered to a body that goes on like this, if it is refused.
    fn refusal(&mut self, mut bytes: &[u8]) -> Option<Canned> {
        while !self.ended && !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len() as u64);
                self.skip -= passed;
                bytes = usize::try_from(passed).ok().and_then(|passed| bytes.get(passed..))?;
                continue;
            }
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            self.line.extend_from_slice(line);
            bytes = rest;
            if end.is_some() {
                let size = size(&std::mem::take(&mut self.line));
                if let Some(refusal) = size.and_then(|size| self.judge(size)) {
                    return Some(refusal);
                }
                self.before = size;
                self.skip = size.unwrap_or_default().saturating_add(2);
                // Behind the last chunk there are trailers; what is no head is told by the protocol layer.
                self.ended = size.is_none_or(|size| size == 0);
            } else {
                self.ended = self.line.len() > HEAD;
            }
        }
        None
    }

    fn judge(&self, size: u64) -> Option<Canned> {
        if self.largest && size > LARGEST {
            let message = "chunk too big: choose chunk size &lt;= 16MiB";
            return Some(Canned::error(StatusCode::BAD_REQUEST, "InvalidRequest", message, None));
        }
        let short = self.before.filter(|&before| before < SMALLEST && size > 0);
        let short = short.filter(|_| self.smallest)?.to_string();
        let message = "Only the last chunk is allowed to have a size less than 8192 bytes";
        let named = Some(("BadChunkSize", &short[..]));
        Some(Canned::error(
            StatusCode::BAD_REQUEST,
            "InvalidChunkSizeError",
            message,
            named,
        ))
    }
}

/// The size that a head line names.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| b";\r\n".contains(byte)).next()?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(smallest: bool, largest: bool, body: &[u8], step: usize) -> bool {
        let mut heads = Heads {
            largest,
            smallest,
            ..Heads::default()
        };
        body.chunks(step).any(|piece| heads.refusal(piece).is_some())
    }

    #[test]
    fn sizes_are_read_wherever_the_body_is_cut() {
        let small = b"3;chunk-signature=00\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        let last = b"3\r\nabc\r\n0\r\n\r\n";
        let large = b"1000001\r\nabc";
        for step in [1, 2, 7, 1000] {
            assert!(refused(true, false, small, step));
            assert!(!refused(false, true, small, step));
            assert!(!refused(true, false, last, step));
            assert!(refused(false, true, large, step));
            assert!(!refused(true, false, large, step));
            assert!(!refused(false, true, b"1000000\r\nabc", step));
        }
    }

    #[test]
    fn what_is_no_framing_is_let_through() {
        assert!(!refused(true, true, b"no framing\r\nat all\r\n", 3));
        assert!(!refused(true, true, &[b'a'; 5000], 100));
    }
}
