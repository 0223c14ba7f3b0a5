//! A request's body with its checksum, in S3's `aws-chunked` form where the checksum is known only at the end.
//!
//! The bytes are read once: what is sent is summed up as it goes and the sum follows in a trailer. The payload
//! is not signed (`UNSIGNED-PAYLOAD`, or its form with a trailer): a SHA-256 of everything costs more than the
//! rest of the request, and over TLS it proves nothing that the checksum does not.
//!
//! Stores limit the chunks: MinIO takes 16 MiB at most, AWS 8 KiB at least but for the last one. All of ours but the last
//! have [`CHUNK`] bytes, whatever the pieces are in which the file is read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{ChecksumKind, Proof};

type ProofAtEnd = Box<dyn Fn() -> Option<Proof> + Send + Sync>;

/// Bytes of a chunk on the wire.
const CHUNK: u64 = 8 << 20;

/// What a PUT carries.
pub enum Payload<B> {
    /// All of it, in memory.
    Whole(Bytes, Option<Proof>),
    /// Bytes that come as they are read.
    Stream {
        /// The bytes.
        body: B,
        /// How many bytes it gives.
        length: u64,
        /// Asked for after the last one.
        proof: ProofAtEnd,
    },
    /// The same, with the checksum of bytes that were read before: for stores that take no trailer.
    Proven {
        /// The bytes.
        body: B,
        /// How many bytes it gives.
        length: u64,
        /// Of all of them.
        proof: Option<Proof>,
    },
}

impl<B> std::fmt::Debug for Payload<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes, _) => write!(f, "Payload({} bytes)", bytes.len()),
            Self::Stream { length, .. } | Self::Proven { length, .. } => {
                write!(f, "Payload({length} bytes as they come)")
            }
        }
    }
}

impl<B> Payload<B>
where
    B: Body<Data = Bytes, Error = std::io::Error> + Send + Sync + Unpin + 'static,
{
    /// As it is: the SDK signs it and sums it up itself.
    pub(super) fn bare(self) -> ByteStream {
        match self {
            Self::Whole(bytes, _) => ByteStream::from(bytes),
            Self::Stream { body, .. } | Self::Proven { body, .. } => ByteStream::new(SdkBody::from_body_1_x(body)),
        }
    }

    /// With its checksum, and what must be done to the request.
    pub(super) fn sealed(self, kind: ChecksumKind) -> (ByteStream, ChecksumPlacement) {
        let in_header = |proof: Option<Proof>| {
            ChecksumPlacement::Header(proof.and_then(|proof| Some((proof.kind.header()?, proof.value))))
        };
        match (self, kind.header()) {
            (Self::Whole(bytes, proof), _) => (ByteStream::from(bytes), in_header(proof)),
            (Self::Proven { body, proof, .. }, _) => (ByteStream::new(SdkBody::from_body_1_x(body)), in_header(proof)),
            (Self::Stream { body, .. }, None) => (
                ByteStream::new(SdkBody::from_body_1_x(body)),
                ChecksumPlacement::Header(None),
            ),
            (Self::Stream { body, length, proof }, Some(name)) => {
                let body = Chunked {
                    state: ChunkingState::Head,
                    body,
                    piece: Bytes::new(),
                    left: length,
                    name,
                    value_length: kind.encoded_length(),
                    proof,
                };
                (
                    ByteStream::new(SdkBody::from_body_1_x(body)),
                    ChecksumPlacement::Trailer { name, length },
                )
            }
        }
    }
}

/// Headers of a request whose payload is not signed.
#[derive(Debug)]
pub(super) enum ChecksumPlacement {
    /// The checksum in a header.
    Header(Option<(&'static str, String)>),
    /// The checksum behind the bytes.
    Trailer { name: &'static str, length: u64 },
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for ChecksumPlacement {
    fn name(&self) -> &'static str {
        "Seal"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        let signing = match self {
            Self::Header(checksum) => {
                if let Some((name, value)) = checksum {
                    headers.insert(*name, value.clone());
                }
                PayloadSigningOverride::UnsignedPayload
            }
            Self::Trailer { name, length } => {
                headers.insert("content-encoding", "aws-chunked");
                headers.insert("x-amz-decoded-content-length", length.to_string());
                headers.insert("x-amz-trailer", *name);
                PayloadSigningOverride::StreamingUnsignedPayloadTrailer
            }
        };
        config.interceptor_state().store_put(signing);
        Ok(())
    }
}

/// The bytes in chunks, then the trailer.
struct Chunked<B> {
    state: ChunkingState,
    body: B,
    /// Read and not yet sent.
    piece: Bytes,
    /// Bytes that no chunk was begun for.
    left: u64,
    name: &'static str,
    value_length: u64,
    proof: ProofAtEnd,
}

#[derive(Clone, Copy)]
enum ChunkingState {
    Head,
    /// So many bytes of the chunk are still to come.
    Body(u64),
    Tail,
    End,
}

/// Of a chunk; the line end of the one before is its own business.
fn head(length: u64) -> String {
    format!("{length:x}\r\n")
}

impl<B> Chunked<B> {
    fn tail(&self) -> String {
        let value = (self.proof)().map(|proof| proof.value).unwrap_or_default();
        format!("0\r\n{}:{value}\r\n\r\n", self.name)
    }

    /// `0` CR LF name `:` value CR LF CR LF.
    const fn tail_length(&self) -> u64 {
        3 + self.name.len() as u64 + 1 + self.value_length + 4
    }

    /// On the wire, of the chunks that were not begun.
    fn chunks_length(&self) -> u64 {
        let framed = |length: u64| head(length).len() as u64 + length + 2;
        let last = match self.left % CHUNK {
            0 => 0,
            last => framed(last),
        };
        self.left / CHUNK * framed(CHUNK) + last
    }
}

impl<B> Body for Chunked<B>
where
    B: Body<Data = Bytes, Error = std::io::Error> + Unpin,
{
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            match self.state {
                ChunkingState::Head if self.left == 0 => self.state = ChunkingState::Tail,
                ChunkingState::Head => {
                    let length = self.left.min(CHUNK);
                    self.left -= length;
                    self.state = ChunkingState::Body(length);
                    return Poll::Ready(Some(Ok(Frame::data(head(length).into()))));
                }
                ChunkingState::Body(0) => {
                    self.state = ChunkingState::Head;
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"\r\n")))));
                }
                ChunkingState::Body(open) if !self.piece.is_empty() => {
                    let n = usize::try_from(open).unwrap_or(usize::MAX).min(self.piece.len());
                    self.state = ChunkingState::Body(open - n as u64);
                    return Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(n)))));
                }
                ChunkingState::Body(_) => match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) => self.piece = bytes,
                        Err(_) => continue,
                    },
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                        self.state = ChunkingState::End;
                        return Poll::Ready(Some(Err(short)));
                    }
                },
                ChunkingState::Tail => {
                    self.state = ChunkingState::End;
                    return Poll::Ready(Some(Ok(Frame::data(self.tail().into()))));
                }
                ChunkingState::End => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, ChunkingState::End)
    }

    fn size_hint(&self) -> SizeHint {
        let begun = match self.state {
            ChunkingState::Head | ChunkingState::Tail => 0,
            // What is open of the chunk, and its line end.
            ChunkingState::Body(open) => open + 2,
            ChunkingState::End => return SizeHint::with_exact(0),
        };
        SizeHint::with_exact(begun + self.chunks_length() + self.tail_length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ProofDigest;

    /// A body of given pieces.
    struct Pieces(Vec<&'static [u8]>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next.map(|piece| Ok(Frame::data(Bytes::from_static(piece)))))
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
        }
    }

    async fn sent(pieces: Vec<&'static [u8]>, kind: ChecksumKind) -> (Vec<u8>, u64) {
        let mut prover = ProofDigest::new(kind);
        pieces.iter().for_each(|piece| prover.update(piece));
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let proof = prover.proof();
        let payload = Payload::Stream {
            body: Pieces(pieces),
            length,
            proof: Box::new(move || proof.clone()),
        };
        let (stream, _) = payload.sealed(kind);
        let promised = stream.size_hint().1.unwrap();
        (stream.collect().await.unwrap().to_vec(), promised)
    }

    #[tokio::test]
    async fn the_bytes_are_followed_by_their_checksum_and_the_length_is_as_promised() {
        let (bytes, promised) = sent(vec![b"12345", b"6789"], ChecksumKind::Crc64Nvme).await;
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "9\r\n123456789\r\n0\r\nx-amz-checksum-crc64nvme:rosUhgp5mIg=\r\n\r\n"
        );
        assert_eq!(promised, bytes.len() as u64);
        for kind in [ChecksumKind::Crc32c, ChecksumKind::Sha256, ChecksumKind::Crc64Nvme] {
            let (bytes, promised) = sent(Vec::new(), kind).await;
            assert_eq!(promised, bytes.len() as u64, "{kind:?}");
            assert!(bytes.starts_with(b"0\r\nx-amz-checksum-"), "{kind:?}");
        }
    }

    /// The sizes of the chunks of a body that is framed as it must be.
    fn chunks(mut wire: &[u8]) -> Vec<u64> {
        let mut sizes = Vec::new();
        loop {
            let end = wire.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let size = u64::from_str_radix(std::str::from_utf8(&wire[..end]).unwrap(), 16).unwrap();
            wire = &wire[end + 2..];
            if size == 0 {
                return sizes;
            }
            sizes.push(size);
            let size = usize::try_from(size).unwrap();
            assert_eq!(&wire[size..size + 2], b"\r\n");
            wire = &wire[size + 2..];
        }
    }

    #[tokio::test]
    async fn no_chunk_is_larger_than_what_stores_take_nor_smaller_but_for_the_last() {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        for (pieces, rest, expected) in [
            (8, 0, vec![CHUNK]),
            (8, 1, vec![CHUNK, 1]),
            (7, 1 << 19, vec![CHUNK - (1 << 19)]),
            (32, 3, vec![CHUNK, CHUNK, CHUNK, CHUNK, 3]),
        ] {
            let mut all = vec![&ZEROS[..]; pieces];
            all.insert(pieces / 2, &ZEROS[..rest]);
            let (bytes, promised) = sent(all, ChecksumKind::Crc64Nvme).await;
            assert_eq!(promised, bytes.len() as u64);
            assert_eq!(chunks(&bytes), expected);
        }
    }

    #[tokio::test]
    async fn a_store_without_trailers_gets_the_checksum_in_a_header_and_the_bytes_as_they_are() {
        let mut prover = ProofDigest::new(ChecksumKind::Crc64Nvme);
        prover.update(b"123456789");
        let payload = Payload::Proven {
            body: Pieces(vec![b"1234", b"56789"]),
            length: 9,
            proof: prover.proof(),
        };
        let (stream, seal) = payload.sealed(ChecksumKind::Crc64Nvme);
        assert_eq!(stream.collect().await.unwrap().to_vec(), b"123456789");
        let ChecksumPlacement::Header(Some((name, value))) = seal else {
            panic!("no header");
        };
        assert_eq!((name, value.as_str()), ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="));
    }

    #[tokio::test]
    async fn without_a_checksum_the_bytes_go_as_they_are() {
        let (bytes, promised) = sent(vec![b"abc"], ChecksumKind::None).await;
        assert_eq!(bytes, b"abc");
        assert_eq!(promised, 3);
    }
}
