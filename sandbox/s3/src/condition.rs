//! The preconditions of requests: `If-Match` and `If-None-Match`.

use s3s::dto::ETagCondition;
use s3s::{S3ErrorCode, S3Result};

use crate::dialects::Dialects;
use crate::error::refuse;
use crate::etag::Forms;
use crate::index::Object;

/// What a write demands of what is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    /// The form of the ETags that are compared with.
    forms: Forms,
}

impl Condition {
    pub(crate) fn new(
        dialects: &Dialects,
        if_match: Option<ETagCondition>,
        if_none_match: Option<ETagCondition>,
    ) -> Self {
        Self {
            if_match,
            if_none_match,
            forms: Forms::of(dialects),
        }
    }

    /// Refuses what the server does not do: any condition when it does none, and all but `*` of `If-None-Match`.
    pub(crate) fn check_supported(&self, conditional_writes: bool) -> S3Result<()> {
        let asked = self.if_match.is_some() || self.if_none_match.is_some();
        let any = self.if_none_match.as_ref().is_none_or(ETagCondition::is_any);
        if (asked && !conditional_writes) || !any {
            let message = "A header you provided implies functionality that is not implemented";
            return Err(refuse(S3ErrorCode::NotImplemented, message));
        }
        Ok(())
    }

    /// Whether a write may go ahead over `current`.
    pub(crate) fn check_write(&self, current: Option<&Object>) -> S3Result<()> {
        if self.if_none_match.is_some() && current.is_some() {
            return Err(failed("If-None-Match"));
        }
        match (&self.if_match, current) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(S3ErrorCode::NoSuchKey.into()),
            (Some(condition), Some(object)) if self.is_met(condition, object) => Ok(()),
            (Some(_), Some(_)) => Err(failed("If-Match")),
        }
    }

    /// Whether `object` may be read.
    pub(crate) fn check_read(&self, object: &Object) -> S3Result<()> {
        if self
            .if_match
            .as_ref()
            .is_some_and(|condition| !self.is_met(condition, object))
        {
            return Err(failed("If-Match"));
        }
        if self
            .if_none_match
            .as_ref()
            .is_some_and(|condition| self.is_met(condition, object))
        {
            return Err(S3ErrorCode::NotModified.into());
        }
        Ok(())
    }

    fn is_met(&self, condition: &ETagCondition, object: &Object) -> bool {
        let shown = self.forms.value(&object.etag);
        condition.as_etag().is_none_or(|etag| etag.value() == shown)
    }
}

fn failed(header: &str) -> s3s::S3Error {
    let message = format!("At least one of the pre-conditions you specified did not hold: {header}");
    refuse(S3ErrorCode::PreconditionFailed, message)
}
