//! One archive's store, permission by permission, with an object of its own that is gone at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Rows;
use crate::config::Settings;
use crate::store::{COOKIE, Condition, ListFrom, ObjectKey, Query, StartError, StoreError, Target, TargetOptions};
use crate::transfer::{
    Control, Lane, PlanOptions, RetryOptions, TransferError, TransferOptions, copy, delete, get_bytes, head, list,
    put_bytes,
};
use crate::types::ArchiveId;

/// Longer than a store takes that works.
const PATIENCE: Duration = Duration::from_secs(10);
const PART: u64 = 5 << 20;
/// A clock that is further off than S3 takes (15 min), and one that is about to be.
const SKEW: Duration = Duration::from_secs(900);
const SOME_SKEW: Duration = Duration::from_secs(60);

pub(super) fn check(options: &TargetOptions, settings: &Settings, runtime: &tokio::runtime::Runtime, rows: &mut Rows) {
    let archive = format!("archive {}", options.archive_id);
    let target = match runtime.block_on(Target::resolve(options.clone())) {
        Ok(target) => Arc::new(target),
        Err(error) => {
            let fix =
                "set the keys, a `profile` or a `region` in its [[archive]] section, or run where a role gives them";
            return rows.fail(format!("{archive} credentials"), error.to_string(), fix);
        }
    };
    rows.pass(format!("{archive} credentials"), "found");
    match runtime.block_on(target.check(PATIENCE)) {
        Ok(()) => {}
        Err(error @ StartError::Credentials { .. }) => {
            let fix = "correct the keys; the store does not take them";
            return rows.fail(format!("{archive} credentials"), error.to_string(), fix);
        }
        Err(error) => {
            let fix = "create the bucket, or correct `bucket`, `region`, `endpoint_url` in its section";
            return rows.fail(format!("{archive} bucket"), error.to_string(), fix);
        }
    }
    let quick = TransferOptions {
        plan: PlanOptions {
            threshold: PART,
            part_size: PART,
        },
        retry: RetryOptions {
            stall: PATIENCE,
            give_up_after: PATIENCE,
            ..settings.transfer.retry
        },
        ..settings.transfer
    };
    match Lane::new(&[Arc::clone(&target)], quick) {
        Ok(lane) => Probe {
            archive,
            archive_id: options.archive_id,
            options,
            lane,
            control: Arc::default(),
        }
        .run(rows),
        Err(error) => rows.fail(
            archive,
            error.to_string(),
            "this node has no more threads or descriptors",
        ),
    }
    clock(options, &target, rows);
}

/// As the store's answers have the time.
fn clock(options: &TargetOptions, target: &Target, rows: &mut Rows) {
    let what = format!("archive {} clock", options.archive_id);
    let Some(ahead) = target.requests().clock_offset() else {
        return;
    };
    let off = Duration::from_secs(ahead.unsigned_abs());
    let found = format!("the store's is {ahead} s ahead of this node's");
    let fix = "set the clock: systemctl start chronyd, or timedatectl set-ntp true";
    if off >= SKEW {
        rows.fail(what, format!("{found}: it refuses requests"), fix);
    } else if off >= SOME_SKEW {
        rows.warn(what, found, fix);
    } else {
        rows.pass(what, "agrees with the store's");
    }
}

struct Probe<'a> {
    archive: String,
    archive_id: ArchiveId,
    options: &'a TargetOptions,
    lane: Lane,
    control: Arc<Control>,
}

impl Probe<'_> {
    fn run(&self, rows: &mut Rows) {
        let name = format!("{}.lhsmtool-s3-check-{:016x}", self.options.prefix, fastrand::u64(..));
        let Ok(key) = ObjectKey::new(name) else {
            let fix = "shorten `prefix`";
            return rows.fail(
                format!("{} put", self.archive),
                "the prefix leaves no room for a key",
                fix,
            );
        };
        self.list(rows);
        match self.write(&key, Condition::None, b"lhsmtool-s3 check") {
            Ok(()) => {
                rows.pass(self.what("put"), "PutObject");
                self.get(&key, rows);
                self.conditions(&key, rows);
                self.copy(&key, rows);
            }
            Err(error) => {
                rows.fail(self.what("put"), error.to_string(), fix_of(&error, "s3:PutObject"));
                // A store that is away would be away for all the rest, too.
                if !matches!(error, TransferError::Store(StoreError::Denied { .. })) {
                    return;
                }
            }
        }
        self.multipart(&key, rows);
        self.delete(&key, rows);
    }

    fn what(&self, of: &str) -> String {
        format!("{} {of}", self.archive)
    }

    fn write(&self, key: &ObjectKey, condition: Condition, body: &[u8]) -> Result<(), TransferError> {
        let metadata = HashMap::from([(COOKIE.to_owned(), "check".to_owned())]);
        put_bytes(
            &self.lane,
            &self.control,
            self.archive_id,
            (key, condition),
            body,
            metadata,
        )
    }

    fn list(&self, rows: &mut Rows) {
        let from = ListFrom::Start;
        let query = Query {
            limit: 1,
            ..Query::below(&self.options.prefix, &from)
        };
        match list(&self.lane, &self.control, self.archive_id, query) {
            Ok(_) => rows.pass(self.what("list"), "ListObjectsV2"),
            Err(error) => rows.warn(
                self.what("list"),
                error.to_string(),
                "allow s3:ListBucket: import, scrub and the clean-up of uploads need it",
            ),
        }
    }

    fn get(&self, key: &ObjectKey, rows: &mut Rows) {
        match get_bytes(&self.lane, &self.control, self.archive_id, key) {
            Ok(body) if body == b"lhsmtool-s3 check" => rows.pass(self.what("get"), "GetObject, HeadObject"),
            Ok(_) => rows.fail(
                self.what("get"),
                "other bytes came back than were written",
                "something between here and the store changes bodies: a proxy, a gateway",
            ),
            Err(error) => rows.fail(self.what("get"), error.to_string(), fix_of(&error, "s3:GetObject")),
        }
        let Ok(found) = head(&self.lane, &self.control, self.archive_id, key, None) else {
            return;
        };
        match found.checksum {
            Some(_) => rows.pass(self.what("checksum"), "the store keeps CRC64NVME of whole objects"),
            None => rows.warn(
                self.what("checksum"),
                "the store keeps no CRC64NVME: our records have one, but an object can't be told by it",
                "nothing needs to be done; restores are still compared with the record's",
            ),
        }
        match found.version {
            Some(_) => rows.pass(
                self.what("versioning"),
                "on: former copies stay until a lifecycle rule removes them",
            ),
            None => rows.pass(
                self.what("versioning"),
                "off: a file that is archived again overwrites its former copy",
            ),
        }
    }

    fn conditions(&self, key: &ObjectKey, rows: &mut Rows) {
        const FIX: &str = "a store without If-None-Match is looked at before each first write; \
                           let no other program write below this prefix";
        let what = self.what("conditional writes");
        match self.write(key, Condition::Absent, b"again") {
            Err(TransferError::Store(StoreError::Precondition { .. })) => rows.pass(what, "If-None-Match is heeded"),
            Ok(()) => rows.warn(what, "If-None-Match is ignored: the key was overwritten", FIX),
            Err(error) => rows.warn(what, error.to_string(), FIX),
        }
    }

    fn copy(&self, key: &ObjectKey, rows: &mut Rows) {
        let what = self.what("copy");
        let Ok(found) = head(&self.lane, &self.control, self.archive_id, key, None) else {
            return;
        };
        let from = found.at(self.archive_id, key);
        let to = (key, &Condition::None);
        let metadata = HashMap::from([(COOKIE.to_owned(), "copied".to_owned())]);
        match copy(&self.lane, &self.control, &from, to, &metadata) {
            Ok(_) => rows.pass(what, "CopyObject"),
            Err(error) => rows.warn(
                what,
                error.to_string(),
                "only `export --follow --propagate rename,attr` needs it",
            ),
        }
    }

    fn multipart(&self, key: &ObjectKey, rows: &mut Rows) {
        let body = vec![0u8; usize::try_from(PART).unwrap_or(0) + 1];
        match self.write(key, Condition::None, &body) {
            Ok(()) => rows.pass(
                self.what("multipart"),
                "CreateMultipartUpload, UploadPart, CompleteMultipartUpload",
            ),
            Err(error) => rows.fail(
                self.what("multipart"),
                error.to_string(),
                fix_of(&error, "s3:PutObject and s3:AbortMultipartUpload"),
            ),
        }
    }

    fn delete(&self, key: &ObjectKey, rows: &mut Rows) {
        let what = self.what("delete");
        let location = match head(&self.lane, &self.control, self.archive_id, key, None) {
            Ok(found) => found.at(self.archive_id, key),
            Err(_) => return,
        };
        match delete(&self.lane, &self.control, &location, |_, _| true) {
            Ok(()) => rows.pass(what, "DeleteObject"),
            Err(error) => rows.fail(
                what,
                format!("{error}; '{key}' is left"),
                fix_of(
                    &error,
                    "s3:DeleteObject (and s3:DeleteObjectVersion where versions are kept)",
                ),
            ),
        }
    }
}

fn fix_of(error: &TransferError, permission: &str) -> String {
    match error {
        TransferError::Store(StoreError::Denied { .. }) => {
            format!("allow {permission} on the bucket's objects (docs/permissions.md has the policy)")
        }
        TransferError::GaveUp { .. } | TransferError::Store(StoreError::Unavailable { .. }) => {
            "the store does not answer: look at `endpoint_url`, the network, the proxy".into()
        }
        _ => "see what the store says; its log has more".into(),
    }
}
