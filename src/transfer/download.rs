//! Restore: an object's bytes come back into a file, proven by its checksum.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::retry::{Activity, retry};
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
    let found = receive_whole(lane, control, from, |_, _| Ok(()))?;
    match from.checksum {
        Some(expected) if expected != found => Err(TransferError::Checksum {
            what: format!(
                "was archived with CRC64NVME {}, its bytes now have {}",
                expected.to_base64(),
                found.to_base64()
            ),
        }),
        _ => Ok(()),
    }
}

/// The bytes of a small object.
///
/// # Errors
/// [`StoreError::Precondition`] when the object is not the one at the location.
pub fn read_small(lane: &Lane, control: &Control, from: &Location) -> Result<Vec<u8>, TransferError> {
    let mut bytes = Vec::new();
    receive_whole(lane, control, from, |_, chunk| {
        bytes.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok(bytes)
}

/// One range after all, on this thread.
fn receive_whole(
    lane: &Lane,
    control: &Control,
    from: &Location,
    mut write: impl FnMut(u64, &Bytes) -> Result<(), TransferError>,
) -> Result<Checksum, TransferError> {
    let store = lane.store(from.archive_id)?;
    let mut range = Range::new(Part {
        offset: 0,
        length: from.size,
    });
    lane.block_on(retry(
        &lane.options().retry,
        control,
        store.limits(),
        async |activity| range.receive(store, from, control, &activity, &mut write).await,
    ))?;
    Ok(Checksum(range.digest.finalize()))
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
    let turns = Arc::new(Turns::new());
    let crowded = {
        let turns = Arc::clone(&turns);
        Box::new(move || turns.are_short())
    };
    parts::run(lane, helpers, true, plan.count(), crowded, move |lane, index| {
        let store = lane.store(from.archive_id)?;
        let mut range = Range::new(plan.part(index));
        // A broken connection costs what was under way: the next try goes on behind the last byte written.
        lane.block_on(retry(
            &lane.options().retry,
            &control,
            store.limits(),
            async |activity| {
                let mut write = |at, chunk: &Bytes| {
                    turns
                        .take(&control, || sparse::write(&file, at, chunk))?
                        .map_err(TransferError::Write)
                };
                range.receive(store, &from, &control, &activity, &mut write).await
            },
        ))?;
        Ok(Checksum(range.digest.finalize()))
    })
}

/// One range and how far it is: the next try goes on behind the last byte that was written.
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
        control: &Control,
        activity: &Activity,
        write: &mut impl FnMut(u64, &Bytes) -> Result<(), TransferError>,
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
            write(self.part.offset + self.done, &chunk)?;
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
