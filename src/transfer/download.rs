//! Restore: an object's bytes come back into a file, proven by its checksum or by the store's.

use std::fs::File;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use crc_fast::{CrcAlgorithm, Digest};

use super::evidence::Expected;
use super::retry::Activity;
use super::write_slots::WriteSlots;
use super::{Control, Part, Plan, PlanOptions, Transfer, TransferError, parts, sparse};
use crate::store::{Checksum, Location, Quirk, Store, StoreError};

impl Transfer<'_> {
    /// Writes the object into the empty `file`, in parallel ranges, and compares all of it with its checksum, or with what
    /// the store says of it where we have none. The file has the object's size and is synced when this returns.
    ///
    /// # Errors
    /// [`StoreError::Precondition`]: the object is not the one that was archived.
    pub fn download(self, file: &Arc<File>, from: &Location) -> Result<(), TransferError> {
        let expected = Expected::of(self, from)?;
        // What another try left: holes are made where there are zeros already.
        if file.metadata().map_err(TransferError::Write)?.len() > 0 {
            file.set_len(0).map_err(TransferError::Write)?;
        }
        let mut again = false;
        loop {
            file.set_len(from.size).map_err(TransferError::Write)?;
            match self.receive(file, from, &expected) {
                // Damaged where no checksum of the way sees it, in a memory or a cache: once more, from nothing.
                Err(TransferError::Checksum { what }) if !again => {
                    tracing::warn!(key = %from.key, what, "reading the object once more");
                    again = true;
                    file.set_len(0).map_err(TransferError::Write)?;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
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

    fn receive(self, file: &Arc<File>, from: &Location, expected: &Expected) -> Result<(), TransferError> {
        if from.size == 0 {
            return Ok(());
        }
        let cut = PlanOptions {
            threshold: self.lane.options().plan.part_size,
            ..self.lane.options().plan
        };
        let plan = Plan::new(from.size, cut)?;
        let whole = match self.ranges(file, plan, from) {
            Err(TransferError::Store(StoreError::RangeIgnored { .. })) => {
                // Whatever was written of other ranges: the file begins anew.
                file.set_len(0)
                    .and_then(|()| file.set_len(from.size))
                    .map_err(TransferError::Write)?;
                let plan = Plan::Single { size: from.size };
                plan.combine(self.ranges(file, plan, from)?)
            }
            sums => plan.combine(sums?),
        };
        expected.compare(self, from, whole, file)
    }

    /// Reads all bytes of an object and holds them against its checksum, or against what the store says of them; writes
    /// nothing. `false`: there is nothing that proves them.
    ///
    /// # Errors
    /// [`TransferError::Checksum`] when they are others.
    pub fn verify(self, from: &Location) -> Result<bool, TransferError> {
        let expected = Expected::of(self, from)?;
        let mut judges = expected.judges(from);
        let found = self.receive_whole(from, |_, chunk| {
            judges.iter_mut().for_each(|judge| judge.update(chunk));
            Ok(())
        })?;
        match expected.judge(self.lane, from, found, judges) {
            Err(TransferError::Checksum { what }) => match expected.by_each_part(self, from)? {
                Some(mut judges) => {
                    let found = self.receive_whole(from, |_, chunk| {
                        judges.iter_mut().for_each(|judge| judge.update(chunk));
                        Ok(())
                    })?;
                    expected.judge(self.lane, from, found, judges)
                }
                None => Err(TransferError::Checksum { what }),
            },
            judged => judged,
        }
    }

    /// The bytes of a small object.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when the object is not the one at the location.
    pub fn read_small(self, from: &Location) -> Result<Vec<u8>, TransferError> {
        let mut bytes = Vec::new();
        self.receive_whole(from, |_, chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// One range after all, on this thread.
    fn receive_whole(
        self,
        from: &Location,
        mut write: impl FnMut(u64, &Bytes) -> Result<(), TransferError>,
    ) -> Result<Checksum, TransferError> {
        let store = self.store(from.archive_id)?;
        let mut range = DownloadRange::new(Part {
            offset: 0,
            length: from.size,
        });
        if from.size == 0 {
            return Ok(Checksum(range.digest.finalize()));
        }
        self.ask(store, async |activity| {
            range.receive(store, from, self.control, &activity, &mut write).await
        })?;
        Ok(Checksum(range.digest.finalize()))
    }

    fn ranges(self, file: &Arc<File>, plan: Plan, from: &Location) -> Result<Vec<Checksum>, TransferError> {
        let (control, file, from) = (Arc::clone(self.control), Arc::clone(file), from.clone());
        let slots = Arc::new(WriteSlots::new());
        let crowded = {
            let slots = Arc::clone(&slots);
            Box::new(move || slots.are_short())
        };
        parts::run(
            self.lane,
            self.idle_threads,
            true,
            plan.count(),
            crowded,
            move |lane, index| {
                let store = lane.store(from.archive_id)?;
                let mut range = DownloadRange::new(plan.part(index));
                // A broken connection costs what was under way: the next try goes on behind the last byte written.
                Transfer::new(lane, &control).ask(store, async |activity| {
                    let mut write = |at, chunk: &Bytes| {
                        slots
                            .take(&control, || sparse::write(&file, at, chunk))?
                            .map_err(TransferError::Write)
                    };
                    range.receive(store, &from, &control, &activity, &mut write).await
                })?;
                Ok(Checksum(range.digest.finalize()))
            },
        )
    }
}

/// One range and how far it is: the next try goes on behind the last byte that was written.
#[derive(Debug)]
struct DownloadRange {
    part: Part,
    done: u64,
    digest: Digest,
}

impl DownloadRange {
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
        // A store that knows no ranges begins at the beginning each time.
        let whole = self.part.offset == 0 && length == from.size;
        let mut skip = match whole && store.quirks().has(Quirk::RangesIgnored) {
            true => self.done,
            false => 0,
        };
        let begin = self.done - skip;
        let mut body = match store.get(from, self.part.offset + begin, length - begin).await {
            // It was found out just now, by this try to go on.
            Err(StoreError::RangeIgnored { .. }) if whole => {
                skip = self.done;
                store.get(from, 0, length).await?
            }
            body => body?,
        };
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk?;
            activity.wait_for(&store.limits().download, chunk.len() as u64).await;
            activity.note();
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= known as u64;
            chunk.advance(known);
            let n = chunk.len() as u64;
            if self.done + n > length {
                return Err(body.other_length("more", length).into());
            }
            if n > 0 {
                write(self.part.offset + self.done, &chunk)?;
                self.digest.update(&chunk);
                self.done += n;
                control.add_moved(n);
            }
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
