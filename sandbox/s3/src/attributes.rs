//! What is known of an object and of its parts: `GetObjectAttributes`.

use s3s::dto::{
    Checksum, ChecksumType, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts, ObjectPart,
    StorageClass,
};
use s3s::{S3Response, S3Result};

use crate::checksum::Shown;
use crate::etag::Forms;
use crate::index::Object;
use crate::list::page_size;
use crate::object::{find, length};
use crate::store::Store;

pub(crate) fn get(store: &Store, input: &GetObjectAttributesInput) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let found = find(store, &input.bucket, &input.key, input.version_id.as_deref())?;
    let object = &found.object;
    // Several in one header, or a header for each.
    let wants = |name: &str| {
        let mut asked = input.object_attributes.iter().flat_map(|it| it.as_str().split(','));
        asked.any(|it| it.trim() == name)
    };
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(object.modified.into()),
        version_id: found.version.clone(),
        ..GetObjectAttributesOutput::default()
    };
    if wants("ETag") {
        output.e_tag = Some(Forms::of(&store.dialects).show(&object.etag));
    }
    if wants("ObjectSize") {
        output.object_size = Some(length(object.size));
    }
    if wants("StorageClass") {
        let class = object.attributes.storage_class.clone();
        output.storage_class = class.or_else(|| Some(StorageClass::from_static(StorageClass::STANDARD)));
    }
    let shown = object.checksum.as_ref().filter(|shown| store.knows(shown.kind));
    if wants("Checksum") && shown.is_some() {
        let mut checksum = Checksum {
            checksum_type: Shown::scope(shown),
            ..Checksum::default()
        };
        show!(checksum, shown);
        output.checksum = Some(checksum);
    }
    if wants("ObjectParts") && !object.parts.is_empty() {
        output.object_parts = Some(parts(object, input)?);
    }
    Ok(S3Response::new(output))
}

/// Each part is told where it has a checksum of its own, else their number alone.
fn parts(object: &Object, input: &GetObjectAttributesInput) -> S3Result<GetObjectAttributesParts> {
    let max = page_size(input.max_parts)?;
    let marker = input.part_number_marker.unwrap_or_default();
    let whole = object.checksum.as_ref();
    let whole = whole.filter(|shown| shown.scope == ChecksumType::COMPOSITE);
    let all = (1..).zip(object.blobs.iter().zip(&object.parts));
    let mut rest = all.filter(|(number, _)| whole.is_some() && *number > marker);
    let mut parts = Vec::new();
    for (number, (blob, sums)) in rest.by_ref().take(max) {
        let mut part = ObjectPart {
            part_number: Some(number),
            size: Some(length(blob.len())),
            ..ObjectPart::default()
        };
        show!(part, whole.and_then(|shown| sums.get(shown.kind)).map(Shown::whole));
        parts.push(part);
    }
    let truncated = rest.next().is_some();
    let last = parts.last().and_then(|part: &ObjectPart| part.part_number);
    Ok(GetObjectAttributesParts {
        total_parts_count: i32::try_from(object.parts.len()).ok(),
        is_truncated: Some(truncated),
        max_parts: i32::try_from(max).ok(),
        part_number_marker: input.part_number_marker,
        next_part_number_marker: last.filter(|_| truncated),
        parts: Some(parts).filter(|parts| !parts.is_empty()),
    })
}
