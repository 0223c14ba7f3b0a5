//! What is done to an answer on its way out.

use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue};
use s3s::{Body, HttpResponse};

use crate::dialect::Dialect;
use crate::store::Store;
use crate::tricks::CUT;

/// A status that the protocol layer has no field for: an operation leaves it with its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status(pub(crate) StatusCode);

/// The answer as the client gets to see it.
pub(crate) fn bend(store: &Store, answer: &mut HttpResponse) {
    if answer.status().as_u16() == CUT {
        return;
    }
    if let Some(Status(status)) = answer.extensions().get::<Status>().copied() {
        *answer.status_mut() = status;
    }
    if store.dialects.has(Dialect::ETagBare) {
        bare(answer);
    }
    if store.dialects.has(Dialect::ETagWeak) {
        // The protocol layer makes only the header weak.
        in_document(answer, "<ETag>\"", "<ETag>W/\"");
    }
    let failed = answer.status().is_client_error() || answer.status().is_server_error();
    if failed && store.dialects.has(Dialect::NoBodyErrors) {
        *answer.body_mut() = Body::empty();
        for header in [CONTENT_TYPE, CONTENT_LENGTH] {
            answer.headers_mut().remove(header);
        }
    }
}

/// Takes the quotes off: of the header, and in a document.
fn bare(answer: &mut HttpResponse) {
    let header = answer.headers().get(ETAG).and_then(|value| value.to_str().ok());
    let plain = header.map(|value| value.trim_matches('"').to_owned());
    if let Some(plain) = plain.and_then(|plain| HeaderValue::try_from(plain).ok()) {
        answer.headers_mut().insert(ETAG, plain);
    }
    in_document(answer, "<ETag>\"", "<ETag>");
    in_document(answer, "\"</ETag>", "</ETag>");
}

/// Replaces a text in a document, which is here as a whole.
fn in_document(answer: &mut HttpResponse, from: &str, to: &str) {
    let kind = answer.headers().get(CONTENT_TYPE);
    let is_xml = kind.is_some_and(|value| value == "application/xml");
    let text = answer.body().bytes().filter(|_| is_xml);
    if let Some(text) = text.and_then(|bytes| String::from_utf8(bytes.into()).ok()) {
        *answer.body_mut() = Body::from(text.replace(from, to));
    }
}
