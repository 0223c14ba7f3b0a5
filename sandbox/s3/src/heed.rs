//! What the store heeds of a request once it has been authenticated: a header that was taken away before would break
//! the signature.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use s3s::access::S3Access;
use s3s::dto::{
    CompleteMultipartUploadInput, CopyObjectInput, DeleteObjectInput, ETag, ETagCondition, GetObjectInput,
    HeadObjectInput, PutObjectInput,
};
use s3s::{S3Request, S3Result};

use crate::dialect::Dialect;
use crate::store::Store;

const IF_MATCH: &str = "if-match";
const IF_NONE_MATCH: &str = "if-none-match";
const SOURCE_IF_MATCH: &str = "x-amz-copy-source-if-match";

/// The `ETag` that no object has.
const NEVER: &str = "none";

/// Takes away what a dialect ignores, and makes fail what it does not understand.
#[derive(Debug)]
pub(crate) struct Heed {
    store: Arc<Store>,
}

impl Heed {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// A condition that can't hold is put in the place of one with a quoted ETag where it is wanted bare.
    fn bare(&self, headers: &HeaderMap, name: &str, condition: &mut Option<ETagCondition>) {
        if condition.is_some() && self.is_misread(headers, name) {
            *condition = Some(ETagCondition::ETag(ETag::Strong(NEVER.to_owned())));
        }
    }

    fn is_misread(&self, headers: &HeaderMap, name: &str) -> bool {
        let quoted = headers.get(name).is_some_and(|value| value.as_bytes().contains(&b'"'));
        quoted && self.store.dialects.has(Dialect::IfMatchBare)
    }
}

#[async_trait::async_trait]
impl S3Access for Heed {
    async fn put_object(&self, request: &mut S3Request<PutObjectInput>) -> S3Result<()> {
        let input = &mut request.input;
        self.bare(&request.headers, IF_MATCH, &mut input.if_match);
        if self.store.dialects.has(Dialect::ConditionsIgnored) {
            (input.if_match, input.if_none_match) = (None, None);
        }
        Ok(())
    }

    async fn complete_multipart_upload(&self, request: &mut S3Request<CompleteMultipartUploadInput>) -> S3Result<()> {
        const IGNORED: &[Dialect] = &[Dialect::ConditionsIgnored, Dialect::ConditionsIgnoredOnComplete];
        let input = &mut request.input;
        self.bare(&request.headers, IF_MATCH, &mut input.if_match);
        if self.store.dialects.any(IGNORED) {
            (input.if_match, input.if_none_match) = (None, None);
        }
        Ok(())
    }

    /// Whether the condition is ignored is seen to where many are deleted at once, too.
    async fn delete_object(&self, request: &mut S3Request<DeleteObjectInput>) -> S3Result<()> {
        self.bare(&request.headers, IF_MATCH, &mut request.input.if_match);
        Ok(())
    }

    async fn get_object(&self, request: &mut S3Request<GetObjectInput>) -> S3Result<()> {
        self.bare(&request.headers, IF_MATCH, &mut request.input.if_match);
        Ok(())
    }

    async fn head_object(&self, request: &mut S3Request<HeadObjectInput>) -> S3Result<()> {
        self.bare(&request.headers, IF_MATCH, &mut request.input.if_match);
        Ok(())
    }

    async fn copy_object(&self, request: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        let input = &mut request.input;
        self.bare(&request.headers, SOURCE_IF_MATCH, &mut input.copy_source_if_match);
        if self.is_misread(&request.headers, IF_MATCH) {
            request.headers.insert(IF_MATCH, HeaderValue::from_static(NEVER));
        }
        if self.store.dialects.has(Dialect::CopyConditionsIgnored) {
            (input.copy_source_if_match, input.copy_source_if_none_match) = (None, None);
            for header in [IF_MATCH, IF_NONE_MATCH] {
                request.headers.remove(header);
            }
        }
        Ok(())
    }
}
