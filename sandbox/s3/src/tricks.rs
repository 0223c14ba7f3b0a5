//! Faults beyond plain refusals: answers that are not true, answers that never come, uploads that vanish, lists that
//! never end.

use s3s::dto::{CompleteMultipartUploadOutput, ETag, GetObjectOutput, PutObjectOutput, UploadPartOutput};
use s3s::{S3Error, S3ErrorCode};

use crate::faults::{Faults, matches};

/// The status by which the server knows a connection that is to be closed instead of answered.
pub(crate) const CUT: u16 = 599;

/// Of no object and no part.
const NO_ETAG: &str = "00000000000000000000000000000000";
/// Of no bytes at all.
const NO_CHECKSUM: &str = "AAAAAAAAAAA=";

/// What is done to a request or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    WrongETag,
    WrongChecksum,
    LostUpload,
    Reset,
    LostAnswer,
    Repeat,
}

/// A trick that is to be played so many times more.
#[derive(Debug)]
pub(crate) struct Planned {
    trick: Trick,
    op: String,
    times: u32,
}

impl Faults {
    /// The next `times` answers to `op` (`PutObject`, `UploadPart`, `CompleteMultipartUpload` or `GetObject`) name an
    /// `ETag` that nothing has.
    pub fn wrong_etag(&self, op: &str, times: u32) {
        self.plan(Trick::WrongETag, op, times);
    }

    /// The CRC64NVME in the next `times` answers to `op` (as for [`wrong_etag`](Self::wrong_etag)) is not that of the
    /// bytes.
    pub fn wrong_checksum(&self, op: &str, times: u32) {
        self.plan(Trick::WrongChecksum, op, times);
    }

    /// The multipart uploads that the next `times` requests of `op` (`UploadPart` or `CompleteMultipartUpload`) name
    /// vanish before they are served. A request for one that is gone does not count.
    pub fn lose_upload(&self, op: &str, times: u32) {
        self.plan(Trick::LostUpload, op, times);
    }

    /// The next `times` requests of `op` are not answered: their connections are closed while the body is sent.
    pub fn reset(&self, op: &str, times: u32) {
        self.plan(Trick::Reset, op, times);
    }

    /// The next `times` requests of `op` (`PutObject`, `UploadPart`, `CompleteMultipartUpload` or `DeleteObject`) are
    /// served, and their connections are closed instead of answered.
    pub fn lose_answer(&self, op: &str, times: u32) {
        self.plan(Trick::LostAnswer, op, times);
    }

    /// Each page of the list `op` (`ListObjectsV2`, `ListParts` or `ListMultipartUploads`) is the first one, and says
    /// that there are more.
    pub fn repeat(&self, op: &str) {
        self.plan(Trick::Repeat, op, u32::MAX);
    }

    fn plan(&self, trick: Trick, op: &str, times: u32) {
        let op = op.to_owned();
        self.state().tricks.push(Planned { trick, op, times });
    }

    /// Whether the trick is played on this request of `op`; counted.
    pub(crate) fn plays(&self, trick: Trick, op: &str) -> bool {
        let mut state = self.state();
        state.tricks.retain(|planned| planned.times > 0);
        let planned = state
            .tricks
            .iter_mut()
            .find(|planned| planned.trick == trick && matches(&planned.op, op));
        match planned {
            Some(planned) => {
                planned.times -= 1;
                true
            }
            None => false,
        }
    }

    /// The answer to `op` as the client gets to see it.
    pub(crate) fn bend(&self, op: &str, answer: &mut impl Answer) {
        if self.plays(Trick::WrongETag, op) {
            *answer.e_tag() = Some(ETag::Strong(NO_ETAG.to_owned()));
        }
        if self.plays(Trick::WrongChecksum, op) && answer.checksum().is_some() {
            *answer.checksum() = Some(NO_CHECKSUM.to_owned());
        }
    }
}

/// What makes the server close the connection.
pub(crate) fn cut() -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::InternalError, "Cut by a fault");
    if let Ok(status) = hyper::StatusCode::from_u16(CUT) {
        error.set_status_code(status);
    }
    error
}

/// Whether an error is that one.
pub(crate) fn is_cut(error: &S3Error) -> bool {
    error.status_code().is_some_and(|status| status.as_u16() == CUT)
}

/// An answer that names what was stored.
pub(crate) trait Answer {
    fn e_tag(&mut self) -> &mut Option<ETag>;
    fn checksum(&mut self) -> &mut Option<String>;
}

macro_rules! answers {
    ($($output:ty),*) => {$(
        impl Answer for $output {
            fn e_tag(&mut self) -> &mut Option<ETag> {
                &mut self.e_tag
            }
            fn checksum(&mut self) -> &mut Option<String> {
                &mut self.checksum_crc64nvme
            }
        }
    )*};
}
answers!(
    PutObjectOutput,
    UploadPartOutput,
    CompleteMultipartUploadOutput,
    GetObjectOutput
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trick_is_played_as_often_as_asked_and_on_its_operation_only() {
        let faults = Faults::default();
        faults.wrong_etag("PutObject", 1);
        faults.repeat("ListParts");
        assert!(!faults.plays(Trick::WrongETag, "UploadPart"));
        assert!(!faults.plays(Trick::WrongChecksum, "PutObject"));
        assert!(faults.plays(Trick::WrongETag, "PutObject"));
        assert!(!faults.plays(Trick::WrongETag, "PutObject"));
        assert!((0..1000).all(|_| faults.plays(Trick::Repeat, "ListParts")));
        faults.clear();
        assert!(!faults.plays(Trick::Repeat, "ListParts"));
    }

    #[test]
    fn a_checksum_is_wrong_only_where_there_is_one() {
        let faults = Faults::default();
        faults.wrong_checksum("PutObject", 2);
        let mut answer = PutObjectOutput::default();
        faults.bend("PutObject", &mut answer);
        assert_eq!(answer.checksum_crc64nvme, None);
        answer.checksum_crc64nvme = Some("AAAAAAAAAAE=".to_owned());
        faults.bend("PutObject", &mut answer);
        assert_eq!(answer.checksum_crc64nvme.as_deref(), Some(NO_CHECKSUM));
    }
}
