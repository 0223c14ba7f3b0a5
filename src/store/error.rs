//! What a store can answer, by what can be done about it.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::answer::{NotAnAnswer, told};
use super::credential_watcher::CredentialsRenewed;

/// An operation that did not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object (or version, or upload).
    #[error("{operation}: not found ({code})")]
    NotFound {
        /// The S3 operation.
        operation: &'static str,
        /// The store's error code.
        code: String,
    },
    /// No such bucket.
    #[error("{operation}: the bucket does not exist; create it again, or correct `bucket` of its [[archive]] section")]
    NoSuchBucket {
        /// The S3 operation.
        operation: &'static str,
    },
    /// The object is not the one that was expected.
    #[error("{operation}: the object is not the expected one (412)")]
    Precondition {
        /// The S3 operation.
        operation: &'static str,
    },
    /// Not allowed: credentials or policy.
    #[error("{operation}: denied ({code}: {message})")]
    Denied {
        /// The S3 operation.
        operation: &'static str,
        /// The store's error code.
        code: String,
        /// The store's words.
        message: String,
    },
    /// The object is in a class that must be thawed before it can be read.
    #[error("{operation}: the object is in an archive storage class and must be thawed first")]
    Frozen {
        /// The S3 operation.
        operation: &'static str,
    },
    /// The store can't do that.
    #[error("{operation}: the store does not implement this ({code})")]
    Unsupported {
        /// The S3 operation.
        operation: &'static str,
        /// The store's error code.
        code: String,
    },
    /// The request was refused for what it is.
    #[error("{operation}: refused ({status} {code}: {message})")]
    Refused {
        /// The S3 operation.
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// The store's error code.
        code: String,
        /// The store's words.
        message: String,
    },
    /// Bytes were damaged on the way, by the store's or our own count.
    #[error("{operation}: {what}")]
    Corrupt {
        /// The S3 operation.
        operation: &'static str,
        /// What differs.
        what: String,
    },
    /// The store asks for a slower pace.
    #[error("{operation}: throttled ({code})")]
    Throttled {
        /// The S3 operation.
        operation: &'static str,
        /// The store's error code.
        code: String,
    },
    /// The store can't be reached or is unwell.
    #[error("{operation}: unavailable ({what})")]
    Unavailable {
        /// The S3 operation.
        operation: &'static str,
        /// The store's words or the connection's.
        what: String,
    },
    /// No byte moved for too long.
    #[error("no byte moved for {seconds} s")]
    Stalled {
        /// How long it was waited.
        seconds: u64,
    },
    /// Somebody else's answer, or none to this request.
    #[error("{operation}: an answer that is not S3's: {what}")]
    NotS3 {
        /// The S3 operation.
        operation: &'static str,
        /// Status and type, or what does not fit.
        what: String,
    },
    /// The store sends whole objects only.
    #[error("{operation}: the store ignores Range and sends the whole object")]
    RangeIgnored {
        /// The S3 operation.
        operation: &'static str,
    },
    /// The store wants the request in another form, which is known now: the next try has it.
    #[error("{operation}: {what}")]
    Learned {
        /// The S3 operation.
        operation: &'static str,
        /// What was learned.
        what: String,
    },
}

/// Whom an error concerns: the object that it is about, or all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// With the next object all may be well.
    OneObjects,
    /// The store tells, when it is asked for something else.
    Doubtful,
    /// Each would fail the same way.
    Everybodys,
}

impl StoreError {
    /// Whether the same request can succeed a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Throttled { .. }
            | Self::Unavailable { .. }
            | Self::Stalled { .. }
            | Self::Corrupt { .. }
            | Self::NotS3 { .. }
            | Self::Learned { .. } => true,
            Self::NotFound { .. }
            | Self::NoSuchBucket { .. }
            | Self::Precondition { .. }
            | Self::Denied { .. }
            | Self::Frozen { .. }
            | Self::Unsupported { .. }
            | Self::RangeIgnored { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// Whom it concerns.
    #[must_use]
    pub fn whose(&self) -> Whose {
        match self {
            Self::NoSuchBucket { .. } | Self::Throttled { .. } | Self::Unavailable { .. } | Self::Stalled { .. } => {
                Whose::Doubtful
            }
            // A key of ours that the store does not know, or a gateway that writes this object's name otherwise than we
            // have signed it. A mere 403 is said of one object.
            Self::Denied { code, .. } => match code.as_str() {
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "InvalidClientTokenId"
                | "NotSignedUp"
                | "AccountProblem"
                | "AuthorizationHeaderMalformed" => Whose::Doubtful,
                _ => Whose::OneObjects,
            },
            Self::NotFound { .. }
            | Self::Precondition { .. }
            | Self::Frozen { .. }
            | Self::Unsupported { .. }
            | Self::Refused { .. }
            | Self::Corrupt { .. }
            | Self::NotS3 { .. }
            | Self::RangeIgnored { .. }
            | Self::Learned { .. } => Whose::OneObjects,
        }
    }

    /// Classes an SDK error.
    pub(super) fn from_sdk<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match find::<NotAnAnswer>(error) {
            Some(NotAnAnswer::RangeIgnored) => return Self::RangeIgnored { operation },
            Some(NotAnAnswer::NotS3(what)) => {
                let what = what.clone();
                return Self::NotS3 { operation, what };
            }
            None => {}
        }
        match error {
            // Understood in no way: an error without one.
            SdkError::ServiceError(service)
                if service.raw().status().is_success() && service.err().code().is_none() =>
            {
                Self::NotS3 {
                    operation,
                    what: format!(
                        "{}: {}",
                        told(service.raw().status().as_u16(), service.raw().headers()),
                        chain(error)
                    ),
                }
            }
            // The next request goes with credentials that were asked for anew.
            _ if error
                .raw_response()
                .and_then(HttpResponse::extension::<CredentialsRenewed>)
                .is_some() =>
            {
                Self::Unavailable {
                    operation,
                    what: format!("credentials are asked for anew after {}", refusal(error)),
                }
            }
            SdkError::ServiceError(service) => Self::from_answer(
                operation,
                service.raw().status().as_u16(),
                service.err().code().unwrap_or_default(),
                service.err().message().unwrap_or_default(),
            ),
            SdkError::ConstructionFailure(_) if lacks_credentials(error) => Self::Unavailable {
                operation,
                what: format!("no credentials: {}", chain(error)),
            },
            SdkError::ConstructionFailure(_) => Self::Refused {
                operation,
                status: 0,
                code: "not sent".into(),
                message: chain(error),
            },
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                if status >= 400 {
                    Self::from_answer(operation, status, "", "")
                } else {
                    Self::NotS3 {
                        operation,
                        what: format!("{}: {}", told(status, response.raw().headers()), chain(error)),
                    }
                }
            }
            _ => Self::Unavailable {
                operation,
                what: chain(error),
            },
        }
    }

    fn from_answer(operation: &'static str, status: u16, code: &str, message: &str) -> Self {
        let owned = || (code.to_owned(), message.to_owned());
        let named = |fallback: &str| {
            if code.is_empty() {
                fallback.to_owned()
            } else {
                code.to_owned()
            }
        };
        match (code, status) {
            ("NoSuchBucket", _) => Self::NoSuchBucket { operation },
            ("InvalidObjectState", _) => Self::Frozen { operation },
            ("SlowDown" | "TooManyRequests" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded", _)
            | (_, 429) => Self::Throttled {
                operation,
                code: named("429"),
            },
            ("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch" | "IncompleteBody", _) => Self::Corrupt {
                operation,
                what: format!("the store received other bytes than were sent ({code})"),
            },
            ("NotImplemented", _) | (_, 501) => Self::Unsupported {
                operation,
                code: named("501"),
            },
            // Another writer is at the key this moment; the credentials are being renewed; a clock is being set.
            (
                "ConditionalRequestConflict"
                | "OperationAborted"
                | "RequestTimeout"
                | "InternalError"
                | "ExpiredToken"
                | "ExpiredTokenException"
                | "TokenRefreshRequired"
                | "RequestExpired"
                | "TemporaryRedirect"
                | "RequestTimeTooSkewed",
                _,
            )
            | (_, 307 | 408 | 500..=599) => Self::Unavailable {
                operation,
                what: format!("{status} {code}"),
            },
            // By their names, too: an upload is completed with 200 and an error in the answer's body.
            ("NoSuchUpload", _) | (_, 404) => Self::NotFound {
                operation,
                code: named("404"),
            },
            // Shorter than what was asked for: it is another object, too.
            ("PreconditionFailed" | "InvalidRange", _) | (_, 412 | 416) => Self::Precondition { operation },
            ("AccessDenied", _) | (_, 401 | 403) => {
                let (_, message) = owned();
                Self::Denied {
                    operation,
                    code: named("403"),
                    message,
                }
            }
            _ => {
                let (code, message) = owned();
                Self::Refused {
                    operation,
                    status,
                    code,
                    message,
                }
            }
        }
    }
}

/// A target that can't be used from the start: for an administrator, with the fix.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody told us who we are.
    #[error(
        "archive {archive}: no AWS credentials found ({cause}). Set AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY, name a `profile` of ~/.aws/credentials in the [[archive]] section, or run \
         on an instance with a role"
    )]
    NoCredentials {
        /// The archive id.
        archive: u32,
        /// What the chain said.
        cause: String,
    },
    /// AWS needs one.
    #[error("archive {archive}: no region is known. Set `region` in the [[archive]] section or AWS_REGION")]
    NoRegion {
        /// The archive id.
        archive: u32,
    },
    /// New credentials could not be tried.
    #[error("archive {archive}: the store does not answer, so they can't be tried. Reload again when it does")]
    Untried {
        /// The archive id.
        archive: u32,
    },
    /// The bucket is not there.
    #[error(
        "archive {archive}: bucket '{bucket}' does not exist{at}. Create it (aws s3 mb s3://{bucket}) or \
         correct `bucket` (or `region`, `endpoint_url`) in the [[archive]] section"
    )]
    NoSuchBucket {
        /// The archive id.
        archive: u32,
        /// `bucket` of the section.
        bucket: String,
        /// " at ENDPOINT" where one is configured.
        at: String,
    },
    /// The bucket is elsewhere.
    #[error(
        "archive {archive}: bucket '{bucket}' is in region '{region}', and was asked for in '{asked}'. Set \
         `region = \"{region}\"` in the [[archive]] section"
    )]
    OtherRegion {
        /// The archive id.
        archive: u32,
        /// `bucket` of the section.
        bucket: String,
        /// Where it was looked for.
        asked: String,
        /// The region that the store names.
        region: String,
    },
    /// The store doesn't know the key or the signature.
    #[error(
        "archive {archive}: the store refuses our credentials for bucket '{bucket}' ({code}: {message}). \
         Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the `profile` of the [[archive]] section"
    )]
    Credentials {
        /// The archive id.
        archive: u32,
        /// `bucket` of the section.
        bucket: String,
        /// The store's error code.
        code: String,
        /// The store's words.
        message: String,
    },
    /// Nobody's only copy would be safe from a second writer.
    #[error(
        "archive {archive}: the store of bucket '{bucket}' does not keep If-Match or If-None-Match (the log says where), \
         and its [[archive]] section has conditions = \"require\". Use another store, or conditions = \"auto\", with \
         which keys are looked at before they are written: then no other program may write below the prefix"
    )]
    NoConditions {
        /// The archive id.
        archive: u32,
        /// `bucket` of the section.
        bucket: String,
    },
    /// Something else that no retry will mend.
    #[error(
        "archive {archive}: bucket '{bucket}' can't be used: {source}. Check `endpoint_url`, `region` and `path_style` in the [[archive]] section"
    )]
    Unusable {
        /// The archive id.
        archive: u32,
        /// `bucket` of the section.
        bucket: String,
        /// The answer.
        source: StoreError,
    },
}

/// The first cause of that type.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Status and code of an answer.
fn refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> String {
    let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
    let code = match error {
        SdkError::ServiceError(service) => service.err().code(),
        _ => None,
    };
    format!("{status} {}", code.unwrap_or_default()).trim_end().to_owned()
}

/// Whether it came to no request because nobody gave credentials.
fn lacks_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    find::<CredentialsError>(error).is_some()
}

/// Every cause in one line: the SDK's own text is only "dispatch failure".
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        next = cause.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_pass_is_told_from_what_can_not() {
        let class = |status, code| StoreError::from_answer("GetObject", status, code, "");
        for (status, code) in [
            (503, "SlowDown"),
            (503, ""),
            (500, "InternalError"),
            (200, "InternalError"),
            (429, ""),
            (409, "ConditionalRequestConflict"),
            (400, "RequestTimeout"),
            (400, "BadDigest"),
            (403, "ExpiredToken"),
            (403, "RequestTimeTooSkewed"),
            (400, "ExpiredToken"),
            (307, "TemporaryRedirect"),
        ] {
            assert!(class(status, code).is_transient(), "{status} {code}");
        }
        for (status, code) in [
            (404, "NoSuchKey"),
            (404, ""),
            (404, "NoSuchBucket"),
            (403, "AccessDenied"),
            (403, ""),
            (412, ""),
            (501, "NotImplemented"),
            (400, "EntityTooSmall"),
            (403, "InvalidObjectState"),
            (301, "PermanentRedirect"),
        ] {
            assert!(!class(status, code).is_transient(), "{status} {code}");
        }
        // In the body of an answer that says 200.
        assert!(matches!(class(200, "NoSuchUpload"), StoreError::NotFound { .. }));
        assert!(matches!(
            class(200, "PreconditionFailed"),
            StoreError::Precondition { .. }
        ));
        assert!(matches!(class(200, "AccessDenied"), StoreError::Denied { .. }));
    }
}
