//! The largest bodies that the daemon sends: one request with a whole file, and parts of an upload. All together a check
//! sends less than 40 MiB, so very large sizes are tried with less; all chunks of a body have one size in any case.

use bytesize::ByteSize;

use super::{Probe, Rows};
use crate::store::{Condition, ObjectKey};

/// Of one request with a whole file.
pub(super) const MOST_BODY: u64 = 17 << 20;
/// Of a part.
pub(super) const MOST_PART: u64 = 16 << 20;

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// As it was tried, and as it is configured where that is more.
fn tried(bytes: u64, configured: u64) -> String {
    if bytes == configured {
        size(bytes)
    } else {
        format!("{} (of {})", size(bytes), size(configured))
    }
}

fn body(bytes: u64) -> Vec<u8> {
    vec![b'.'; usize::try_from(bytes).unwrap_or(0)]
}

impl Probe<'_> {
    /// As large as a file may be that goes in one request.
    pub(super) fn large(&self, key: &ObjectKey, rows: &mut Rows) {
        let what = self.what("large body");
        let threshold = self.lane.options().plan.threshold;
        match self.write(key, Condition::None, &body(threshold)) {
            Ok(()) => rows.pass(
                what,
                format!("{} in one request", tried(threshold, self.configured.threshold)),
            ),
            Err(error) => rows.fail(what, error.to_string(), self.fix_of(&error, "s3:PutObject")),
        }
    }

    /// An upload of two parts, the first of which has the size of all. `whole_sums`: the store keeps checksums of whole
    /// objects that were put at once.
    pub(super) fn multipart(&self, key: &ObjectKey, whole_sums: bool, rows: &mut Rows) {
        let what = self.what("multipart");
        let plan = self.lane.options().plan;
        let bytes = plan.threshold.max(plan.part_size) + 1;
        if let Err(error) = self.write(key, Condition::None, &body(bytes)) {
            let fix = self.fix_of(&error, "s3:PutObject and s3:AbortMultipartUpload");
            return rows.fail(what, error.to_string(), fix);
        }
        let part = tried(plan.part_size, self.configured.part_size);
        rows.pass(
            what,
            format!("CreateMultipartUpload, UploadPart, CompleteMultipartUpload, parts of {part}"),
        );
        if !whole_sums {
            return;
        }
        let what = self.what("checksum of parts");
        match self.found(key) {
            Ok(found) if found.checksum.is_some() => {
                rows.pass(what, "the store makes that of the whole object of them")
            }
            Ok(_) => rows.warn(
                what,
                "the store keeps checksums of parts only where an object was uploaded in parts",
                "nothing needs to be done; restores are still compared with the record's",
            ),
            Err(error) => rows.warn(what, error.to_string(), self.fix_of(&error, "s3:GetObject")),
        }
    }
}
