//! The one table that turns what happened into what the coordinator is told.

use super::JobError;
use crate::action::{HsmError, Verdict};
use crate::store::StoreError;
use crate::transfer::{Stop, TransferError};
use crate::types::{ErrorClass, HsmErrno};

/// The answer for a failed action. Retries live in this daemon: the flag is for sites whose MDT policy
/// allows them. Never ENOSYS; ECANCELED only after a CANCEL, for unasked it is recorded as a success.
#[must_use]
pub fn verdict(error: &JobError) -> Verdict {
    match error {
        JobError::Hsm(error) => hsm(error),
        JobError::Transfer(error) => transfer(error),
        JobError::Location(_) => Verdict::failed(HsmErrno::EIO),
        JobError::Attributes(error) => io(error),
        JobError::NotRegular | JobError::NoArchiveId | JobError::PartialExtent { .. } | JobError::UnknownAction(_) => {
            Verdict::failed(HsmErrno::EINVAL)
        }
        JobError::NoCopy { .. } => Verdict::failed(HsmErrno::ENOENT),
        JobError::NoFreeKey(_) => Verdict::failed(HsmErrno::EEXIST),
        JobError::TakenAway(_) => Verdict::try_again(HsmErrno::EBUSY),
        JobError::StillOpen | JobError::Panic(_) => Verdict::failed(HsmErrno::EIO),
        JobError::Released | JobError::RestoredElsewhere => Verdict::failed(HsmErrno::EALREADY),
    }
}

/// Lustre says ECANCELED only for an action whose cancel it accepted, and waits for just that answer.
fn hsm(error: &HsmError) -> Verdict {
    match error.class() {
        ErrorClass::Cancelled => Verdict::Cancelled,
        _ => Verdict::failed(HsmErrno::from_raw(error.errno)),
    }
}

fn io(error: &std::io::Error) -> Verdict {
    Verdict::failed(error.raw_os_error().map_or(HsmErrno::EIO, HsmErrno::from_raw))
}

fn transfer(error: &TransferError) -> Verdict {
    match error {
        TransferError::Read(error) | TransferError::Write(error) => io(error),
        TransferError::Announcement(error) => hsm(error),
        TransferError::Changed => Verdict::failed(HsmErrno::EBUSY),
        TransferError::TooLarge(_) => Verdict::failed(HsmErrno::EFBIG),
        TransferError::Key(_) | TransferError::NoTarget(_) => Verdict::failed(HsmErrno::EINVAL),
        TransferError::Checksum { .. } | TransferError::Panic => Verdict::failed(HsmErrno::EIO),
        TransferError::Store(error) => store(error),
        TransferError::GaveUp { .. } => Verdict::try_again(HsmErrno::ETIMEDOUT),
        TransferError::Stopped(Stop::Cancelled) => Verdict::Cancelled,
        // What is handed on gets no answer here.
        TransferError::Stopped(Stop::SentAgain | Stop::Forgotten | Stop::Shutdown | Stop::HandOn) => {
            Verdict::try_again(HsmErrno::ESHUTDOWN)
        }
    }
}

fn store(error: &StoreError) -> Verdict {
    match error {
        StoreError::NotFound { .. } => Verdict::failed(HsmErrno::ENOENT),
        // It says nothing of the object, which may be well where it is.
        StoreError::NoSuchBucket { .. } => Verdict::failed(HsmErrno::EIO),
        StoreError::Precondition { .. } => Verdict::failed(HsmErrno::ESTALE),
        StoreError::Denied { .. } => Verdict::failed(HsmErrno::EACCES),
        StoreError::Frozen { .. } => Verdict::try_again(HsmErrno::ETIMEDOUT),
        StoreError::Unsupported { .. } | StoreError::Refused { .. } => Verdict::failed(HsmErrno::EINVAL),
        StoreError::Corrupt { .. } | StoreError::RangeIgnored { .. } => Verdict::failed(HsmErrno::EIO),
        StoreError::Throttled { .. }
        | StoreError::Unavailable { .. }
        | StoreError::Stalled { .. }
        | StoreError::NotS3 { .. }
        | StoreError::Learned { .. } => Verdict::try_again(HsmErrno::ETIMEDOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::InvalidKey;
    use crate::transfer::PlanError;

    fn errno(n: i32) -> std::io::Error {
        std::io::Error::from_raw_os_error(n)
    }

    /// The whole table: a new variant without a row does not compile above and is missed here.
    #[test]
    fn the_table_of_verdicts_is_as_promised() {
        let op = "GetObject";
        let text = String::new;
        let store = |error| JobError::Transfer(TransferError::Store(error));
        let stopped = |stop| JobError::Transfer(TransferError::Stopped(stop));
        let table = [
            (
                JobError::Hsm(HsmError::new("begin", libc::ENOENT)),
                "failed (ENOENT)",
                false,
            ),
            (
                JobError::Hsm(HsmError::new("begin", libc::ENOSYS)),
                "failed (EIO)",
                false,
            ),
            (
                JobError::Hsm(HsmError::new("progress", libc::ECANCELED)),
                "cancelled",
                false,
            ),
            (JobError::Hsm(HsmError::new("begin", 512)), "failed (EIO)", false),
            (
                JobError::Location(crate::store::InvalidLocation::Format(9)),
                "failed (EIO)",
                false,
            ),
            (JobError::Attributes(errno(libc::ESTALE)), "failed (ESTALE)", false),
            (JobError::NotRegular, "failed (EINVAL)", false),
            (JobError::NoArchiveId, "failed (EINVAL)", false),
            (
                JobError::PartialExtent { offset: 1, length: 1 },
                "failed (EINVAL)",
                false,
            ),
            (JobError::UnknownAction(99), "failed (EINVAL)", false),
            (JobError::NoCopy { tried: text() }, "failed (ENOENT)", false),
            (JobError::NoFreeKey(text()), "failed (EEXIST)", false),
            (JobError::StillOpen, "failed (EIO)", false),
            (JobError::Panic(text()), "failed (EIO)", false),
            (
                JobError::Transfer(TransferError::Read(errno(libc::EIO))),
                "failed (EIO)",
                false,
            ),
            (
                JobError::Transfer(TransferError::Write(errno(libc::ENOSPC))),
                "failed (ENOSPC)",
                false,
            ),
            (
                JobError::Transfer(TransferError::Write(errno(libc::EDQUOT))),
                "failed (EDQUOT)",
                false,
            ),
            (JobError::Transfer(TransferError::Changed), "failed (EBUSY)", false),
            (JobError::Transfer(PlanError(u64::MAX).into()), "failed (EFBIG)", false),
            (JobError::Transfer(InvalidKey::Empty.into()), "failed (EINVAL)", false),
            (JobError::Transfer(TransferError::NoTarget(9)), "failed (EINVAL)", false),
            (
                JobError::Transfer(TransferError::Checksum { what: text() }),
                "failed (EIO)",
                false,
            ),
            (
                JobError::Transfer(TransferError::GaveUp {
                    seconds: 1,
                    last: StoreError::Stalled { seconds: 1 },
                }),
                "failed (ETIMEDOUT)",
                true,
            ),
            (JobError::Transfer(TransferError::Panic), "failed (EIO)", false),
            (JobError::Released, "failed (EALREADY)", false),
            (JobError::RestoredElsewhere, "failed (EALREADY)", false),
            (stopped(Stop::Cancelled), "cancelled", false),
            (stopped(Stop::Forgotten), "failed (ESHUTDOWN)", true),
            (stopped(Stop::Shutdown), "failed (ESHUTDOWN)", true),
            (
                store(StoreError::NotFound {
                    operation: op,
                    code: text(),
                }),
                "failed (ENOENT)",
                false,
            ),
            (store(StoreError::NoSuchBucket { operation: op }), "failed (EIO)", false),
            (
                store(StoreError::Precondition { operation: op }),
                "failed (ESTALE)",
                false,
            ),
            (
                store(StoreError::Denied {
                    operation: op,
                    code: text(),
                    message: text(),
                }),
                "failed (EACCES)",
                false,
            ),
            (store(StoreError::Frozen { operation: op }), "failed (ETIMEDOUT)", true),
            (
                store(StoreError::Unsupported {
                    operation: op,
                    code: text(),
                }),
                "failed (EINVAL)",
                false,
            ),
            (
                store(StoreError::Refused {
                    operation: op,
                    status: 400,
                    code: text(),
                    message: text(),
                }),
                "failed (EINVAL)",
                false,
            ),
            (
                store(StoreError::Corrupt {
                    operation: op,
                    what: text(),
                }),
                "failed (EIO)",
                false,
            ),
            (
                store(StoreError::Throttled {
                    operation: op,
                    code: text(),
                }),
                "failed (ETIMEDOUT)",
                true,
            ),
            (
                store(StoreError::Unavailable {
                    operation: op,
                    what: text(),
                }),
                "failed (ETIMEDOUT)",
                true,
            ),
            (store(StoreError::Stalled { seconds: 1 }), "failed (ETIMEDOUT)", true),
            (
                store(StoreError::NotS3 {
                    operation: op,
                    what: text(),
                }),
                "failed (ETIMEDOUT)",
                true,
            ),
            (store(StoreError::RangeIgnored { operation: op }), "failed (EIO)", false),
            (
                store(StoreError::Learned {
                    operation: op,
                    what: text(),
                }),
                "failed (ETIMEDOUT)",
                true,
            ),
        ];
        for (error, text, retry) in table {
            let verdict = verdict(&error);
            assert_eq!(verdict.to_string(), text, "{error:?}");
            let flag = matches!(verdict, Verdict::Failed { retry: true, .. });
            assert_eq!(flag, retry, "{error:?}");
        }
    }
}
