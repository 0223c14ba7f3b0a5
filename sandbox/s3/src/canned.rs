//! Answers that are given in front of the protocol layer, so that they need not be S3's.

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use s3s::{Body, HttpResponse};

const XML: &str = "application/xml";
const HTML: &str = "text/html";

/// An answer that is ready.
#[derive(Debug, Clone)]
pub(crate) struct Canned {
    status: StatusCode,
    content_type: &'static str,
    body: String,
    headers: Vec<(HeaderName, String)>,
}

impl Canned {
    /// An error as S3 writes it, with one element more when there is one.
    pub(crate) fn error(status: StatusCode, code: &str, message: &str, more: Option<(&str, &str)>) -> Self {
        let more = more.map_or_else(String::new, |(name, text)| format!("<{name}>{text}</{name}>"));
        let root = format!("<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>");
        Self::xml(status, &root)
    }

    pub(crate) fn xml(status: StatusCode, root: &str) -> Self {
        Self {
            status,
            content_type: XML,
            body: format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{root}"),
            headers: Vec::new(),
        }
    }

    /// A page that something between client and store has made.
    pub(crate) fn html(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            content_type: HTML,
            body: format!("<html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>\n"),
            headers: Vec::new(),
        }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// The same with another status for a HEAD.
    pub(crate) fn on_head(mut self, head: bool, status: StatusCode) -> Self {
        if head {
            self.status = status;
        }
        self
    }

    /// The answer itself. S3 has nothing to say to a HEAD; a page at least has its length.
    pub(crate) fn answer(self, head: bool) -> HttpResponse {
        let silent = head && self.content_type == XML;
        let body = if silent { String::new() } else { self.body };
        let mut answer = HttpResponse::new(Body::from(body));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        answer
    }
}
