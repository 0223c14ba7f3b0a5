//! An answer must be the answer to the question: each response is held against its request here, before a byte of it is
//! used. What is between us and the store (a proxy, a gateway, a portal that wants a login) answers too, often with 200.

use aws_sdk_s3::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut,
    BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::config_bag::{Storable, StoreReplace};

/// Why an answer is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NotAnAnswer {
    /// Somebody else's, or nobody's that we know.
    #[error("{0}")]
    NotS3(String),
    /// All of the object, where a range was asked for.
    #[error("the store ignores Range: it sends the whole object")]
    RangeIgnored,
}

/// Looks at all answers of a client.
#[derive(Debug)]
pub(super) struct AnswerCheck;

/// What of the request is needed to understand its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct RequestShape {
    /// There is no body, whatever the status is.
    head: bool,
    /// First and last byte.
    range: Option<(u64, u64)>,
}

impl Storable for RequestShape {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for AnswerCheck {
    fn name(&self) -> &'static str {
        "Answers"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        config.interceptor_state().store_put(RequestShape {
            head: request.method() == "HEAD",
            range: request.headers().get("range").and_then(range),
        });
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let asked = config.load::<RequestShape>().copied().unwrap_or_default();
        let operation = config.load::<Metadata>().map_or("", Metadata::name);
        readable(context.response_mut().headers_mut());
        head_of(operation, asked, context.response())?;
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let asked = config.load::<RequestShape>().copied().unwrap_or_default();
        let operation = config.load::<Metadata>().map_or("", Metadata::name);
        body_of(operation, asked, context.response())?;
        Ok(())
    }
}

/// What the status and the headers must be.
fn head_of(operation: &str, asked: RequestShape, response: &HttpResponse) -> Result<(), NotAnAnswer> {
    let (status, headers) = (response.status().as_u16(), response.headers());
    let alien = |what: &str| Err(NotAnAnswer::NotS3(format!("{}{what}", told(status, headers))));
    match status {
        200..=299 => match operation {
            // The type of their bodies is the object's.
            "GetObject" | "HeadObject" if headers.get("etag").is_none() => alien(" without an ETag"),
            "GetObject" => ranged(asked, status, headers),
            "HeadObject" if status != 200 && status != 206 => alien(""),
            "HeadObject" => Ok(()),
            "PutObject" | "UploadPart" if headers.get("etag").is_none() => alien(" without an ETag"),
            _ if is_page(headers) => alien(""),
            _ => Ok(()),
        },
        // S3 says where the bucket is, and asks for no other redirect than these two.
        300..=399 if headers.get("x-amz-bucket-region").is_none() && (asked.head || !matches!(status, 301 | 307)) => {
            alien("")
        }
        300.. if asked.head && is_page(headers) => alien(""),
        _ => Ok(()),
    }
}

fn ranged(asked: RequestShape, status: u16, headers: &Headers) -> Result<(), NotAnAnswer> {
    let Some((first, last)) = asked.range else {
        return match status {
            200 => Ok(()),
            _ => Err(NotAnAnswer::NotS3(format!("{status} where no range was asked for"))),
        };
    };
    if status == 200 {
        return Err(NotAnAnswer::RangeIgnored);
    }
    let sent = headers.get("content-range").unwrap_or("nothing");
    let length = headers.get("content-length").map(|length| length.parse::<u64>().ok());
    let fits = content_range(sent) == Some((first, last))
        && length.is_none_or(|length| length == (last - first).checked_add(1));
    if status == 206 && fits {
        return Ok(());
    }
    Err(NotAnAnswer::NotS3(format!(
        "{status} with the range '{sent}' where bytes {first}-{last} were asked for"
    )))
}

/// What the body must be: an error's is XML, and so is what is not an object's.
fn body_of(operation: &str, asked: RequestShape, response: &HttpResponse) -> Result<(), NotAnAnswer> {
    let status = response.status().as_u16();
    let body = response.body().bytes().unwrap_or_default().trim_ascii();
    let wrong = match status {
        // Nothing, for a HEAD and for some stores always: the status alone counts then.
        300.. => !asked.head && !body.is_empty() && root(body) != Some("Error"),
        // A body that nobody reads.
        _ => operation == "DeleteObject" && !body.is_empty() && root(body).is_none(),
    };
    match wrong {
        true => Err(NotAnAnswer::NotS3(told(status, response.headers()))),
        false => Ok(()),
    }
}

/// As an error names an answer.
pub(super) fn told(status: u16, headers: &Headers) -> String {
    let kind = headers.get("content-type").unwrap_or("without a type");
    format!("{status} {kind}")
}

fn is_page(headers: &Headers) -> bool {
    let kind = headers.get("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["text/html", "application/xhtml+xml", "application/json", "text/plain"]
        .iter()
        .any(|page| kind.eq_ignore_ascii_case(page))
}

/// The name of the first element, without what is before its colon.
fn root(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    while rest.starts_with("<?") || rest.starts_with("<!--") {
        let end = if rest.starts_with("<?") { "?>" } else { "-->" };
        rest = rest.split_once(end)?.1.trim_start();
    }
    let name = rest.strip_prefix('<')?;
    let name = name.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next()?;
    let name = name.rsplit(':').next()?;
    // A page's declaration.
    (!name.starts_with('!') && !name.eq_ignore_ascii_case("html")).then_some(name)
}

/// `bytes=FIRST-LAST`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// `bytes FIRST-LAST/TOTAL`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, _) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// User metadata comes from anybody's program and may be in any encoding; one byte that is no UTF-8 would make the
/// whole answer unreadable. Such bytes are told as `%E9`.
fn readable(headers: &mut Headers) {
    let strange: Vec<_> = headers
        .iter_bytes()
        .filter(|(name, value)| name.starts_with("x-amz-meta-") && std::str::from_utf8(value).is_err())
        .map(|(name, value)| {
            (
                name.to_owned(),
                percent_encoding::percent_encode(value, BEYOND_ASCII).to_string(),
            )
        })
        .collect();
    for (name, value) in strange {
        headers.remove(&name);
        // A name that came from the wire, and plain text.
        if let Err(error) = headers.try_insert(name, value) {
            tracing::debug!(%error, "a metadata value could not be made readable");
        }
    }
}

const BEYOND_ASCII: &percent_encoding::AsciiSet = percent_encoding::CONTROLS;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> HttpResponse {
        let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body));
        for (name, value) in headers {
            response.headers_mut().insert(*name, *value);
        }
        response
    }

    fn judged(operation: &str, asked: RequestShape, response: &HttpResponse) -> Result<(), NotAnAnswer> {
        head_of(operation, asked, response)?;
        body_of(operation, asked, response)
    }

    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
    const XML: (&str, &str) = ("content-type", "application/xml");
    const ETAG: (&str, &str) = ("etag", "\"a\"");
    const PAGE: &str = "<!DOCTYPE html><html><body>Log in</body></html>";
    const ERROR: &str = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code></Error>";

    #[test]
    fn a_page_is_no_answer_whatever_its_status_is() {
        let plain = RequestShape::default();
        let head = RequestShape {
            head: true,
            range: None,
        };
        for operation in ["PutObject", "UploadPart", "DeleteObject", "ListObjectsV2", "CopyObject"] {
            for status in [200, 302, 403, 404, 412, 502] {
                let page = answer(status, &[HTML], PAGE);
                assert!(judged(operation, plain, &page).is_err(), "{operation} {status}");
            }
        }
        for status in [200, 301, 403, 404, 503] {
            let page = answer(status, &[HTML], "");
            assert!(judged("HeadObject", head, &page).is_err(), "{status}");
        }
        let page = answer(404, &[HTML], PAGE);
        let told = judged("GetObject", plain, &page).unwrap_err().to_string();
        assert_eq!(told, "404 text/html; charset=utf-8");
        for status in [302, 303, 308] {
            assert!(
                judged("GetObject", plain, &answer(status, &[], "")).is_err(),
                "{status}"
            );
        }
    }

    #[test]
    fn the_stores_own_answers_pass() {
        let plain = RequestShape::default();
        let head = RequestShape {
            head: true,
            range: None,
        };
        for status in [301, 400, 403, 404, 409, 412, 500, 503] {
            assert_eq!(judged("GetObject", plain, &answer(status, &[XML], ERROR)), Ok(()));
            // Some stores send no body with an error.
            assert_eq!(judged("PutObject", plain, &answer(status, &[], "")), Ok(()));
        }
        assert_eq!(judged("HeadObject", head, &answer(404, &[XML], "")), Ok(()));
        // A page that somebody keeps in the bucket.
        assert_eq!(judged("HeadObject", head, &answer(200, &[HTML, ETAG], "")), Ok(()));
        assert_eq!(judged("GetObject", plain, &answer(200, &[HTML, ETAG], PAGE)), Ok(()));
        for status in [200, 202, 204] {
            assert_eq!(judged("DeleteObject", plain, &answer(status, &[], "")), Ok(()));
        }
        assert_eq!(
            judged("DeleteObject", plain, &answer(200, &[XML], "<DeleteResult/>")),
            Ok(())
        );
        assert!(judged("DeleteObject", plain, &answer(200, &[], "welcome")).is_err());
        assert!(judged("PutObject", plain, &answer(200, &[], "")).is_err(), "no ETag");
    }

    #[test]
    fn a_range_is_answered_by_just_that_range() {
        let asked = RequestShape {
            head: false,
            range: range("bytes=5-9"),
        };
        let part = |range, length| answer(206, &[ETAG, ("content-range", range), ("content-length", length)], "");
        assert_eq!(judged("GetObject", asked, &part("bytes 5-9/20", "5")), Ok(()));
        assert_eq!(judged("GetObject", asked, &part("bytes 5-9/*", "5")), Ok(()));
        for (range, length) in [
            ("bytes 0-4/20", "5"),
            ("bytes 5-8/20", "4"),
            ("bytes 5-9/20", "6"),
            ("", "5"),
        ] {
            assert!(
                judged("GetObject", asked, &part(range, length)).is_err(),
                "{range} {length}"
            );
        }
        let whole = answer(200, &[ETAG], "");
        assert_eq!(judged("GetObject", asked, &whole), Err(NotAnAnswer::RangeIgnored));
        assert_eq!(judged("GetObject", RequestShape::default(), &whole), Ok(()));
        assert!(judged("GetObject", RequestShape::default(), &part("bytes 0-9/10", "10")).is_err());
    }
}
