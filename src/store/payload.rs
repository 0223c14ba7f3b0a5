//! A request's body with its checksum, in S3's `aws-chunked` form where the checksum is known only at the end.
//!
//! The bytes are read once: what is sent is summed up as it goes and the sum follows in a trailer. The payload
//! is not signed (`UNSIGNED-PAYLOAD`, or its form with a trailer): a SHA-256 of everything costs more than the
//! rest of the request, and over TLS it proves nothing that the checksum does not.

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

/// What a PUT carries.
pub enum Payload<B> {
    /// All of it, in memory.
    Whole(Bytes, Option<Proof>),
    /// Bytes that come as they are read.
    Stream {
        /// The bytes.
        body: B,
        /// How many.
        length: u64,
        /// Asked for after the last one.
        proof: ProofAtEnd,
    },
}

impl<B> std::fmt::Debug for Payload<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes, _) => write!(f, "Payload({} bytes)", bytes.len()),
            Self::Stream { length, .. } => write!(f, "Payload({length} bytes as they come)"),
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
            Self::Stream { body, .. } => ByteStream::new(SdkBody::from_body_1_x(body)),
        }
    }

    /// With its checksum, and what must be done to the request.
    pub(super) fn sealed(self, kind: ChecksumKind) -> (ByteStream, Seal) {
        match (self, kind.header()) {
            (Self::Whole(bytes, proof), _) => {
                let header = proof.and_then(|proof| Some((proof.kind.header()?, proof.value)));
                (ByteStream::from(bytes), Seal::Header(header))
            }
            (Self::Stream { body, .. }, None) => (ByteStream::new(SdkBody::from_body_1_x(body)), Seal::Header(None)),
            (Self::Stream { body, length, proof }, Some(name)) => {
                let body = Chunked {
                    state: State::Head(length),
                    body,
                    length,
                    name,
                    value_length: kind.encoded_length(),
                    proof,
                };
                (
                    ByteStream::new(SdkBody::from_body_1_x(body)),
                    Seal::Trailer { name, length },
                )
            }
        }
    }
}

/// Headers of a request whose payload is not signed.
#[derive(Debug)]
pub(super) enum Seal {
    /// The checksum in a header.
    Header(Option<(&'static str, String)>),
    /// The checksum behind the bytes.
    Trailer { name: &'static str, length: u64 },
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Seal {
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

/// One chunk that holds everything, then the trailer.
struct Chunked<B> {
    state: State,
    body: B,
    length: u64,
    name: &'static str,
    value_length: u64,
    proof: ProofAtEnd,
}

#[derive(Clone, Copy)]
enum State {
    Head(u64),
    Body,
    Tail,
    End,
}

impl<B> Chunked<B> {
    fn head(&self) -> String {
        format!("{:x}\r\n", self.length)
    }

    fn tail(&self) -> String {
        let value = (self.proof)().map(|proof| proof.value).unwrap_or_default();
        format!("\r\n0\r\n{}:{value}\r\n\r\n", self.name)
    }

    /// CR LF `0` CR LF name `:` value CR LF CR LF.
    const fn tail_length(&self) -> u64 {
        5 + self.name.len() as u64 + 1 + self.value_length + 4
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
                State::Head(_) => {
                    self.state = if self.length == 0 { State::Tail } else { State::Body };
                    // An empty body has no chunk but the last, whose CR LF is the tail's first.
                    if self.length > 0 {
                        return Poll::Ready(Some(Ok(Frame::data(self.head().into()))));
                    }
                }
                State::Body => match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                    Some(frame) => return Poll::Ready(Some(frame)),
                    None => self.state = State::Tail,
                },
                State::Tail => {
                    self.state = State::End;
                    let tail = self.tail();
                    let tail = if self.length == 0 { tail[2..].to_owned() } else { tail };
                    return Poll::Ready(Some(Ok(Frame::data(tail.into()))));
                }
                State::End => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::End)
    }

    fn size_hint(&self) -> SizeHint {
        let left = match self.state {
            State::Head(0) => self.tail_length() - 2,
            State::Head(_) => self.head().len() as u64 + self.length + self.tail_length(),
            State::Body => self.body.size_hint().exact().unwrap_or_default() + self.tail_length(),
            State::Tail => self.tail_length(),
            State::End => 0,
        };
        SizeHint::with_exact(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Prover;

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
        let mut prover = Prover::new(kind);
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

    #[tokio::test]
    async fn without_a_checksum_the_bytes_go_as_they_are() {
        let (bytes, promised) = sent(vec![b"abc"], ChecksumKind::None).await;
        assert_eq!(bytes, b"abc");
        assert_eq!(promised, 3);
    }
}
