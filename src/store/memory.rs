//! A store in memory behind the SDK, for tests that decide when a request arrives.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::{Target, TargetOptions};

/// A request as it arrives.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Without the bucket; empty for the bucket itself.
    pub(crate) key: String,
    pub(crate) query: HashMap<String, String>,
    /// Names in small letters.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// Who answers, on the thread that asks; may block. `None`: the answer gets lost.
pub(crate) trait Remote: Send + Sync + fmt::Debug {
    fn ask(&self, asked: Asked) -> Option<Answer>;
}

/// A target whose store is `remote`, by path. Must be made within a runtime.
pub(crate) fn target(options: TargetOptions, remote: Arc<dyn Remote>) -> Target {
    Target::behind(options, SharedHttpClient::new(Wire(remote)))
}

#[derive(Clone, Debug)]
struct Wire(Arc<dyn Remote>);

impl HttpClient for Wire {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let remote = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let asked = read(request).await.map_err(lost)?;
            let answer = remote.ask(asked);
            // Whoever was stopped while it was answered hears of the stop first.
            tokio::task::yield_now().await;
            answer.map_or_else(
                || Err(lost("the answer got lost")),
                |answer| write(answer).map_err(lost),
            )
        })
    }
}

fn lost(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConnectorError {
    ConnectorError::io(why.into())
}

async fn read(mut request: HttpRequest) -> Result<Asked, Box<dyn std::error::Error + Send + Sync>> {
    let headers: HashMap<String, String> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let uri = request.uri().to_owned();
    let method = request.method().to_owned();
    let body = ByteStream::new(request.take_body()).collect().await?.to_vec();
    let body = if headers
        .get("content-encoding")
        .is_some_and(|it| it.contains("aws-chunked"))
    {
        unframed(&body)
    } else {
        body
    };
    let text = |bytes: &str| {
        percent_encoding::percent_decode_str(bytes)
            .decode_utf8_lossy()
            .into_owned()
    };
    let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    // Host, bucket, key.
    let key = text(path.splitn(3, '/').nth(2).unwrap_or_default());
    let query = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect();
    Ok(Asked {
        method,
        key,
        query,
        headers,
        body,
    })
}

/// What an `aws-chunked` body has in its chunks.
fn unframed(mut framed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(end) = framed.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&framed[..end]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).unwrap_or(0);
        let rest = &framed[end + 2..];
        if size == 0 || rest.len() < size + 2 {
            break;
        }
        bytes.extend_from_slice(&rest[..size]);
        framed = &rest[size + 2..];
    }
    bytes
}

fn write(answer: Answer) -> Result<HttpResponse, Box<dyn std::error::Error + Send + Sync>> {
    let mut response = HttpResponse::new(answer.status.try_into()?, SdkBody::from(answer.body));
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_taken_out_of_their_frame() {
        assert_eq!(
            unframed(b"3\r\nabc\r\n1\r\nd\r\n0\r\nx-amz-checksum-crc64nvme:AA==\r\n\r\n"),
            b"abcd"
        );
        assert_eq!(unframed(b"0\r\n\r\n"), b"");
    }
}
