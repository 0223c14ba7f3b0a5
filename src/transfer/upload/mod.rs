//! Archive: a file becomes an object, confirmed by size and checksum.

mod left;
mod log;

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

pub use self::left::abort_upload;
use self::left::{Leftover, abort, go_on, is_same};
pub use self::log::{NoLog, Unfinished, Upload, UploadLog, UploadedObject};
use super::body::{BodyMeter, FileBody, Form, Source, payload};
use super::retry::{Activity, retry};
use super::{Control, IdleThreads, Lane, Part, Plan, Stop, TransferError, parts};
use crate::store::{Checksum, ObjectKey, Payload, SentPart, Store, StoreError, StoredObject, StoredPart, UploadId};

/// For an upload's id, after a stop.
const CREATE_GRACE: Duration = Duration::from_millis(800);
/// Of one file in one action, when the store loses them.
const UPLOADS: usize = 3;
/// What a store says of an upload that it does not have.
const GONE: &str = "NoSuchUpload";
/// Completing joins up to 10,000 parts at the store, which may take minutes without a byte moving.
const COMPLETE_STALL: Duration = Duration::from_secs(600);

/// The store that makes the object.
fn store_of(lane: &Lane, to: &Upload) -> Result<Store, TransferError> {
    let store = lane.store(to.archive_id)?;
    let has_class = store.target().choices.storage_class.is_some();
    Ok(if has_class && !to.is_data {
        store.without_class()
    } else {
        store.clone()
    })
}

/// Writes the first `size` bytes of `file` as the object `to.key`. A multipart upload that failed is aborted,
/// unless somebody goes on with it.
///
/// # Errors
/// [`StoreError::Precondition`] in particular: the key holds something else than `to.condition` says.
pub fn upload(
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    control: &Arc<Control>,
    file: &Arc<File>,
    size: u64,
    to: &Upload,
) -> Result<UploadedObject, TransferError> {
    match Plan::new(size, lane.options().plan)? {
        Plan::Single { size } => match single(lane, control, file, size, to) {
            Err(TransferError::Store(StoreError::Learned { operation, what })) => {
                tracing::info!(key = %to.key, operation, what, "sending it again");
                single(lane, control, file, size, to)
            }
            result => result,
        },
        plan @ Plan::Multipart { .. } => {
            for _ in 0..UPLOADS {
                match multipart(lane, idle_threads, control, file, size, plan, to) {
                    Err(TransferError::Store(StoreError::NotFound { operation, code })) if code == GONE => {
                        tracing::warn!(key = %to.key, operation, "the upload is gone at the store; beginning anew");
                    }
                    Err(TransferError::Store(StoreError::Learned { operation, what })) => {
                        tracing::info!(key = %to.key, operation, what, "beginning anew");
                    }
                    result => return result,
                }
            }
            Err(StoreError::Unavailable {
                operation: "CompleteMultipartUpload",
                what: format!("the store lost {UPLOADS} uploads of the file, one after the other"),
            }
            .into())
        }
    }
}

fn single(
    lane: &Lane,
    control: &Control,
    file: &Arc<File>,
    size: u64,
    to: &Upload,
) -> Result<UploadedObject, TransferError> {
    let store = &store_of(lane, to)?;
    to.log.single(to);
    let part = Part {
        offset: 0,
        length: size,
    };
    let source = Source::new(file);
    let framed = store.takes_chunked();
    lane.block_on(async {
        let uploaded = retry(&lane.options().retry, control, store.limits(), async |activity| {
            let (meter, payload) = body(lane, store, &source, part, &activity).await?;
            let result = store.put(&to.key, payload, &to.condition, to.metadata.clone()).await;
            let stored = source_first(&meter, result)?;
            agree("PutObject", stored.checksum, meter.checksum())?;
            Ok(UploadedObject {
                stored,
                checksum: meter.checksum(),
            })
        })
        .await?;
        control.add_moved(size);
        if uploaded.stored.checksum.is_none() {
            confirm_size(lane, control, store, &to.key, &uploaded.stored, (size, framed)).await?;
        }
        Ok(uploaded)
    })
}

fn multipart(
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    control: &Arc<Control>,
    file: &Arc<File>,
    size: u64,
    plan: Plan,
    to: &Upload,
) -> Result<UploadedObject, TransferError> {
    let store = &store_of(lane, to)?;
    let framed = store.takes_chunked();
    let mut resumed = true;
    let (upload, known) = match go_on(lane, control, store, to, size, plan)? {
        Leftover::Upload(upload, parts) => (upload, parts),
        Leftover::Object(uploaded) => return Ok(uploaded),
        Leftover::Nothing => {
            resumed = false;
            let upload = create(lane, control, store, to)?;
            to.log.begun(to, &upload, size, plan.part(0).length);
            (upload, HashMap::new())
        }
    };
    let sent = send_parts(lane, idle_threads, control, file, plan, to, &upload, known);
    let result = sent.and_then(|sent| {
        let whole = plan.combine(sent.iter().map(|part| part.checksum));
        let parts: Vec<StoredPart> = sent.into_iter().map(|part| part.stored).collect();
        complete(
            lane,
            control,
            store,
            (size, framed),
            to,
            &upload,
            &parts,
            whole,
            resumed,
        )
    });
    // Whoever goes on with it does so behind the last part.
    if result.is_err() && !control.is_handed_on() {
        abort(lane, store, &to.key, &upload);
    }
    result
}

/// A request for an upload that is dropped may leave one at the store whose id nobody knows: when the
/// action is stopped meanwhile, the answer is waited for a little longer.
fn create(lane: &Lane, control: &Control, store: &Store, to: &Upload) -> Result<UploadId, TransferError> {
    let stopped = || TransferError::Stopped(control.stopped().unwrap_or(Stop::Cancelled));
    let upload = lane.block_on(async {
        let patient = Control::default();
        let request = retry(&lane.options().retry, &patient, store.limits(), async |_| {
            Ok(store.create_upload(&to.key, to.metadata.clone()).await?)
        });
        let too_late = async {
            control.wait_stopped().await;
            tokio::time::sleep(CREATE_GRACE).await;
        };
        tokio::select! {
            biased;
            upload = request => upload,
            () = too_late => Err(stopped()),
        }
    })?;
    if control.stopped().is_some() {
        abort(lane, store, &to.key, &upload);
        return Err(stopped());
    }
    Ok(upload)
}

#[expect(clippy::too_many_arguments, reason = "one step of one upload")]
fn send_parts(
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    control: &Arc<Control>,
    file: &Arc<File>,
    plan: Plan,
    to: &Upload,
    upload: &UploadId,
    known: HashMap<u32, SentPart>,
) -> Result<Vec<SentPart>, TransferError> {
    let log = Arc::clone(&to.log);
    let (control, source, upload) = (Arc::clone(control), Source::new(file), upload.clone());
    let (archive_id, key) = (to.archive_id, to.key.clone());
    let never = Box::new(|| false);
    parts::run(lane, idle_threads, false, plan.count(), never, move |lane, index| {
        let store = lane.store(archive_id)?;
        let part = plan.part(index);
        let index32 = u32::try_from(index).map_err(|_| TransferError::Changed)?;
        if let Some(sent) = known.get(&index32) {
            control.add_moved(part.length);
            return Ok(sent.clone());
        }
        let number = i32::try_from(index + 1).map_err(|_| TransferError::Changed)?;
        let sent = lane.ask(&control, store, async |activity| {
            let (meter, payload) = body(lane, store, &source, part, &activity).await?;
            let result = store.upload_part(&key, &upload, number, payload).await;
            let stored = source_first(&meter, result)?;
            agree("UploadPart", stored.checksum, meter.checksum())?;
            Ok(SentPart {
                stored: stored.proven(meter.proof()),
                checksum: meter.checksum(),
            })
        })?;
        control.add_moved(part.length);
        log.sent(index32, &sent);
        Ok(sent)
    })
}

#[expect(clippy::too_many_arguments, reason = "one step of one upload")]
fn complete(
    lane: &Lane,
    control: &Control,
    store: &Store,
    (size, framed): (u64, bool),
    to: &Upload,
    upload: &UploadId,
    parts: &[StoredPart],
    whole: Checksum,
    resumed: bool,
) -> Result<UploadedObject, TransferError> {
    let mut options = lane.options().retry;
    options.stall = options.stall.max(COMPLETE_STALL);
    lane.block_on(async {
        let mut tries = 0;
        let result = retry(&options, control, store.limits(), async |_| {
            tries += 1;
            Ok(store
                .complete_upload(&to.key, upload, parts, size, whole, &to.condition)
                .await?)
        })
        .await;
        let stored = match result {
            // An answer got lost on the way, and the try before this one had worked, or a former daemon's.
            Err(TransferError::Store(StoreError::NotFound { .. })) if tries > 1 || resumed => {
                let found = match store.head(&to.key, None).await {
                    Err(StoreError::NotFound { .. }) => None,
                    found => Some(found?),
                };
                let made = found.filter(|found| {
                    found.size == size
                        && found.checksum.is_none_or(|sum| sum == whole)
                        && is_same(&found.metadata, &to.metadata)
                });
                let gone = StoreError::NotFound {
                    operation: "CompleteMultipartUpload",
                    code: GONE.into(),
                };
                made.ok_or(gone)?.into_stored()
            }
            other => other?,
        };
        agree("CompleteMultipartUpload", stored.checksum, whole)?;
        confirm_size(lane, control, store, &to.key, &stored, (size, framed)).await?;
        Ok(UploadedObject {
            stored,
            checksum: whole,
        })
    })
}

/// A part that fits into one chunk waits for its bandwidth here, a longer one as it goes.
async fn body(
    lane: &Lane,
    store: &Store,
    source: &Source,
    part: Part,
    activity: &Arc<Activity>,
) -> Result<(BodyMeter, Payload<FileBody>), TransferError> {
    let limits = store.limits();
    if part.length <= lane.chunks().size() as u64 {
        activity.wait_for(&limits.upload, part.length).await;
    }
    let form = Form {
        kind: store.target().checksum,
        chunked: store.takes_chunked(),
    };
    payload(source, part, form, lane.chunks(), limits, activity)
}

/// A file that can't be read looks like a broken request to the client; the meter knows better.
fn source_first<T>(meter: &BodyMeter, result: Result<T, StoreError>) -> Result<T, TransferError> {
    match meter.take_error() {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}

fn agree(operation: &'static str, theirs: Option<Checksum>, ours: Checksum) -> Result<(), TransferError> {
    match theirs {
        Some(theirs) if theirs != ours => Err(StoreError::Corrupt {
            operation,
            what: format!(
                "the store computed CRC64NVME {} where we sent {}",
                theirs.to_base64(),
                ours.to_base64()
            ),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Compares the size that the store has with the size that was sent, `framed` or not.
async fn confirm_size(
    lane: &Lane,
    control: &Control,
    store: &Store,
    key: &ObjectKey,
    stored: &StoredObject,
    (size, framed): (u64, bool),
) -> Result<(), TransferError> {
    let found = retry(&lane.options().retry, control, store.limits(), async |_| {
        Ok(store.head(key, stored.version.as_deref()).await?)
    })
    .await?;
    if found.size == size {
        return Ok(());
    }
    // The framing of the body, kept as if it were the file's.
    if framed && found.size > size {
        return Err(store.chunked_is_spoiled("HeadObject").into());
    }
    Err(TransferError::Checksum {
        what: format!("the object has {} bytes, the file {size}", found.size),
    })
}
