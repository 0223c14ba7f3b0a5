//! One archive's store: permission by permission, and what it makes of all that the daemon will ask, with objects of its
//! own that are gone at the end.

mod conditions;
mod keys;
mod objects;
mod sizes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Rows;
use crate::config::Settings;
use crate::store::{
    COOKIE, Condition, ListFrom, ObjectInfo, ObjectKey, Query, StartError, StoreError, Target, TargetOptions,
};
use crate::transfer::{Bearer, Control, Lane, PlanOptions, RetryOptions, Transfer, TransferError, TransferOptions};
use crate::types::ArchiveId;

/// Longer than a store takes that works.
const PATIENCE: Duration = Duration::from_secs(10);
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
            threshold: settings.transfer.plan.threshold.min(sizes::MOST_BODY),
            part_size: settings.transfer.plan.part_size.min(sizes::MOST_PART),
        },
        retry: RetryOptions {
            stall: PATIENCE,
            give_up_after: settings.transfer.retry.give_up_after.min(PATIENCE),
            ..settings.transfer.retry
        },
        ..settings.transfer
    };
    match Lane::new(&[Arc::clone(&target)], quick) {
        Ok(lane) => Probe {
            archive,
            archive_id: options.archive_id,
            options,
            configured: settings.transfer.plan,
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
    /// How the daemon cuts files; the lane here sends no more than it has to.
    configured: PlanOptions,
    lane: Lane,
    control: Arc<Control>,
}

impl Probe<'_> {
    fn run(&self, rows: &mut Rows) {
        let name = format!("{}.lhsmtool-s3-check-{:016x}", self.options.prefix, fastrand::u64(..));
        let Ok(key) = ObjectKey::new(&name) else {
            let fix = "shorten `prefix`";
            return rows.fail(
                format!("{} put", self.archive),
                "the prefix leaves no room for a key",
                fix,
            );
        };
        let can_list = self.list(rows);
        let mut whole_sums = false;
        match self.write(&key, Condition::None, objects::BODY) {
            Ok(()) => {
                rows.pass(self.what("put"), "PutObject");
                self.get(&key, rows);
                whole_sums = self.told(&key, rows);
                self.conditions(rows);
                self.copy(&key, rows);
                self.lock(rows);
                if can_list {
                    self.keys(&name, rows);
                }
                self.large(&key, rows);
            }
            Err(error) => {
                rows.fail(self.what("put"), error.to_string(), self.fix_of(&error, "s3:PutObject"));
                // A store that is away would be away for all the rest, too.
                if !matches!(error, TransferError::Store(StoreError::Denied { .. })) {
                    return;
                }
            }
        }
        self.multipart(&key, whole_sums, rows);
        self.delete(&key, rows);
        self.habits(rows);
    }

    fn transfer(&self) -> Transfer<'_> {
        Transfer::new(&self.lane, &self.control)
    }

    fn what(&self, of: &str) -> String {
        format!("{} {of}", self.archive)
    }

    fn write(&self, key: &ObjectKey, condition: Condition, body: &[u8]) -> Result<(), TransferError> {
        let metadata = HashMap::from([(COOKIE.to_owned(), "check".to_owned())]);
        self.transfer()
            .put_bytes(key.at(self.archive_id), condition, body, metadata)
    }

    fn found(&self, key: &ObjectKey) -> Result<ObjectInfo, TransferError> {
        self.transfer().head(key.at(self.archive_id), None)
    }

    /// Whether anything can be listed.
    fn list(&self, rows: &mut Rows) -> bool {
        let from = ListFrom::Start;
        let query = Query {
            limit: 1,
            ..Query::below(&self.options.prefix, &from)
        };
        match self.transfer().list(self.archive_id, query) {
            Ok(_) => rows.pass(self.what("list"), "ListObjectsV2"),
            Err(error) => {
                let mut fix = String::from("allow s3:ListBucket: import, scrub and the clean-up of uploads need it");
                fix.push_str(self.payer_of(&error));
                rows.warn(self.what("list"), error.to_string(), fix);
                return false;
            }
        }
        true
    }

    fn delete(&self, key: &ObjectKey, rows: &mut Rows) {
        let what = self.what("delete");
        let Ok(found) = self.found(key) else {
            return;
        };
        match self.remove(key, &found) {
            Ok(()) => rows.pass(what, "DeleteObject"),
            Err(error) => rows.fail(
                what,
                format!("{error}; '{key}' is left"),
                self.fix_of(
                    &error,
                    "s3:DeleteObject (and s3:DeleteObjectVersion where versions are kept)",
                ),
            ),
        }
    }

    fn remove(&self, key: &ObjectKey, found: &ObjectInfo) -> Result<(), TransferError> {
        self.transfer()
            .delete(Bearer::Nobody, &found.at(key.at(self.archive_id)), |_, _| true)
    }

    /// What was learned of the store meanwhile, and is done otherwise from now on.
    fn habits(&self, rows: &mut Rows) {
        let Ok(store) = self.lane.store(self.archive_id) else {
            return;
        };
        let what = self.what("dialect");
        let names = store.quirks().names();
        if names.is_empty() {
            rows.pass(what, "as S3");
        } else {
            let fix = "nothing needs to be done: it is learned anew by each daemon (docs/stores.md has what follows)";
            rows.warn(what, names.join(", "), fix);
        }
    }

    fn fix_of(&self, error: &TransferError, permission: &str) -> String {
        match error {
            TransferError::Store(StoreError::Denied { .. }) => format!(
                "allow {permission} on the bucket's objects (docs/permissions.md has the policy){}",
                self.payer_of(error)
            ),
            TransferError::GaveUp { .. } | TransferError::Store(StoreError::Unavailable { .. }) => {
                "the store does not answer: look at `endpoint_url`, the network, the proxy".into()
            }
            TransferError::Store(StoreError::Unsupported { .. }) => {
                "leave out what the store does not know (`tags`, `acl`, `encryption`, `storage_class`), if it is that"
                    .into()
            }
            _ => "see what the store says; its log has more".into(),
        }
    }

    /// Nothing in a 403 tells that it is about money.
    fn payer_of(&self, error: &TransferError) -> &'static str {
        let denied = matches!(error, TransferError::Store(StoreError::Denied { .. }));
        if denied && !self.options.requester_pays {
            "; where the bucket's owner lets those pay who ask: `requester_pays = true`"
        } else {
            ""
        }
    }
}
