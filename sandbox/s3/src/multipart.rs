//! Multipart uploads: create, upload a part, abort.

use std::collections::BTreeMap;
use std::time::SystemTime;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::checksum::Kind;
use crate::dialect::Dialect;
use crate::error::{invalid, refuse};
use crate::etag::Forms;
use crate::framing::Framed;
use crate::index::{Part, Upload};
use crate::object::attributes;
use crate::receive::{Claim, drain, kept, receive};
use crate::store::Store;
use crate::tricks::Trick;

const PART_NUMBERS: std::ops::RangeInclusive<i32> = 1..=10_000;

pub(crate) fn create(
    store: &Store,
    input: &CreateMultipartUploadInput,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let (checksum, whole) = checksum_of(store, input)?;
    let id = store.new_id();
    let upload = Upload {
        initiated: SystemTime::now(),
        attributes: attributes!(input),
        checksum,
        whole,
        parts: BTreeMap::new(),
    };
    store
        .index()
        .bucket(&input.bucket)?
        .uploads
        .insert((input.key.clone(), id.clone()), upload);
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        upload_id: Some(id),
        checksum_algorithm: checksum.map(|kind| ChecksumAlgorithm::from_static(kind.name())),
        checksum_type: checksum.map(|_| scope(whole)),
        ..CreateMultipartUploadOutput::default()
    }))
}

/// The checksum that an upload asks for, and whether it is that of the whole object.
fn checksum_of(store: &Store, input: &CreateMultipartUploadInput) -> S3Result<(Option<Kind>, bool)> {
    let kind = match &input.checksum_algorithm {
        None => return Ok((None, true)),
        Some(name) => Kind::from_name(name.as_str()).ok_or_else(|| invalid("Unknown checksum algorithm"))?,
    };
    if !store.knows(kind) {
        return Ok((None, true));
    }
    if store.dialects.has(Dialect::CompositeOnly) {
        return Ok((Some(kind), false));
    }
    let full = input
        .checksum_type
        .as_ref()
        .map(|it| it.as_str() == ChecksumType::FULL_OBJECT);
    match (kind, full) {
        (Kind::Crc64Nvme, Some(false)) | (Kind::Sha1 | Kind::Sha256, Some(true)) => {
            Err(invalid("The checksum type cannot be used with the checksum algorithm"))
        }
        (_, full) => Ok((Some(kind), full.unwrap_or(kind == Kind::Crc64Nvme))),
    }
}

pub(crate) fn scope(whole: bool) -> ChecksumType {
    ChecksumType::from_static(if whole {
        ChecksumType::FULL_OBJECT
    } else {
        ChecksumType::COMPOSITE
    })
}

pub(crate) async fn upload_part(
    store: &Store,
    mut request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let body = request.input.body.take();
    let claim = match accept(store, &request) {
        Ok(claim) => claim,
        Err(error) => {
            drain(body).await;
            return Err(error);
        }
    };
    let body = kept(request.extensions.get::<Framed>().cloned(), body).await;
    let input = request.input;
    let received = receive(store, body, &claim).await?;
    let mut output = UploadPartOutput {
        e_tag: Some(Forms::of(&store.dialects).show(&received.sums.etag())),
        ..UploadPartOutput::default()
    };
    show!(output, &received.checksum);
    let part = Part {
        blob: received.blob,
        sums: received.sums,
        modified: SystemTime::now(),
    };
    // The upload may have been completed or aborted in the meantime.
    let displaced = {
        let mut index = store.index();
        index
            .bucket(&input.bucket)?
            .upload(&input.key, &input.upload_id)?
            .parts
            .insert(input.part_number, part)
    };
    drop(displaced);
    Ok(S3Response::new(output))
}

/// What can be told of a part before its body is read.
fn accept(store: &Store, request: &S3Request<UploadPartInput>) -> S3Result<Claim> {
    let input = &request.input;
    if !PART_NUMBERS.contains(&input.part_number) {
        let message = "Part number must be an integer between 1 and 10000, inclusive";
        return Err(refuse(S3ErrorCode::InvalidArgument, message));
    }
    let asked = store
        .index()
        .bucket(&input.bucket)?
        .upload(&input.key, &input.upload_id)?
        .checksum
        .filter(|&kind| store.knows(kind));
    let named = input.checksum_algorithm.as_ref().map(|algorithm| algorithm.as_str());
    let algorithm = named.or(asked.map(Kind::name));
    let claim = Claim::new(store, request, claims!(input), algorithm, input.content_md5.as_ref())?;
    if asked.is_some() && !claim.has_value() && store.knows(Kind::Crc64Nvme) {
        return Err(invalid("checksum missing: the upload was created with one"));
    }
    if asked.is_some() && claim.kind != asked {
        return Err(invalid(
            "Checksum type mismatch: the upload was created with another one",
        ));
    }
    Ok(claim)
}

/// Drops an upload as if it had never been, if a fault asks for it.
pub(crate) fn vanish(store: &Store, op: &str, bucket: &str, key: &str, id: &str) {
    let name = (key.to_owned(), id.to_owned());
    let gone = {
        let mut index = store.index();
        let uploads = index.bucket(bucket).ok().map(|bucket| &mut bucket.uploads);
        let uploads =
            uploads.filter(|uploads| uploads.contains_key(&name) && store.faults.plays(Trick::LostUpload, op));
        uploads.and_then(|uploads| uploads.remove(&name))
    };
    drop(gone);
}

pub(crate) fn abort(
    store: &Store,
    input: &AbortMultipartUploadInput,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let upload = store
        .index()
        .bucket(&input.bucket)?
        .uploads
        .remove(&(input.key.clone(), input.upload_id.clone()));
    if upload.is_none() {
        return Err(S3ErrorCode::NoSuchUpload.into());
    }
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}
