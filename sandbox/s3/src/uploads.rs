//! Listing what is being uploaded: the parts of an upload, and the uploads of a bucket.

use s3s::dto::{
    ChecksumAlgorithm, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput,
    MultipartUpload, Part,
};
use s3s::{S3Response, S3Result};

use crate::checksum::{Kind, Shown};
use crate::etag::Forms;
use crate::list::page_size;
use crate::object::length;
use crate::store::Store;
use crate::tricks::Trick;

pub(crate) fn parts(store: &Store, input: ListPartsInput) -> S3Result<S3Response<ListPartsOutput>> {
    let max = page_size(input.max_parts)?;
    let repeats = store.faults.plays(Trick::Repeat, "ListParts");
    let after = input.part_number_marker.filter(|_| !repeats).unwrap_or_default();
    let mut index = store.index();
    let upload = index.bucket(&input.bucket)?.upload(&input.key, &input.upload_id)?;
    let kind = upload
        .checksum
        .or(Some(Kind::Crc64Nvme))
        .filter(|&kind| store.knows(kind));
    let forms = Forms::of(&store.dialects);
    let mut rest = upload.parts.range(after.saturating_add(1)..);
    let mut parts = Vec::new();
    for (&number, part) in rest.by_ref().take(max) {
        let mut entry = Part {
            part_number: Some(number),
            size: Some(length(part.blob.len())),
            e_tag: Some(forms.show(&part.sums.etag())),
            last_modified: Some(part.modified.into()),
            ..Part::default()
        };
        show!(entry, kind.and_then(|kind| part.sums.get(kind)).map(Shown::whole));
        parts.push(entry);
    }
    let truncated = rest.next().is_some() || repeats;
    let last = parts.last().and_then(|part| part.part_number);
    Ok(S3Response::new(ListPartsOutput {
        checksum_algorithm: upload.checksum.map(|kind| ChecksumAlgorithm::from_static(kind.name())),
        storage_class: upload.attributes.storage_class.clone(),
        next_part_number_marker: last.or(repeats.then_some(0)).filter(|_| truncated),
        is_truncated: Some(truncated),
        parts: Some(parts),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        max_parts: i32::try_from(max).ok(),
        part_number_marker: input.part_number_marker,
        ..ListPartsOutput::default()
    }))
}

pub(crate) fn uploads(
    store: &Store,
    input: ListMultipartUploadsInput,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let max = page_size(input.max_uploads)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let repeats = store.faults.plays(Trick::Repeat, "ListMultipartUploads");
    let key_marker = input.key_marker.clone().filter(|_| !repeats).unwrap_or_default();
    let id_marker = input.upload_id_marker.clone().filter(|_| !repeats).unwrap_or_default();
    let mut index = store.index();
    let mut rest = index.bucket(&input.bucket)?.uploads.iter().filter(|((key, id), _)| {
        // Without an id the marker means all uploads of its key.
        let after = *key > key_marker || (*key == key_marker && !id_marker.is_empty() && *id > id_marker);
        key.starts_with(&prefix) && (after || key_marker.is_empty())
    });
    let uploads: Vec<MultipartUpload> = rest
        .by_ref()
        .take(max)
        .map(|((key, id), upload)| MultipartUpload {
            key: Some(key.clone()),
            upload_id: Some(id.clone()),
            initiated: Some(upload.initiated.into()),
            storage_class: upload.attributes.storage_class.clone(),
            checksum_algorithm: upload.checksum.map(|kind| ChecksumAlgorithm::from_static(kind.name())),
            ..MultipartUpload::default()
        })
        .collect();
    let truncated = rest.next().is_some() || repeats;
    let last = uploads.last().filter(|_| truncated);
    Ok(S3Response::new(ListMultipartUploadsOutput {
        next_key_marker: last.and_then(|upload| upload.key.clone()),
        next_upload_id_marker: last.and_then(|upload| upload.upload_id.clone()),
        is_truncated: Some(truncated),
        uploads: Some(uploads),
        bucket: Some(input.bucket),
        prefix: input.prefix,
        key_marker: input.key_marker,
        upload_id_marker: input.upload_id_marker,
        max_uploads: i32::try_from(max).ok(),
        ..ListMultipartUploadsOutput::default()
    }))
}
