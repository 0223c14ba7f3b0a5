//! Objects that are frozen: they can't be read until a restore that was asked for is through.

use hyper::StatusCode;
use s3s::dto::{RestoreObjectInput, RestoreObjectOutput, StorageClass};
use s3s::{S3ErrorCode, S3Response, S3Result};

use crate::bend::Status;
use crate::dialect::Dialect;
use crate::error::refuse;
use crate::index::{Attributes, Thaw};
use crate::object::find;
use crate::store::Store;

fn has_class(attributes: &Attributes, classes: &[&str]) -> bool {
    let class = attributes.storage_class.as_ref();
    class.is_some_and(|class| classes.contains(&class.as_str()))
}

/// Of a class that freezes. `GLACIER_IR` does not.
fn is_archived(attributes: &Attributes) -> bool {
    has_class(attributes, &[StorageClass::GLACIER, StorageClass::DEEP_ARCHIVE])
}

/// Refuses to read what is frozen. Without the dialect only the tiers are, which the back door alone makes so.
pub(crate) fn check_readable(store: &Store, attributes: &Attributes) -> S3Result<()> {
    let archived = store.dialects.has(Dialect::Cold) && is_archived(attributes);
    let frozen = archived || attributes.archive_status.is_some();
    if frozen && attributes.thaw != Thaw::Done {
        let message = "The operation is not valid for the object's storage class";
        return Err(refuse(S3ErrorCode::InvalidObjectState, message));
    }
    Ok(())
}

/// What an answer tells of a thaw.
pub(crate) fn told(attributes: &Attributes) -> Option<String> {
    match attributes.thaw {
        Thaw::NotAsked => None,
        Thaw::Ongoing => Some("ongoing-request=\"true\"".to_owned()),
        Thaw::Done => Some("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2096 00:00:00 GMT\"".to_owned()),
    }
}

/// Asks for a thaw. Where nothing is modelled it is accepted, and whether an object can be read is decided by the
/// faults.
pub(crate) fn restore(store: &Store, input: &RestoreObjectInput) -> S3Result<S3Response<RestoreObjectOutput>> {
    let modelled = store.dialects.any(&[Dialect::Cold, Dialect::TieringNoDays]);
    let accepted = || S3Response::new(RestoreObjectOutput::default());
    let found = match find(store, &input.bucket, &input.key, input.version_id.as_deref()) {
        Ok(found) => found,
        Err(error) if modelled => return Err(error),
        Err(_) => return Ok(accepted()),
    };
    let attributes = &found.object.attributes;
    if !modelled && attributes.archive_status.is_none() {
        return Ok(accepted());
    }
    let days = input.restore_request.as_ref().and_then(|request| request.days);
    let tiered = has_class(attributes, &[StorageClass::INTELLIGENT_TIERING]) || attributes.archive_status.is_some();
    if tiered && days.is_some() {
        let message = "Days must not be specified for objects of the INTELLIGENT_TIERING storage class";
        return Err(refuse(S3ErrorCode::InvalidArgument, message));
    }
    if is_archived(attributes) && days.is_none() {
        return Err(S3ErrorCode::MalformedXML.into());
    }
    if !is_archived(attributes) && !tiered {
        let message = "Restore is not allowed for the object's current storage class";
        return Err(refuse(S3ErrorCode::InvalidObjectState, message));
    }
    match attributes.thaw {
        Thaw::Ongoing => return Err(S3ErrorCode::RestoreAlreadyInProgress.into()),
        Thaw::Done => return Ok(accepted()),
        Thaw::NotAsked => {}
    }
    let ongoing = |attributes: &mut Attributes| attributes.thaw = Thaw::Ongoing;
    store
        .index()
        .bucket(&input.bucket)?
        .amend(&input.key, input.version_id.as_deref(), ongoing);
    let mut answer = accepted();
    answer.extensions.insert(Status(StatusCode::ACCEPTED));
    Ok(answer)
}
