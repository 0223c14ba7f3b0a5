//! Deleting: one object, or many at once.

use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition,
    Error, ObjectIdentifier,
};
use s3s::{S3ErrorCode, S3Response, S3Result};

use crate::condition::Condition;
use crate::dialect::Dialect;
use crate::index::Deleted;
use crate::store::Store;

/// Where a delete has no condition.
const IGNORED: &[Dialect] = &[Dialect::ConditionsIgnored, Dialect::ConditionsIgnoredOnDelete];

fn delete(
    store: &Store,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    if_match: Option<ETagCondition>,
) -> S3Result<Deleted> {
    let ignored = store.dialects.any(IGNORED);
    let condition = Condition::new(&store.dialects, if_match.filter(|_| !ignored), None);
    condition.check_supported(store.conditional_writes())?;
    let mut index = store.index();
    let bucket = index.bucket(bucket)?;
    condition.check_write(bucket.current(key).map(|object| &**object))?;
    let mut deleted = bucket.delete(key, version, store.new_version());
    drop(index);
    drop(std::mem::take(&mut deleted.displaced));
    Ok(deleted)
}

pub(crate) fn one(store: &Store, input: DeleteObjectInput) -> S3Result<S3Response<DeleteObjectOutput>> {
    let deleted = delete(
        store,
        &input.bucket,
        &input.key,
        input.version_id.as_deref(),
        input.if_match,
    )?;
    Ok(S3Response::new(DeleteObjectOutput {
        delete_marker: deleted.marker.then_some(true),
        version_id: deleted.version_id,
        ..DeleteObjectOutput::default()
    }))
}

pub(crate) fn many(store: &Store, input: DeleteObjectsInput) -> S3Result<S3Response<DeleteObjectsOutput>> {
    if input.delete.objects.is_empty() || input.delete.objects.len() > 1000 {
        return Err(S3ErrorCode::MalformedXML.into());
    }
    store.index().bucket(&input.bucket)?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        let ObjectIdentifier {
            key, version_id, e_tag, ..
        } = object;
        let if_match = e_tag.map(ETagCondition::ETag);
        match delete(store, &input.bucket, &key, version_id.as_deref(), if_match) {
            Ok(done) => deleted.push(DeletedObject {
                key: Some(key),
                delete_marker: done.marker.then_some(true),
                delete_marker_version_id: done.version_id.filter(|_| done.marker),
                version_id,
            }),
            Err(error) => errors.push(Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(key),
                message: error.message().map(str::to_owned),
                version_id,
            }),
        }
    }
    if input.delete.quiet == Some(true) {
        deleted.clear();
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: (!deleted.is_empty()).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        ..DeleteObjectsOutput::default()
    }))
}
