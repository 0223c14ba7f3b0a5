//! Receiving a body: to memory or a file, with its checksums computed and compared on the way.

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use s3s::dto::StreamingBlob;
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Result, StdError, TrailingHeaders};
use tokio::task::spawn_blocking;

use crate::blob::{Blob, BlobFile, IN_MEMORY};
use crate::checksum::{Kind, Shown};
use crate::error::{bad_digest, internal, invalid, refuse};
use crate::framing::Framed;
use crate::store::Store;
use crate::sums::{Hasher, Sums};

/// How much is gathered before it is written.
const BUFFER: usize = 256 * 1024;

/// What the client says that its body is.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) kind: Option<Kind>,
    /// The checksum, when a header gave it; a trailer does so only after the body.
    header: Option<String>,
    /// Whether a trailer was announced, which then has to come.
    announced: bool,
    md5: Option<String>,
    trailers: Option<TrailingHeaders>,
}

impl Claim {
    /// From the checksum fields of an input, the algorithm that it names and the headers of its request.
    pub(crate) fn new<T>(
        store: &Store,
        request: &S3Request<T>,
        fields: impl Iterator<Item = (Kind, String)>,
        algorithm: Option<&str>,
        md5: Option<&String>,
    ) -> S3Result<Self> {
        let known = |kind: &Kind| store.knows(*kind);
        let mut fields = fields.filter(|(kind, _)| known(kind));
        let field = fields.next();
        if fields.next().is_some() {
            return Err(invalid("Expecting a single x-amz-checksum- header"));
        }
        let trailer = request
            .headers
            .get_all("x-amz-trailer")
            .iter()
            .filter_map(|value| value.to_str().ok());
        let trailer = trailer
            .flat_map(|value| value.split(','))
            .find_map(Kind::from_header)
            .filter(known);
        let named = algorithm.and_then(Kind::from_name).filter(known);
        let promised = request.headers.contains_key("x-amz-sdk-checksum-algorithm");
        if promised && field.is_none() && trailer.is_none() && store.knows(Kind::Crc64Nvme) {
            return Err(invalid(
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found",
            ));
        }
        let (field_kind, header) = field.unzip();
        Ok(Self {
            kind: field_kind.or(trailer).or(named),
            announced: header.is_none() && trailer.is_some(),
            header,
            // It would be that of the bytes without their framing.
            md5: md5.filter(|_| request.extensions.get::<Framed>().is_none()).cloned(),
            trailers: request.trailing_headers.clone(),
        })
    }

    /// Whether the client sends a checksum, before the body or behind it.
    pub(crate) const fn has_value(&self) -> bool {
        self.header.is_some() || self.announced
    }

    /// Compares with what was received.
    fn check(&self, sums: &Sums) -> S3Result<()> {
        if self.md5.as_ref().is_some_and(|md5| *md5 != STANDARD.encode(sums.md5)) {
            return Err(bad_digest("Content-MD5"));
        }
        let Some(kind) = self.kind else {
            return Ok(());
        };
        let trailer = || {
            let read = |headers: &hyper::HeaderMap| Some(headers.get(kind.header())?.to_str().ok()?.to_owned());
            self.trailers.as_ref()?.read(read)?
        };
        match self.header.clone().or_else(trailer) {
            None if self.announced => Err(refuse(
                S3ErrorCode::from_bytes(b"MalformedTrailerError").unwrap_or(S3ErrorCode::InvalidRequest),
                format!("The trailer {} was announced and did not come", kind.header()),
            )),
            None => Ok(()),
            Some(text) if sums.get(kind).is_some_and(|value| value.base64() == text) => Ok(()),
            Some(_) => Err(bad_digest(kind.name())),
        }
    }
}

/// A body that is here, whole, and is what the client said.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) blob: Arc<Blob>,
    pub(crate) sums: Sums,
    pub(crate) checksum: Option<Shown>,
}

/// The body that the store keeps: the one with its framing where it keeps that.
pub(crate) async fn kept(framed: Option<Framed>, body: Option<StreamingBlob>) -> Option<StreamingBlob> {
    let Some(Framed(bytes)) = framed else {
        return body;
    };
    drain(body).await;
    Some(StreamingBlob::from(Body::from(bytes)))
}

/// Receives a body. On any error, and when the request is given up, what was written is removed.
pub(crate) async fn receive(store: &Store, body: Option<StreamingBlob>, claim: &Claim) -> S3Result<Received> {
    let mut hasher = Hasher::new(claim.kind);
    let mut writer = Writer::new(store);
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(broken)?;
            store.stats.received(chunk.len());
            hasher.update(&chunk);
            writer.write(&chunk).await?;
        }
    }
    let blob = writer.finish().await?;
    let sums = hasher.finish();
    claim.check(&sums)?;
    Ok(Received {
        blob: Arc::new(blob),
        checksum: shown(store, claim.kind, &sums),
        sums,
    })
}

/// The checksum that is answered: the one that the client used, else the one that is always computed.
fn shown(store: &Store, kind: Option<Kind>, sums: &Sums) -> Option<Shown> {
    let default = store.knows(Kind::Crc64Nvme).then_some(Kind::Crc64Nvme);
    sums.get(kind.or(default)?).map(Shown::whole)
}

/// Reads a body to its end and forgets it, so that a client that is still sending gets to see the answer.
pub(crate) async fn drain(body: Option<StreamingBlob>) {
    if let Some(mut body) = body {
        while let Some(Ok(_)) = body.next().await {}
    }
}

/// A body whose stream broke: by the client, or by what it sent not being what it signed.
fn broken(error: StdError) -> S3Error {
    let text = error.to_string();
    let code = if text.contains("Sha256Mismatch") {
        S3ErrorCode::from_bytes(b"XAmzContentSHA256Mismatch")
    } else if text.contains("SignatureMismatch") {
        Some(S3ErrorCode::SignatureDoesNotMatch)
    } else {
        None
    };
    let mut error = S3Error::with_source(code.unwrap_or(S3ErrorCode::IncompleteBody), error);
    error.set_message(text);
    if error.status_code().is_none() {
        error.set_status_code(hyper::StatusCode::BAD_REQUEST);
    }
    error
}

/// Reads the beginning of a body, so that a connection that is closed then is closed in the midst of it.
pub(crate) async fn begin(body: Option<StreamingBlob>) {
    if let Some(mut body) = body {
        // What comes, or that nothing does, makes no difference.
        drop(body.next().await);
    }
}

/// Gathers a body in memory, and moves to a file when it grows.
struct Writer<'a> {
    store: &'a Store,
    buffer: BytesMut,
    file: Option<(BlobFile, std::fs::File)>,
}

impl<'a> Writer<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            buffer: BytesMut::new(),
            file: None,
        }
    }

    async fn write(&mut self, data: &[u8]) -> S3Result<()> {
        self.buffer.extend_from_slice(data);
        let limit = if self.file.is_some() { BUFFER } else { IN_MEMORY + 1 };
        if self.buffer.len() >= limit {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> S3Result<()> {
        let bytes = self.buffer.split().freeze();
        let store = self.store;
        let open = self.file.take();
        // The blob travels with the write, so that the file is removed whichever of task and request ends last.
        let (mut blob, file) = match open {
            Some((blob, file)) => (blob, Some(file)),
            None => (BlobFile::new(store.new_path()), None),
        };
        let write = move || {
            let mut file = file.map_or_else(|| blob.create(), Ok)?;
            file.write_all(&bytes)?;
            blob.len += bytes.len() as u64;
            Ok((blob, file))
        };
        self.file = Some(
            spawn_blocking(write)
                .await
                .map_err(std::io::Error::other)
                .flatten()
                .map_err(internal)?,
        );
        self.buffer.reserve(BUFFER);
        Ok(())
    }

    async fn finish(mut self) -> S3Result<Blob> {
        if self.file.is_some() && !self.buffer.is_empty() {
            self.flush().await?;
        }
        match self.file {
            Some((blob, file)) => {
                drop(file);
                Ok(Blob::File(blob))
            }
            // Copied: the buffer may be much larger than what is in it.
            None => Ok(Blob::Memory(Bytes::copy_from_slice(&self.buffer))),
        }
    }
}
