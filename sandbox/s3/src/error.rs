//! The few ways an operation fails, as S3 errors.

use std::io;

use s3s::{S3Error, S3ErrorCode};

/// A failure of the sandbox itself (its disk, its tasks).
pub(crate) fn internal(error: io::Error) -> S3Error {
    S3Error::internal_error(error)
}

/// An error with its code and a message.
pub(crate) fn refuse(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// The client asked for something that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> S3Error {
    refuse(S3ErrorCode::InvalidRequest, message)
}

/// A checksum does not agree with the bytes.
pub(crate) fn bad_digest(what: &str) -> S3Error {
    refuse(
        S3ErrorCode::BadDigest,
        format!("The {what} you specified did not match what we received"),
    )
}
