//! An archive's place in the journal: what a successor needs to go on with it or to clean up after it.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use super::attempt::Attempt;
use super::run::Run;
use super::{Context, Ended, JobError};
use crate::action::ActionKey;
use crate::journal::{Journal, UploadRecord};
use crate::ledger::Warrant;
use crate::store::{KeyAt, Location, SentPart, UploadId, WriteAttempt, WriterId};
use crate::transfer::{TransferError, Unfinished, Upload, UploadLog};

#[derive(Debug)]
pub(super) struct AttemptLog {
    journal: Arc<Journal>,
    key: ActionKey,
    writer: WriterId,
    data_version: Option<u64>,
    unfinished: Mutex<Option<Unfinished>>,
    warrant: Option<Warrant>,
}

impl Run<'_> {
    /// Who an archive writes as. A successor goes on as the one that it takes the action over from: what that one's requests
    /// still make is its own. What is written already and can't be gone on with goes now: this attempt may have another key,
    /// as the file may have another name, and what is known of the former one ends with this one's record.
    pub(super) fn author(self) -> WriteAttempt {
        let (journal, action) = (&self.context.journal, self.item.key());
        let inherited = journal.may_have_upload(action).then(|| journal.upload_of(action));
        let inherited = inherited.flatten().map(|(record, _)| record);
        if let Some(record) = &inherited {
            let goes_on = record.upload().is_some() && self.may_be_key_of(record);
            if !goes_on && self.clean_up().after(action) {
                journal.taken(action);
            }
        }
        // A copy that was committed is another attempt's, and so is what another mover began, unless this file's bytes prove to
        // be those of its upload.
        let inherited = inherited.filter(|record| record.previous().is_none() && !record.is_anothers());
        WriteAttempt {
            owner: self.owner(),
            cookie: self.item.cookie,
            writer: inherited
                .and_then(|record| record.writer())
                .unwrap_or_else(WriterId::random),
        }
    }

    /// The same, once the file is open: the upload that another mover began is gone on with, as the one that began it, where
    /// the file is what it was then and goes to the same key. Else it is left alone: that mover may live.
    pub(super) fn author_of(self, author: WriteAttempt, file: &File) -> WriteAttempt {
        let (journal, action) = (&self.context.journal, self.item.key());
        let left = journal.may_have_upload(action).then(|| journal.upload_of(action));
        let Some(record) = left
            .flatten()
            .map(|(record, _)| record)
            .filter(UploadRecord::is_anothers)
        else {
            return author;
        };
        let is_same = record.data_version.is_some() && self.context.fs.data_version(file) == record.data_version;
        match record.writer() {
            Some(writer) if is_same && self.may_be_key_of(&record) => WriteAttempt { writer, ..author },
            _ => author,
        }
    }

    /// Whether the file is still archived to where an upload of it goes.
    fn may_be_key_of(self, record: &UploadRecord) -> bool {
        let Some((archive_id, key)) = record.target() else {
            return false;
        };
        let fid = self.item.fid;
        let is_natural = self.natural_key().is_ok_and(|(id, natural)| {
            id == archive_id && (natural == key || natural.beside(fid).is_ok_and(|beside| beside == key))
        });
        let own = || self.context.fs.map(fid).ok().flatten();
        is_natural || own().is_some_and(|own| Location::from_bytes(&own).is_ok_and(|own| own.key == key))
    }
}

impl Attempt<'_> {
    /// Says what an archive is about to write, before its first request that makes something: that may be the sidecar's.
    /// What a former daemon began, and this one may go on with, stands. Waits while what is left of the file's former
    /// archives is taken away.
    pub(super) fn announce(self, at: KeyAt<'_>) {
        let (journal, item, writer) = (&self.run.context.journal, self.run.item, self.author.writer);
        let action = item.key();
        journal.wait_swept(item.fid);
        if journal.may_have_upload(action)
            && let Some((record, _)) = journal.upload_of(action)
            && record.writer() == Some(writer)
        {
            return;
        }
        journal.uploading(action, &UploadRecord::single(at.archive_id, at.key, writer));
    }
}

/// What an archive may have written, until its end: whatever becomes of it, the journal knows of it for longer than the
/// action lives.
#[derive(Debug)]
pub(super) struct Trail {
    journal: Arc<Journal>,
    action: ActionKey,
    nothing_left: bool,
    /// Whoever goes on with the action finds what is written down of it.
    is_handed_on: bool,
    warrant: Option<Warrant>,
    /// Of the warrant, before.
    refusals: u64,
}

impl Trail {
    pub(super) fn new(context: &Context, action: ActionKey) -> Self {
        Self {
            journal: Arc::clone(&context.journal),
            action,
            nothing_left: false,
            is_handed_on: false,
            warrant: context.warrant.clone(),
            refusals: refusals(context.warrant.as_ref()),
        }
    }

    /// It was answered, and all that follows from that was done, unless it was not to be done yet.
    pub(super) fn end(mut self, ended: &Ended) {
        self.is_handed_on = ended.is_handed_on();
        self.nothing_left = !ended.left_something
            && ended.error.as_ref().is_none_or(wrote_nothing)
            && self.refusals == refusals(self.warrant.as_ref());
    }

    /// It is begun anew later, as if by a successor.
    pub(super) fn put_off(mut self) {
        self.is_handed_on = true;
        self.journal.put_off(self.action);
    }
}

/// How often what destroys was not to be done yet, by whoever wanted to.
fn refusals(warrant: Option<&Warrant>) -> u64 {
    warrant.map_or(0, Warrant::refusals)
}

impl Drop for Trail {
    fn drop(&mut self) {
        if !self.is_handed_on {
            self.journal.settled(self.action, self.nothing_left);
        }
    }
}

/// Whether an error says that no request had made an object by then. One whose answer did not come, or was not believed,
/// may have; and what the coordinator did not take was there.
fn wrote_nothing(error: &JobError) -> bool {
    match error {
        JobError::Hsm(_) | JobError::TakenAway(_) | JobError::Panic(_) => false,
        JobError::Transfer(TransferError::Store(error)) => !error.is_transient(),
        JobError::Transfer(
            // An upload in parts may be left.
            TransferError::Read(_)
            | TransferError::Changed
            | TransferError::Announcement(_)
            | TransferError::Stopped(_)
            | TransferError::GaveUp { .. }
            | TransferError::Checksum { .. }
            | TransferError::Panic,
        ) => false,
        JobError::Transfer(_)
        | JobError::Location(_)
        | JobError::Attributes(_)
        | JobError::NotRegular
        | JobError::NoArchiveId
        | JobError::PartialExtent { .. }
        | JobError::UnknownAction(_)
        | JobError::NoCopy { .. }
        | JobError::NoFreeKey(_)
        | JobError::StillOpen
        | JobError::Released
        | JobError::RestoredElsewhere => true,
    }
}

impl AttemptLog {
    /// For the first `size` bytes of an attempt's file, which has that data version.
    pub(super) fn new(attempt: Attempt<'_>, data_version: Option<u64>, size: u64) -> Self {
        let Attempt { run, author } = attempt;
        let journal = &run.context.journal;
        // Of what will be sent in parts; anything else begins anew.
        let large = size > run.transfer.options().plan.threshold;
        let unfinished = large
            .then(|| journal.upload_of(run.item.key()))
            .flatten()
            .and_then(|(record, parts)| {
                let (_, key) = record.target()?;
                Some(Unfinished {
                    key,
                    upload: record.upload()?.clone(),
                    size: record.size,
                    part_size: record.part_size,
                    // An object's metadata is fixed when its upload begins: it must name this attempt.
                    same_data: data_version.is_some()
                        && record.data_version == data_version
                        && record.writer() == Some(author.writer),
                    parts,
                    is_anothers: record.is_anothers(),
                })
            });
        Self {
            journal: Arc::clone(journal),
            key: run.item.key(),
            writer: author.writer,
            data_version,
            unfinished: Mutex::new(unfinished),
            warrant: run.context.warrant.clone(),
        }
    }
}

impl UploadLog for AttemptLog {
    fn unfinished(&self) -> Option<Unfinished> {
        let unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        match self.journal.upload_of(self.key) {
            // From here on it is this mover's, to its end.
            Some((record, _)) if record.is_anothers() && unfinished.same_data => {
                self.journal.uploading(self.key, &record.of_another(false));
            }
            _ => self.journal.taken(self.key),
        }
        Some(unfinished)
    }

    fn single(&self, to: &Upload) {
        let record = UploadRecord::single(to.archive_id, &to.key, self.writer);
        self.journal.uploading(self.key, &record);
    }

    fn begun(&self, to: &Upload, upload: &UploadId, size: u64, part_size: u64) {
        let single = UploadRecord::single(to.archive_id, &to.key, self.writer);
        let record = single.multipart(upload, size, part_size, self.data_version);
        self.journal.uploading(self.key, &record);
    }

    fn sent(&self, index: u32, part: &SentPart) {
        self.journal.sent(self.key, index, part);
    }

    fn may_abort(&self) -> bool {
        self.warrant.as_ref().is_none_or(Warrant::permits)
    }
}
