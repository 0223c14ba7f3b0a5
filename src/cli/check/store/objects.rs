//! One small object: its bytes, a range of them, and what is told of it.

use std::collections::HashMap;

use super::{Probe, Rows};
use crate::store::{Algorithm, COOKIE, ChecksumKind, Condition, Location, ObjectInfo, ObjectKey, StoreError};
use crate::transfer::TransferError;

pub(super) const BODY: &[u8] = b"lhsmtool-s3 check";
/// Of these, some in the middle, and where they begin.
const MIDDLE: &[u8] = b"tool-s3";
const FIRST: u64 = 4;
/// Of no object.
const OTHER: &str = "\"00000000000000000000000000000000\"";

impl Probe<'_> {
    pub(super) fn get(&self, key: &ObjectKey, rows: &mut Rows) {
        let what = self.what("get");
        match self.transfer().get_bytes(key.at(self.archive_id)) {
            Ok(body) if body == BODY => {
                rows.pass(what, "GetObject, HeadObject");
                self.range(key, rows);
            }
            Ok(_) => rows.fail(
                what,
                "other bytes came back than were written",
                "something between here and the store changes bodies: a proxy, a gateway",
            ),
            Err(error) => rows.fail(what, error.to_string(), self.fix_of(&error, "s3:GetObject")),
        }
    }

    /// Large files are restored in ranges, and what breaks goes on by one.
    fn range(&self, key: &ObjectKey, rows: &mut Rows) {
        let what = self.what("range");
        let Ok(found) = self.found(key) else {
            return;
        };
        let from = found.at(key.at(self.archive_id));
        match self.transfer().get_range(&from, FIRST, MIDDLE.len() as u64) {
            Ok(bytes) if bytes == MIDDLE => rows.pass(what, "GetObject with Range"),
            Err(TransferError::Store(error @ StoreError::RangeIgnored { .. })) => rows.warn(
                what,
                error.to_string(),
                "nothing needs to be done: objects are read whole, from their beginning, each on one connection",
            ),
            Ok(_) => rows.fail(what, "other bytes came than were asked for", BROKEN_RANGES),
            Err(error) => rows.fail(what, error.to_string(), BROKEN_RANGES),
        }
    }

    /// What a HEAD tells; whether the store has the checksum of a whole object.
    pub(super) fn told(&self, key: &ObjectKey, rows: &mut Rows) -> bool {
        let Ok(found) = self.found(key) else {
            return false;
        };
        let what = self.what("checksum");
        let kept = is_kept(self.options.checksum, &found);
        match (self.options.checksum, kept) {
            (ChecksumKind::None, _) => rows.pass(what, "none is asked for (checksum = \"none\")"),
            (ChecksumKind::Crc64Nvme, true) => rows.pass(what, "the store keeps CRC64NVME of whole objects"),
            (ChecksumKind::Crc64Nvme, false) => rows.warn(
                what,
                "the store keeps no CRC64NVME: our records have one, but an object can't be told by it",
                "nothing needs to be done; restores are still compared with the record's",
            ),
            (ChecksumKind::Crc32c | ChecksumKind::Sha256, true) => {
                rows.pass(what, "the store keeps the one that is sent, and tells it");
            }
            (ChecksumKind::Crc32c | ChecksumKind::Sha256, false) => rows.warn(
                what,
                "the store does not tell the checksum that was sent",
                "nothing needs to be done; restores are still compared with the record's CRC64NVME",
            ),
        }
        rows.pass(
            self.what("versioning"),
            match found.version {
                Some(_) => "on: former copies stay until a lifecycle rule removes them",
                None => "off: a file that is archived again overwrites its former copy",
            },
        );
        let what = self.what("expiry");
        match &found.expires {
            None => rows.pass(what, "no lifecycle rule takes away what was just written"),
            Some(expiry) => rows.warn(
                what,
                format!("what was just written {expiry}"),
                "copies below this prefix go away with it: take the rule off the prefix; 'scrub' finds those that it has",
            ),
        }
        if self.options.requester_pays {
            rows.pass(
                self.what("requester pays"),
                "x-amz-request-payer is sent with each request",
            );
        }
        kept && self.options.checksum == ChecksumKind::Crc64Nvme
    }

    pub(super) fn copy(&self, key: &ObjectKey, rows: &mut Rows) {
        const FIX: &str = "only `export --follow --propagate rename,attr` and `scrub --repair` need it";
        let what = self.what("copy");
        let Ok(found) = self.found(key) else {
            return;
        };
        let from = found.at(key.at(self.archive_id));
        let copied = |from: &Location, condition: &Condition| {
            let metadata = HashMap::from([(COOKIE.to_owned(), "copied".to_owned())]);
            self.transfer().copy(from, key, condition, &metadata)
        };
        let now = match copied(&from, &Condition::None) {
            Ok(now) => now,
            Err(error) => return rows.warn(what, error.to_string(), FIX),
        };
        rows.pass(what, "CopyObject");
        let mut other = now.clone();
        other.etag = OTHER.into();
        let tried = [
            ("If-None-Match", copied(&now, &Condition::Absent)),
            ("x-amz-copy-source-if-match", copied(&other, &Condition::None)),
        ];
        let mut wrong = Vec::new();
        for (name, result) in tried {
            match result {
                Err(TransferError::Store(StoreError::Precondition { .. })) => {}
                Ok(_) => wrong.push(format!("{name} is ignored")),
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
        let what = self.what("conditions of a copy");
        if wrong.is_empty() {
            rows.pass(what, "If-None-Match and x-amz-copy-source-if-match are heeded");
        } else {
            let fix = "`export --follow` moves nothing and changes no metadata there; the daemon copies nothing";
            rows.warn(what, wrong.join("; "), fix);
        }
    }

    /// What keeps copies from being removed.
    pub(super) fn lock(&self, rows: &mut Rows) {
        let what = self.what("object lock");
        let Ok(store) = self.lane.store(self.archive_id) else {
            return;
        };
        let asked = async { tokio::time::timeout(super::PATIENCE, Box::pin(store.retention())).await };
        match self.lane.block_on(asked) {
            Ok(Ok(None)) => rows.pass(what, "no retention is set on the bucket"),
            Ok(Ok(Some(retention))) => rows.warn(
                what,
                format!("each new object is kept: {retention}"),
                "removed and replaced copies take their space until then; leave it, or take the default retention off",
            ),
            Ok(Err(StoreError::Denied { .. })) => {
                rows.pass(what, "may not be asked (s3:GetBucketObjectLockConfiguration)");
            }
            Ok(Err(_)) | Err(_) => rows.pass(what, "the store does not tell"),
        }
    }
}

const BROKEN_RANGES: &str = "files above `part_size` can't be restored from it: look for a proxy or gateway that changes \
                             ranges, or set `part_size` above the largest file";

/// Whether a HEAD tells the checksum that writes carry.
fn is_kept(kind: ChecksumKind, found: &ObjectInfo) -> bool {
    let has = |algorithm| {
        let mut told = found.evidence.iter();
        told.any(|evidence| evidence.algorithm == algorithm && !evidence.is_etag)
    };
    match kind {
        ChecksumKind::Crc64Nvme => found.checksum.is_some(),
        ChecksumKind::Crc32c => has(Algorithm::Crc32c),
        ChecksumKind::Sha256 => has(Algorithm::Sha256),
        ChecksumKind::None => false,
    }
}
