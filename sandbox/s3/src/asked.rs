//! What a request asks for, as its first line and headers tell it before the protocol layer has looked at it.

use hyper::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The operation by its S3 name.
    pub(crate) op: &'static str,
    /// Whether the answer has no body, whatever it is.
    pub(crate) head: bool,
    pub(crate) bucket: String,
    /// Empty when the request is not about an object.
    pub(crate) key: String,
}

impl Asked {
    pub(crate) fn new(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let path = percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let copies = headers.contains_key("x-amz-copy-source");
        Self {
            op: operation(method, bucket, key, uri.query().unwrap_or_default(), copies),
            head: *method == Method::HEAD,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        }
    }
}

fn operation(method: &Method, bucket: &str, key: &str, query: &str, copies: bool) -> &'static str {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match (method.as_str(), bucket.is_empty(), key.is_empty()) {
        ("GET", true, _) => "ListBuckets",
        ("GET", _, true) if has("uploads") => "ListMultipartUploads",
        ("GET", _, true) if has("versioning") => "GetBucketVersioning",
        ("GET", _, true) if has("versions") => "ListObjectVersions",
        ("GET", _, true) if has("list-type") => "ListObjectsV2",
        ("GET", _, true) => "GetBucket",
        ("GET", ..) if has("uploadId") => "ListParts",
        ("GET", ..) if has("attributes") => "GetObjectAttributes",
        ("GET", ..) => "GetObject",
        ("HEAD", _, true) => "HeadBucket",
        ("HEAD", ..) => "HeadObject",
        ("PUT", _, true) => "CreateBucket",
        ("PUT", ..) if has("uploadId") => "UploadPart",
        ("PUT", ..) if copies => "CopyObject",
        ("PUT", ..) => "PutObject",
        ("POST", _, true) => "DeleteObjects",
        ("POST", ..) if has("uploads") => "CreateMultipartUpload",
        ("POST", ..) if has("restore") => "RestoreObject",
        ("POST", ..) => "CompleteMultipartUpload",
        ("DELETE", ..) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", ..) => "DeleteObject",
        _ => "Unknown",
    }
}
