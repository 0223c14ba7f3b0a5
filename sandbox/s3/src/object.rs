//! Objects: put, get, head, copy.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use md5::{Digest as _, Md5};
use s3s::dto::{
    ArchiveStatus, ChecksumMode, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETagCondition,
    GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, MetadataDirective, PutObjectInput,
    PutObjectOutput, StorageClass,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::bend::Status;
use crate::checksum::Shown;
use crate::condition::Condition;
use crate::dialect::Dialect;
use crate::error::{internal, refuse};
use crate::etag::Forms;
use crate::framing::Framed;
use crate::index::{Attributes, Object, Thaw};
use crate::receive::{Claim, drain, kept, receive};
use crate::store::Store;
use crate::{body, cold, gunzip, range};

/// The headers of a write that are kept with its object.
macro_rules! attributes {
    ($input:expr) => {
        $crate::index::Attributes {
            metadata: $input.metadata.clone(),
            storage_class: $input.storage_class.clone(),
            content_type: $input.content_type.clone(),
            content_encoding: $crate::object::kept_encoding($input.content_encoding.as_deref()),
            content_disposition: $input.content_disposition.clone(),
            content_language: $input.content_language.clone(),
            cache_control: $input.cache_control.clone(),
            asked: [
                ("acl", $input.acl.as_ref().map(|it| it.as_str().to_owned())),
                (
                    "encryption",
                    $input.server_side_encryption.as_ref().map(|it| it.as_str().to_owned()),
                ),
                ("kms_key", $input.ssekms_key_id.clone()),
                ("customer_key_md5", $input.sse_customer_key_md5.clone()),
                ("tagging", $input.tagging.clone()),
                (
                    "storage_class",
                    $input.storage_class.as_ref().map(|it| it.as_str().to_owned()),
                ),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
            ..$crate::index::Attributes::default()
        }
    };
}
pub(crate) use attributes;

/// What is answered about an object, by GET as by HEAD.
macro_rules! describe {
    ($store:expr, $output:ident, $found:expr, $checksum:expr) => {{
        let Found { object, version } = $found;
        let attributes = object.attributes.clone();
        let shown = object.checksum.as_ref();
        let shown = shown.filter(|shown| $checksum && $store.knows(shown.kind));
        show!($output, shown);
        $output.checksum_type = Shown::scope(shown);
        $output.e_tag = Some(Forms::of(&$store.dialects).show(&object.etag));
        $output.version_id = version.clone();
        $output.restore = cold::told(&attributes);
        $output.last_modified = Some(object.modified.into());
        $output.accept_ranges = Some("bytes".to_owned());
        $output.metadata = attributes.metadata;
        // The standard class is the one that S3 does not mention.
        $output.storage_class = attributes
            .storage_class
            .filter(|class| class.as_str() != StorageClass::STANDARD);
        $output.content_type = attributes
            .content_type
            .or_else(|| Some("binary/octet-stream".to_owned()));
        $output.content_encoding = attributes.content_encoding;
        $output.content_disposition = attributes.content_disposition;
        $output.content_language = attributes.content_language;
        $output.cache_control = attributes.cache_control;
    }};
}

/// What is kept of an encoding: `aws-chunked` is that of the transfer.
pub(crate) fn kept_encoding(sent: Option<&str>) -> Option<String> {
    let kept = sent?.split(',').map(str::trim).filter(|it| *it != "aws-chunked");
    let kept = kept.collect::<Vec<_>>().join(",");
    (!kept.is_empty()).then_some(kept)
}

/// A length as S3's messages have it.
pub(crate) fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// An object that was asked for.
pub(crate) struct Found {
    pub(crate) object: Arc<Object>,
    pub(crate) version: Option<String>,
}

pub(crate) fn find(store: &Store, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Found> {
    let mut index = store.index();
    let (object, version) = index.bucket(bucket)?.find(key, version)?;
    Ok(Found {
        object: Arc::clone(object),
        version: version.cloned(),
    })
}

fn wants_checksum(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

pub(crate) async fn put(
    store: &Arc<Store>,
    mut request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let body = request.input.body.take();
    let (condition, claim) = match accept(store, &request) {
        Ok(accepted) => accepted,
        Err(error) => {
            drain(body).await;
            return Err(error);
        }
    };
    let body = kept(request.extensions.get::<Framed>().cloned(), body).await;
    let input = request.input;
    let received = receive(store, body, &claim).await?;
    let object = Arc::new(Object {
        size: received.blob.len(),
        etag: received.sums.etag(),
        modified: SystemTime::now(),
        attributes: attributes!(input),
        checksum: received.checksum.clone(),
        blobs: vec![received.blob],
        parts: Vec::new(),
    });
    let version = store.new_version();
    let mut output = PutObjectOutput {
        e_tag: Some(Forms::of(&store.dialects).show(&object.etag)),
        expiration: store.expiration(&input.bucket, &input.key),
        version_id: version.clone(),
        checksum_type: Shown::scope(received.checksum.as_ref()),
        ..PutObjectOutput::default()
    };
    show!(output, &received.checksum);
    let displaced = store
        .index()
        .bucket(&input.bucket)?
        .put(&input.key, &object, version, &condition)?;
    drop(displaced);
    Ok(S3Response::new(output))
}

/// What can be told of a PUT before its body is read.
fn accept(store: &Store, request: &S3Request<PutObjectInput>) -> S3Result<(Condition, Claim)> {
    let input = &request.input;
    let condition = Condition::new(&store.dialects, input.if_match.clone(), input.if_none_match.clone());
    condition.check_supported(store.conditional_writes())?;
    store.index().bucket(&input.bucket)?;
    let algorithm = input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str());
    let claim = Claim::new(store, request, claims!(input), algorithm, input.content_md5.as_ref())?;
    Ok((condition, claim))
}

pub(crate) fn get(store: &Arc<Store>, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let (input, headers) = (request.input, request.headers);
    let found = find(store, &input.bucket, &input.key, input.version_id.as_deref())?;
    Condition::new(&store.dialects, input.if_match, input.if_none_match).check_read(&found.object)?;
    cold::check_readable(store, &found.object.attributes)?;
    let size = found.object.size;
    let mut output = GetObjectOutput::default();
    let served = range::served(store, &found.object, input.range, input.part_number)?;
    output.content_range = served.content_range;
    output.parts_count = served.parts_count;
    let range = served.range;
    let whole = range == (0..size);
    let checksum = wants_checksum(input.checksum_mode.as_ref());
    describe!(store, output, &found, whole && checksum);
    if let Some(part) = served.checksum.filter(|part| checksum && store.knows(part.kind)) {
        output.checksum_type = Shown::scope(found.object.checksum.as_ref());
        show!(output, Some(&part));
    }
    output.expiration = store.expiration(&input.bucket, &input.key);
    if gunzip::is_wanted(store, &found.object.attributes, &headers) {
        output.content_encoding = None;
        output.content_range = None;
        output.body = Some(gunzip::body(&found.object).map_err(internal)?);
    } else {
        let spoil = store.faults.spoil(range.end - range.start);
        output.content_length = Some(length(range.end - range.start)).filter(|_| !served.chunked);
        output.body = Some(body::stream(store, &found.object.blobs, range.start, range.end, spoil));
    }
    let headers = raw_metadata(store, &found.object.attributes);
    Ok(S3Response::with_headers(output, headers))
}

pub(crate) fn head(store: &Store, input: HeadObjectInput) -> S3Result<S3Response<HeadObjectOutput>> {
    let found = find(store, &input.bucket, &input.key, input.version_id.as_deref())?;
    Condition::new(&store.dialects, input.if_match, input.if_none_match).check_read(&found.object)?;
    let served = range::of_part(&found.object, input.part_number)?;
    let mut output = HeadObjectOutput {
        content_length: Some(length(served.range.end - served.range.start)),
        content_range: served.content_range,
        parts_count: served.parts_count,
        ..HeadObjectOutput::default()
    };
    let dropped = store.dialects.has(Dialect::ChecksumDropped);
    let checksum = wants_checksum(input.checksum_mode.as_ref()) && !dropped;
    let whole = served.range == (0..found.object.size);
    describe!(store, output, &found, whole && checksum);
    if let Some(part) = served.checksum.filter(|part| checksum && store.knows(part.kind)) {
        output.checksum_type = Shown::scope(found.object.checksum.as_ref());
        show!(output, Some(&part));
    }
    output.expiration = store.expiration(&input.bucket, &input.key);
    output.archive_status = found.object.attributes.archive_status.clone().map(ArchiveStatus::from);
    let mut answer = S3Response::with_headers(output, raw_metadata(store, &found.object.attributes));
    if answer.output.content_range.is_some() {
        answer.extensions.insert(Status(StatusCode::PARTIAL_CONTENT));
    }
    Ok(answer)
}

/// The metadata that is no text: what the back door put there, and what a dialect adds.
fn raw_metadata(store: &Store, attributes: &Attributes) -> HeaderMap {
    let added = store.dialects.has(Dialect::MetadataLatin1);
    let added = added.then_some(("author", &b"Andr\xe9"[..]));
    let kept = attributes.raw.iter().map(|(name, value)| (name.as_str(), &value[..]));
    let mut headers = HeaderMap::new();
    for (name, value) in kept.chain(added) {
        let name = HeaderName::try_from(format!("x-amz-meta-{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A copy is made in one piece: the ETag of an upload's parts is not its ETag.
fn copied_etag(etag: &str) -> String {
    if etag.contains('-') {
        Md5::digest(etag).iter().map(|byte| format!("{byte:02x}")).collect()
    } else {
        etag.to_owned()
    }
}

/// The copy shares the bytes of its source.
pub(crate) fn copy(store: &Store, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
    // The protocol layer has no fields for what a copy demands of its destination.
    let header = |name: &str| {
        let value = request.headers.get(name)?.to_str().ok()?;
        ETagCondition::parse_http_header(value.as_bytes()).ok()
    };
    let destination = Condition::new(
        &store.dialects,
        header("if-match").filter(|_| store.config.copy_conditions),
        header("if-none-match").filter(|_| store.config.copy_conditions),
    );
    let input = request.input;
    let CopySource::Bucket {
        bucket,
        key,
        version_id,
    } = &input.copy_source
    else {
        return Err(refuse(
            S3ErrorCode::NotImplemented,
            "Only bucket/key sources can be copied",
        ));
    };
    let source = find(store, bucket, key, version_id.as_deref())?;
    let condition = Condition::new(
        &store.dialects,
        input.copy_source_if_match.clone(),
        input.copy_source_if_none_match.clone(),
    );
    // A copy is a write: where a read would be told that nothing changed, it fails.
    condition
        .check_read(&source.object)
        .map_err(|_| S3ErrorCode::PreconditionFailed)?;
    cold::check_readable(store, &source.object.attributes)?;
    let replace = input
        .metadata_directive
        .as_ref()
        .is_some_and(|it| it.as_str() == MetadataDirective::REPLACE);
    let attributes = if replace {
        attributes!(input)
    } else {
        Attributes {
            storage_class: input.storage_class.clone(),
            thaw: Thaw::default(),
            archive_status: None,
            ..source.object.attributes.clone()
        }
    };
    let object = Arc::new(Object {
        size: source.object.size,
        etag: copied_etag(&source.object.etag),
        modified: SystemTime::now(),
        attributes,
        checksum: source.object.checksum.clone(),
        blobs: source.object.blobs.clone(),
        parts: Vec::new(),
    });
    let shown = object.checksum.as_ref().filter(|shown| store.knows(shown.kind));
    let mut result = CopyObjectResult {
        e_tag: Some(Forms::of(&store.dialects).show(&object.etag)),
        last_modified: Some(object.modified.into()),
        checksum_type: Shown::scope(shown),
        ..CopyObjectResult::default()
    };
    show!(result, shown);
    let version = store.new_version();
    let displaced = store
        .index()
        .bucket(&input.bucket)?
        .put(&input.key, &object, version.clone(), &destination)?;
    drop(displaced);
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        copy_source_version_id: source.version,
        version_id: version,
        ..CopyObjectOutput::default()
    }))
}
