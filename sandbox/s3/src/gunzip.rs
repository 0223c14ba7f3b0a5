//! Objects that are stored compressed and sent decompressed.

use std::io::{self, Read as _};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::stream;
use hyper::HeaderMap;
use s3s::dto::StreamingBlob;

use crate::dialect::Dialect;
use crate::index::{Attributes, Object};
use crate::store::Store;

/// In pieces of this size.
const PIECE: usize = 64 * 1024;

/// Whether this object is sent decompressed to a request with these headers.
pub(crate) fn is_wanted(store: &Store, attributes: &Attributes, headers: &HeaderMap) -> bool {
    let gzip = attributes.content_encoding.as_deref() == Some("gzip");
    let accepted = headers.get("accept-encoding").and_then(|value| value.to_str().ok());
    let mut accepted = accepted.unwrap_or_default().split([',', ';']).map(str::trim);
    let as_stored = accepted.any(|coding| matches!(coding, "identity" | "gzip"));
    let always = store.dialects.has(Dialect::GunzippedAlways);
    gzip && (always || (store.dialects.has(Dialect::Gunzipped) && !as_stored))
}

/// The decompressed bytes, of a length that is not told. Blocks on the disk.
pub(crate) fn body(object: &Object) -> io::Result<StreamingBlob> {
    let mut packed = Vec::new();
    for blob in &object.blobs {
        packed.extend_from_slice(&blob.read()?);
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(&packed[..]).read_to_end(&mut plain)?;
    let plain = Bytes::from(plain);
    let pieces = (0..plain.len()).step_by(PIECE);
    let pieces = pieces.map(move |start| Ok::<_, io::Error>(plain.slice(start..plain.len().min(start + PIECE))));
    Ok(StreamingBlob::wrap(stream::iter(pieces)))
}
