//! Archive: a file becomes an object, confirmed by size and checksum.

mod left;
mod log;

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use self::left::{Leftover, is_same};
pub use self::log::{NoLog, Unfinished, Upload, UploadLog, UploadedObject};
use super::body::{BodyMeter, FileBody, Form, Source, payload};
use super::retry::{Activity, retry};
use super::{Control, Lane, Part, Plan, Stop, Transfer, TransferError, parts};
use crate::store::{Checksum, Payload, SentPart, Store, StoreError, StoredObject, StoredPart, UploadId};

/// For an upload's id, after a stop.
const CREATE_GRACE: Duration = Duration::from_millis(800);
/// Of one file in one action, when the store loses them.
const UPLOADS: usize = 3;
/// What a store says of an upload that it does not have.
const GONE: &str = "NoSuchUpload";
/// Completing joins up to 10,000 parts at the store, which may take minutes without a byte moving.
const COMPLETE_STALL: Duration = Duration::from_secs(600);

impl Transfer<'_> {
    /// Writes the first `size` bytes of `file` as the object `to.key`. A multipart upload that failed is aborted,
    /// unless somebody goes on with it.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] in particular: the key holds something else than `to.condition` says.
    pub fn upload(self, file: &Arc<File>, size: u64, to: &Upload) -> Result<UploadedObject, TransferError> {
        let begin = || Sending::new(self, file, size, to);
        match Plan::new(size, self.lane.options().plan)? {
            Plan::Single { .. } => match begin()?.single() {
                Err(TransferError::Store(StoreError::Learned { operation, what })) => {
                    tracing::info!(key = %to.key, operation, what, "sending it again");
                    begin()?.single()
                }
                result => result,
            },
            plan @ Plan::Multipart { .. } => {
                for _ in 0..UPLOADS {
                    match begin()?.multipart(plan) {
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
}

/// A file that is being sent, from the first request until the object is confirmed or the try is over.
struct Sending<'a> {
    transfer: Transfer<'a>,
    store: Store,
    /// How bodies go, as far as is known of the store when the first one does.
    framed: bool,
    file: &'a Arc<File>,
    size: u64,
    to: &'a Upload,
}

impl<'a> Sending<'a> {
    fn new(transfer: Transfer<'a>, file: &'a Arc<File>, size: u64, to: &'a Upload) -> Result<Self, TransferError> {
        let store = transfer.store(to.archive_id)?;
        let has_class = store.target().choices.storage_class.is_some();
        let store = if has_class && !to.is_data {
            store.without_class()
        } else {
            store.clone()
        };
        Ok(Self {
            framed: store.takes_chunked(),
            transfer,
            store,
            file,
            size,
            to,
        })
    }

    fn single(&self) -> Result<UploadedObject, TransferError> {
        let Self { store, to, size, .. } = self;
        let Transfer { lane, control, .. } = self.transfer;
        to.log.single(to);
        let part = Part {
            offset: 0,
            length: *size,
        };
        let source = Source::new(self.file);
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
            control.add_moved(*size);
            if uploaded.stored.checksum.is_none() {
                self.confirm_size(&uploaded.stored).await?;
            }
            Ok(uploaded)
        })
    }

    fn multipart(&self, plan: Plan) -> Result<UploadedObject, TransferError> {
        let mut resumed = true;
        let (upload, known) = match self.go_on(plan)? {
            Leftover::Upload(upload, parts) => (upload, parts),
            Leftover::Object(uploaded) => return Ok(uploaded),
            Leftover::Nothing => {
                resumed = false;
                let upload = self.create()?;
                self.to.log.begun(self.to, &upload, self.size, plan.part(0).length);
                (upload, HashMap::new())
            }
        };
        let sent = self.send_parts(plan, &upload, known);
        let result = sent.and_then(|sent| {
            let whole = plan.combine(sent.iter().map(|part| part.checksum));
            let parts: Vec<StoredPart> = sent.into_iter().map(|part| part.stored).collect();
            self.complete(&upload, &parts, whole, resumed)
        });
        // Whoever goes on with it does so behind the last part.
        if result.is_err() && !self.transfer.control.is_handed_on() && self.to.log.may_abort() {
            self.abort(&self.to.key, &upload);
        }
        result
    }

    /// A request for an upload that is dropped may leave one at the store whose id nobody knows: when the
    /// action is stopped meanwhile, the answer is waited for a little longer.
    fn create(&self) -> Result<UploadId, TransferError> {
        let Self { store, to, .. } = self;
        let Transfer { lane, control, .. } = self.transfer;
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
            self.abort(&to.key, &upload);
            return Err(stopped());
        }
        Ok(upload)
    }

    /// All of them, but those that are `known`.
    fn send_parts(
        &self,
        plan: Plan,
        upload: &UploadId,
        known: HashMap<u32, SentPart>,
    ) -> Result<Vec<SentPart>, TransferError> {
        let Transfer {
            lane,
            control,
            idle_threads,
        } = self.transfer;
        let log = Arc::clone(&self.to.log);
        let (control, source, upload) = (Arc::clone(control), Source::new(self.file), upload.clone());
        let (archive_id, key) = (self.to.archive_id, self.to.key.clone());
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
            let sent = Transfer::new(lane, &control).ask(store, async |activity| {
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

    /// Has the store make the object of the parts.
    fn complete(
        &self,
        upload: &UploadId,
        parts: &[StoredPart],
        whole: Checksum,
        resumed: bool,
    ) -> Result<UploadedObject, TransferError> {
        let Self { store, to, size, .. } = self;
        let Transfer { lane, control, .. } = self.transfer;
        let mut options = lane.options().retry;
        options.stall = options.stall.max(COMPLETE_STALL);
        lane.block_on(async {
            let mut tries = 0;
            let result = retry(&options, control, store.limits(), async |_| {
                tries += 1;
                Ok(store
                    .complete_upload(&to.key, upload, parts, *size, whole, &to.condition)
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
                        found.size == *size
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
            self.confirm_size(&stored).await?;
            Ok(UploadedObject {
                stored,
                checksum: whole,
            })
        })
    }

    /// Compares the size that the store has with the size that was sent, framed or not.
    async fn confirm_size(&self, stored: &StoredObject) -> Result<(), TransferError> {
        let Self { store, to, size, .. } = self;
        let Transfer { lane, control, .. } = self.transfer;
        let found = retry(&lane.options().retry, control, store.limits(), async |_| {
            Ok(store.head(&to.key, stored.version.as_deref()).await?)
        })
        .await?;
        if found.size == *size {
            return Ok(());
        }
        // The framing of the body, kept as if it were the file's.
        if self.framed && found.size > *size {
            return Err(store.chunked_is_spoiled("HeadObject").into());
        }
        Err(TransferError::Checksum {
            what: format!("the object has {} bytes, the file {size}", found.size),
        })
    }
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
