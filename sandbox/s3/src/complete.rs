//! Completing a multipart upload: the object is made of its parts' files, once all that is said of them is true.

use std::sync::Arc;
use std::time::SystemTime;

use s3s::dto::{CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart};
use s3s::{S3ErrorCode, S3Response, S3Result};

use crate::checksum::{Kind, Shown, Value};
use crate::condition::Condition;
use crate::dialect::Dialect;
use crate::error::{bad_digest, invalid};
use crate::etag::Forms;
use crate::index::{Attributes, Object, Part, Upload};
use crate::multipart::scope;
use crate::object::length;
use crate::store::Store;
use crate::sums::multipart_etag;

/// Every part but the last has at least this many bytes.
const SMALLEST_PART: u64 = 5 * 1024 * 1024;

pub(crate) fn complete(
    store: &Store,
    input: &CompleteMultipartUploadInput,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let condition = Condition::new(&store.dialects, input.if_match.clone(), input.if_none_match.clone());
    condition.check_supported(store.conditional_writes())?;
    let version = store.new_version();
    let mut index = store.index();
    let bucket = index.bucket(&input.bucket)?;
    let upload = bucket.upload(&input.key, &input.upload_id)?;
    let object = Arc::new(assemble(store, upload, input)?);
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        e_tag: Some(Forms::of(&store.dialects).show(&object.etag)),
        expiration: store.expiration(&input.bucket, &input.key),
        checksum_type: Shown::scope(object.checksum.as_ref()),
        version_id: version.clone(),
        ..CompleteMultipartUploadOutput::default()
    };
    show!(output, &object.checksum);
    let displaced = bucket.put(&input.key, &object, version, &condition)?;
    let upload = bucket.uploads.remove(&(input.key.clone(), input.upload_id.clone()));
    drop(index);
    // Files go here: what was overwritten, and the parts that the object does not use.
    drop((displaced, upload));
    Ok(S3Response::new(output))
}

/// The object that the named parts make up, when all that was said of it is true.
fn assemble(store: &Store, upload: &Upload, input: &CompleteMultipartUploadInput) -> S3Result<Object> {
    let named = input
        .multipart_upload
        .as_ref()
        .and_then(|it| it.parts.as_deref())
        .unwrap_or_default();
    let parts = select(store, upload, named)?;
    let size = parts.iter().map(|part| part.blob.len()).sum();
    let claimed = input
        .mpu_object_size
        .filter(|_| !store.dialects.has(Dialect::ChunkedKept));
    if claimed.is_some_and(|claimed| claimed != length(size)) {
        return Err(invalid("The provided object size does not match the size of the parts"));
    }
    let composite = store.dialects.has(Dialect::CompositeOnly);
    let whole = upload.whole && !composite;
    let object = joined(store, upload.checksum, whole, &parts, upload.attributes.clone());
    if store.knows(Kind::Crc64Nvme) {
        let mut claimed = input.checksum_type.iter().filter(|_| !composite);
        if claimed.any(|claimed| *claimed != scope(whole)) {
            return Err(invalid("The checksum type is not that of the upload"));
        }
        // One that knows no others does not look at that of the whole.
        let claims = claims!(input).filter(|(_, text)| !composite || text.contains('-'));
        for (kind, text) in claims {
            let computed = match &object.checksum {
                Some(shown) if shown.kind == kind => Some(shown.clone()),
                _ => checksum(kind, true, &parts),
            };
            if computed.is_none_or(|shown| shown.text != text) {
                return Err(bad_digest(kind.name()));
            }
        }
    }
    Ok(object)
}

/// The object that parts make up, with its checksum of the kind that was asked for.
pub(crate) fn joined(
    store: &Store,
    asked: Option<Kind>,
    whole: bool,
    parts: &[&Part],
    attributes: Attributes,
) -> Object {
    let whole = whole && !store.dialects.has(Dialect::CompositeOnly);
    let kind = asked.unwrap_or(Kind::Crc64Nvme);
    let checksum = Some(kind).filter(|&kind| store.knows(kind));
    Object {
        size: parts.iter().map(|part| part.blob.len()).sum(),
        etag: multipart_etag(parts.iter().map(|part| &part.sums.md5)),
        modified: SystemTime::now(),
        attributes,
        checksum: checksum.and_then(|kind| self::checksum(kind, whole, parts)),
        blobs: parts.iter().map(|part| Arc::clone(&part.blob)).collect(),
        parts: parts.iter().map(|part| part.sums.clone()).collect(),
    }
}

/// The parts that are named: in order, there, and as they are said to be.
fn select<'a>(store: &Store, upload: &'a Upload, named: &[CompletedPart]) -> S3Result<Vec<&'a Part>> {
    if named.is_empty() {
        return Err(S3ErrorCode::MalformedXML.into());
    }
    if !named.is_sorted_by(|left, right| left.part_number < right.part_number) {
        return Err(S3ErrorCode::InvalidPartOrder.into());
    }
    let forms = Forms::of(&store.dialects);
    let mut parts = Vec::with_capacity(named.len());
    for name in named {
        let part = name.part_number.and_then(|number| upload.parts.get(&number));
        let part = part.filter(|part| {
            let shown = forms.value(&part.sums.etag());
            name.e_tag.as_ref().is_some_and(|etag| etag.value() == shown)
        });
        let part = part.filter(|part| {
            let mut claims = claims!(name).filter(|(kind, _)| store.knows(*kind));
            claims.all(|(kind, text)| part.sums.get(kind).is_some_and(|value| value.base64() == text))
        });
        parts.push(part.ok_or(S3ErrorCode::InvalidPart)?);
    }
    let (_, all_but_last) = parts.split_last().ok_or(S3ErrorCode::MalformedXML)?;
    if all_but_last.iter().any(|part| part.blob.len() < SMALLEST_PART) {
        return Err(S3ErrorCode::EntityTooSmall.into());
    }
    Ok(parts)
}

/// A checksum of the object from those of its parts, if each of them has it.
fn checksum(kind: Kind, whole: bool, parts: &[&Part]) -> Option<Shown> {
    let values = parts
        .iter()
        .map(|part| Some((part.sums.get(kind)?.clone(), part.blob.len())));
    let values: Vec<(Value, u64)> = values.collect::<Option<_>>()?;
    if whole {
        Shown::combined(kind, &values)
    } else {
        Some(Shown::composite(kind, &values))
    }
}
