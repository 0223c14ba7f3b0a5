//! Restore: an object's bytes come back into a file, proven by its checksum.

use std::fs::File;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};

use super::retry::{Activity, pace, retry};
use super::turns::Turns;
use super::{Control, Helpers, Lane, Part, Plan, PlanOptions, TransferError, parts, sparse};
use crate::store::{Checksum, Location, Store, StoreError};

/// Writes the object into the empty `file`, in parallel ranges, and compares the checksum of all of it.
/// The file has the object's size and is synced when this returns.
///
/// # Errors
/// [`StoreError::Precondition`]: the object is not the one that was archived.
pub fn download(
    lane: &Lane,
    helpers: &dyn Helpers,
    control: &Arc<Control>,
    file: &Arc<File>,
    from: &Location,
) -> Result<(), TransferError> {
    file.set_len(from.size).map_err(TransferError::Write)?;
    if from.size > 0 {
        let plan = Plan::new(
            from.size,
            PlanOptions {
                threshold: lane.options().plan.part_size,
                ..lane.options().plan
            },
        )?;
        let sums = ranges(lane, helpers, control, file, plan, from)?;
        let whole = plan.combine(sums);
        if let Some(expected) = from.checksum
            && expected != whole
        {
            return Err(TransferError::Checksum {
                what: format!(
                    "object {} was archived with CRC64NVME {}, its bytes now have {}",
                    from.key,
                    expected.to_base64(),
                    whole.to_base64()
                ),
            });
        }
    }
    // The C library's own fsync at the end reports a failure to the coordinator and 0 to us.
    file.sync_all().map_err(TransferError::Write)?;
    let size = file.metadata().map_err(TransferError::Write)?.len();
    if size != from.size {
        return Err(TransferError::Checksum {
            what: format!("the restored file has {size} bytes, the object {}", from.size),
        });
    }
    Ok(())
}

/// Reads all bytes of an object and compares their checksum, where the location has one; writes nothing.
///
/// # Errors
/// [`TransferError::Checksum`] when they are others.
pub fn verify(lane: &Lane, control: &Control, from: &Location) -> Result<(), TransferError> {
    let store = lane.store(from.archive_id)?;
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut done = 0;
    lane.block_on(retry(&lane.options().retry, control, pace(store), async |activity| {
        if done == from.size {
            return Ok(());
        }
        let version = from.version.as_deref();
        let mut body = store
            .get(&from.key, version, &from.etag, done, from.size - done)
            .await?;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            activity.wait_for(&store.limits().download, chunk.len() as u64).await;
            digest.update(&chunk);
            done += chunk.len() as u64;
            activity.note();
        }
        if done < from.size {
            return Err(StoreError::Unavailable {
                operation: "GetObject",
                what: format!("the body ended after {done} of {} bytes", from.size),
            }
            .into());
        }
        Ok(())
    }))?;
    let found = Checksum(digest.finalize());
    match from.checksum {
        Some(expected) if expected != found || done != from.size => Err(TransferError::Checksum {
            what: format!(
                "was archived with CRC64NVME {}, its bytes now have {}",
                expected.to_base64(),
                found.to_base64()
            ),
        }),
        _ => Ok(()),
    }
}

fn ranges(
    lane: &Lane,
    helpers: &dyn Helpers,
    control: &Arc<Control>,
    file: &Arc<File>,
    plan: Plan,
    from: &Location,
) -> Result<Vec<Checksum>, TransferError> {
    let (control, file, from) = (Arc::clone(control), Arc::clone(file), from.clone());
    let turns = Turns::new();
    parts::run(lane, helpers, true, plan.count(), move |lane, index| {
        let store = lane.store(from.archive_id)?;
        let mut range = Range::new(plan.part(index));
        // A broken connection costs what was under way: the next try goes on behind the last byte written.
        lane.block_on(retry(&lane.options().retry, &control, pace(store), async |activity| {
            range.receive(store, &from, &file, &turns, &control, &activity).await
        }))?;
        Ok(Checksum(range.digest.finalize()))
    })
}

/// One range and how far it is.
#[derive(Debug)]
struct Range {
    part: Part,
    done: u64,
    digest: Digest,
}

impl Range {
    fn new(part: Part) -> Self {
        Self {
            part,
            done: 0,
            digest: Digest::new(CrcAlgorithm::Crc64Nvme),
        }
    }

    async fn receive(
        &mut self,
        store: &Store,
        from: &Location,
        file: &File,
        turns: &Turns,
        control: &Control,
        activity: &Activity,
    ) -> Result<(), TransferError> {
        let length = self.part.length;
        if self.done == length {
            // Everything had come when the last try broke.
            return Ok(());
        }
        let mut body = store
            .get(
                &from.key,
                from.version.as_deref(),
                &from.etag,
                self.part.offset + self.done,
                length - self.done,
            )
            .await?;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let n = chunk.len() as u64;
            activity.wait_for(&store.limits().download, n).await;
            if self.done + n > length {
                return Err(corrupt("sent more than was asked for"));
            }
            turns
                .take(control, || sparse::write(file, self.part.offset + self.done, &chunk))?
                .map_err(TransferError::Write)?;
            self.digest.update(&chunk);
            self.done += n;
            control.add_moved(n);
            activity.note();
        }
        if self.done < length {
            return Err(StoreError::Unavailable {
                operation: "GetObject",
                what: format!("the body ended after {} of {length} bytes", self.done),
            }
            .into());
        }
        Ok(())
    }
}

fn corrupt(what: &str) -> TransferError {
    StoreError::Corrupt {
        operation: "GetObject",
        what: format!("the store {what}"),
    }
    .into()
}
