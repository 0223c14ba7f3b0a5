//! Requests that a dialect, or the back door, answers before the store has seen them.

use hyper::{HeaderMap, StatusCode};

use crate::asked::Asked;
use crate::canned::Canned;
use crate::dialect::Dialect;
use crate::store::Store;

/// The answer to a request that the store does not get to see. What a proxy says comes first, then what is wrong with
/// who asks, and last what is wrong with what is asked.
pub(crate) fn refusal(store: &Store, asked: &Asked, headers: &HeaderMap) -> Option<Canned> {
    by_proxy(store)
        .or_else(|| of_asker(store, asked, headers))
        .or_else(|| of_headers(store, headers))
        .or_else(|| of_body(store, headers))
        .or_else(|| of_list(store, asked))
}

fn by_proxy(store: &Store) -> Option<Canned> {
    if store.dialects.has(Dialect::HtmlAnswers) {
        return Some(Canned::html(StatusCode::OK, "Please log in to use this network"));
    }
    let gateway = store.dialects.has(Dialect::HtmlGateway);
    gateway.then(|| Canned::html(StatusCode::BAD_GATEWAY, "502 Bad Gateway"))
}

fn of_asker(store: &Store, asked: &Asked, headers: &HeaderMap) -> Option<Canned> {
    let has = |dialect| store.dialects.has(dialect);
    let denied = || Canned::error(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied", None);
    let scope = Scope::of(headers);
    if has(Dialect::TimeSkewed400) {
        let message = "The difference between the request time and the current time is too large.";
        let error = Canned::error(StatusCode::FORBIDDEN, "RequestTimeTooSkewed", message, None);
        return Some(error.on_head(asked.head, StatusCode::BAD_REQUEST));
    }
    let token = text(headers, "x-amz-security-token");
    if has(Dialect::TokenExpired400) && store.doors.is_expired(&[scope.access_key, token]) {
        let message = "The provided token has expired.";
        return Some(Canned::error(StatusCode::BAD_REQUEST, "ExpiredToken", message, None));
    }
    let region = store.doors.region();
    if scope.region != region {
        if has(Dialect::WrongRegion301) {
            return Some(redirect(&asked.bucket, region));
        }
        if has(Dialect::WrongRegion400) {
            return Some(malformed(scope.region, region));
        }
    }
    if has(Dialect::RequesterPays) && text(headers, "x-amz-request-payer") != "requester" {
        return Some(denied());
    }
    store.doors.is_denied(&asked.bucket, &asked.key).then(denied)
}

fn redirect(bucket: &str, region: String) -> Canned {
    let message = "The bucket you are attempting to access must be addressed using the specified endpoint. \
                   Please send all future requests to this endpoint.";
    let endpoint = format!("{bucket}.s3.{region}.amazonaws.com");
    let endpoint = Some(("Endpoint", &endpoint[..]));
    Canned::error(StatusCode::MOVED_PERMANENTLY, "PermanentRedirect", message, endpoint)
        .with_header("x-amz-bucket-region", region)
}

fn malformed(signed: &str, region: String) -> Canned {
    let message =
        format!("The authorization header is malformed; the region '{signed}' is wrong; expecting '{region}'");
    let named = Some(("Region", &region[..]));
    Canned::error(StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed", &message, named)
        .with_header("x-amz-bucket-region", region)
}

fn of_headers(store: &Store, headers: &HeaderMap) -> Option<Canned> {
    let refuses = |dialect: Dialect, header: &str| store.dialects.has(dialect) && headers.contains_key(header);
    if refuses(Dialect::ChecksumMode400, "x-amz-checksum-mode") {
        let message = "Unsupported header 'x-amz-checksum-mode' received for this API call.";
        return Some(Canned::error(StatusCode::BAD_REQUEST, "InvalidArgument", message, None));
    }
    [
        (Dialect::NotImplementedTagging, "x-amz-tagging"),
        (Dialect::NotImplementedAcl, "x-amz-acl"),
    ]
    .into_iter()
    .find(|&(dialect, header)| refuses(dialect, header))
    .map(|(_, header)| not_implemented(Some(("Header", header))))
}

fn of_body(store: &Store, headers: &HeaderMap) -> Option<Canned> {
    let has = |dialect| store.dialects.has(dialect);
    if is_chunked(headers) && has(Dialect::ChunkedRefused501) {
        return Some(not_implemented(Some(("Header", "Transfer-Encoding"))));
    }
    if is_chunked(headers) && has(Dialect::ChunkedRefused400) {
        let message = "aws-chunked encoding is not supported";
        return Some(Canned::error(StatusCode::BAD_REQUEST, "InvalidArgument", message, None));
    }
    if headers.contains_key("x-amz-trailer") && has(Dialect::TrailingChecksum400) {
        let message = "trailing checksum is not supported";
        return Some(Canned::error(StatusCode::BAD_REQUEST, "InvalidRequest", message, None));
    }
    None
}

fn of_list(store: &Store, asked: &Asked) -> Option<Canned> {
    let root = "<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>";
    let other = asked.op == "ListObjectsV2" && store.dialects.has(Dialect::EmptyListXml);
    other.then(|| Canned::xml(StatusCode::OK, root))
}

fn not_implemented(more: Option<(&str, &str)>) -> Canned {
    let message = "A header you provided implies functionality that is not implemented";
    Canned::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message, more)
}

/// Whether a body comes in aws-chunked framing.
pub(crate) fn is_chunked(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all("content-encoding").iter();
    let mut encodings = encodings
        .filter_map(|value| value.to_str().ok())
        .flat_map(|it| it.split(','));
    text(headers, "x-amz-content-sha256").starts_with("STREAMING-") || encodings.any(|it| it.trim() == "aws-chunked")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// What a signature says that it is made with and for.
#[derive(Debug)]
struct Scope<'a> {
    access_key: &'a str,
    region: &'a str,
}

impl<'a> Scope<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let authorization = text(headers, "authorization");
        let credential = authorization.split_once("Credential=").map_or("", |(_, rest)| rest);
        let mut fields = credential.split([',', ' ']).next().unwrap_or_default().split('/');
        let access_key = fields.next().unwrap_or_default();
        // The date stands between them.
        let region = fields.nth(1).unwrap_or_default();
        Self { access_key, region }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_of_a_signature() {
        let mut headers = HeaderMap::new();
        let value = "AWS4-HMAC-SHA256 Credential=AKID/20261127/eu-central-1/s3/aws4_request, SignedHeaders=host, \
                     Signature=00";
        headers.insert("authorization", value.parse().unwrap());
        let scope = Scope::of(&headers);
        assert_eq!((scope.access_key, scope.region), ("AKID", "eu-central-1"));
        assert_eq!(Scope::of(&HeaderMap::new()).region, "");
    }
}
