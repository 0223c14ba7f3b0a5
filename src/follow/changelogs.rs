//! Reads the changelogs, notes whom their records are about, and clears what was dealt with.

use std::time::{Duration, Instant};

use super::FollowError;
use super::feed::{Feed, register};
use super::pending::Name;
use super::state::FollowState;
use crate::lustre::{Change, ChangeRecord};
use crate::types::{ErrorClass, Fid};

/// What waits in memory; the rest waits in the changelogs.
const MOST_PENDING: usize = 200_000;
/// Read at a time: within so many, records may be out of order (2.10).
const CHUNK: usize = 4096;
/// A record that is not there may still be on its way: since 2.17 they are written in parallel (LU-18218).
const GAP: Duration = Duration::from_secs(2);
/// A changelog that can't be read for so long holds up nothing but its own, and what can't be told without it.
const HOPELESS: Duration = Duration::from_secs(600);
/// Between two looks at which MDTs there are.
const MDTS: Duration = Duration::from_secs(60);

const UNREAD: &str = "its changelog can't be read";
const READ_AGAIN: &str = "its changelog is read again";
const UNHEARD: &str = "what was dealt with can't be acknowledged to it";
const HEARD_AGAIN: &str = "it takes acknowledgements again";

/// What a pass over the changelogs found.
#[derive(Clone, Copy, Default)]
pub(super) struct PassResult {
    pub(super) records: usize,
    /// A record is missing and may still come, or a changelog could not be read and somebody waits for its end.
    pub(super) waits: bool,
    /// Some could not be read to their ends.
    more: bool,
}

/// Where a pass over a changelog ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PassEnd {
    /// There are no more for now.
    Reached,
    /// There are, and no room for them.
    More,
    /// A record is missing and may still come.
    Waits,
}

impl FollowState<'_> {
    /// One that is new, or was never read, makes a look at everything necessary; one whose reader is another than before,
    /// too: the former one may have been dropped, and then nobody wrote records.
    pub(super) fn find_mdts(&mut self) -> Result<(), FollowError> {
        if self.seen_mdts.is_some_and(|at| at.elapsed() < MDTS) {
            return Ok(());
        }
        let is_first = self.seen_mdts.is_none();
        let mdts = match self.follow.mount.mdt_names() {
            Ok(mdts) => mdts,
            Err(error) if is_first => return Err(FollowError::Mdts(error)),
            Err(error) => {
                tracing::debug!(%error, "can't tell whether there are more MDTs");
                Vec::new()
            }
        };
        self.seen_mdts = Some(Instant::now());
        for (mdt, name) in mdts {
            if self.feeds.iter().any(|feed| feed.mdt == mdt) {
                continue;
            }
            let Some(given) = self.follow.users.of(&name).map(str::to_owned) else {
                let error = FollowError::NoUser(name.clone());
                if is_first {
                    return Err(error);
                }
                if self.unnamed.insert(name) {
                    tracing::warn!(%error, "an MDT more is not followed, and no object is deleted as long as that is so");
                }
                continue;
            };
            let before = self.copy_index.reader(&name)?;
            let reader = match before {
                Some((was_given, reader)) if was_given == given => reader,
                before => {
                    if before.is_some_and(|(_, reader)| reader != given) {
                        tracing::info!(
                            mdt = name,
                            reader = given,
                            "its changelog has another reader than before"
                        );
                        self.demand_scan()?;
                    }
                    self.copy_index.set_reader(&name, &given, &given)?;
                    given.clone()
                }
            };
            if self.copy_index.place(mdt)?.is_none() {
                self.demand_scan()?;
            }
            self.feeds.push(Feed::new(mdt, name, given, reader));
        }
        Ok(())
    }

    /// Something happened that no record tells of.
    pub(super) fn demand_scan(&mut self) -> Result<(), FollowError> {
        self.demanded = true;
        Ok(self.copy_index.owe_scan(true)?)
    }

    /// Everything that a former process may have seen was dealt with.
    pub(super) fn has_caught_up(&self) -> bool {
        self.feeds.iter().all(|feed| {
            let newest = self.newest.get(&feed.mdt);
            newest.is_some_and(|newest| self.pending.place(feed.mdt).unwrap_or(*newest) >= *newest)
        })
    }

    /// Reads what is new.
    pub(super) fn read(&mut self) -> Result<PassResult, FollowError> {
        let mut read = PassResult::default();
        let mut refused = None;
        let mut feeds = std::mem::take(&mut self.feeds);
        let done = feeds
            .iter_mut()
            .try_for_each(|feed| self.read_feed(feed, &mut read, &mut refused));
        self.feeds = feeds;
        done?;
        // Nothing was ever read: that is how the command was started.
        if let Some(error) = refused
            && self.newest.is_empty()
            && self.feeds.iter().all(|feed| feed.reading.is_on())
        {
            return Err(error);
        }
        if !read.more && self.unnamed.is_empty() {
            self.pending.next_round();
        }
        let once = self.follow.once;
        let is_hopeless = |feed: &Feed| feed.is_lost || feed.reading.is_hopeless(once, HOPELESS);
        if self.feeds.iter().any(is_hopeless) || !self.unnamed.is_empty() {
            self.let_ends_wait()?;
        }
        let sick = self.feeds.iter().filter(|feed| feed.is_sick()).count() + self.unnamed.len();
        self.counts.unread = sick as u64;
        self.counts.records += read.records as u64;
        Ok(read)
    }

    /// What one MDT answers is nothing of the others. `refused`: by one whose answer will hardly be another one later.
    fn read_feed(
        &mut self,
        feed: &mut Feed,
        read: &mut PassResult,
        refused: &mut Option<FollowError>,
    ) -> Result<(), FollowError> {
        // What its MDT did not record can't be known.
        read.more |= feed.is_lost;
        // Once means: up to here.
        if self.follow.once && self.newest.contains_key(&feed.mdt) {
            return Ok(());
        }
        if feed.reading.may_try(Instant::now()) {
            match self.read_one(feed.mdt, &feed.name) {
                Ok((records, end)) => {
                    read.records += records;
                    read.waits |= end == PassEnd::Waits;
                    read.more |= end != PassEnd::Reached;
                    if feed.reading.is_over(&feed.name, READ_AGAIN) {
                        // What waited for it.
                        self.owed_at = None;
                    }
                    return Ok(());
                }
                Err(FollowError::Changelog { mdt, source }) => {
                    feed.reading.failed(&feed.name, UNREAD, &source.to_string());
                    if !source.class().is_passing() && refused.is_none() {
                        *refused = Some(FollowError::Changelog { mdt, source });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        read.more = true;
        read.waits |= self.follow.once && !feed.reading.is_hopeless(true, HOPELESS);
        Ok(())
    }

    /// Ends of files that can't come before all changelogs are read hold up those that can be: they are tried with what is
    /// owed.
    fn let_ends_wait(&mut self) -> Result<(), FollowError> {
        let fids = self.pending.without_ends();
        if !fids.is_empty() {
            tracing::info!(
                files = fids.len(),
                "are gone, and what is in the bucket for them stays until all changelogs can be read: tried again in an hour"
            );
        }
        self.copy_index.owe_all(&fids)?;
        for fid in fids {
            self.pending.settle(fid);
        }
        Ok(())
    }

    fn read_one(&mut self, mdt: u32, name: &str) -> Result<(usize, PassEnd), FollowError> {
        let failed = |source| FollowError::Changelog {
            mdt: name.to_owned(),
            source,
        };
        let before = self.pending.last_read(mdt).or(self.copy_index.place(mdt)?).unwrap_or(0);
        let mut last = before;
        let mut records = 0;
        let mut changelog = self.follow.mount.changelog(name, last + 1).map_err(failed)?;
        while self.pending.len() < MOST_PENDING && !self.follow.stopped() {
            let mut chunk = Vec::new();
            while chunk.len() < CHUNK
                && let Some(record) = changelog.read().map_err(failed)?
            {
                chunk.push(record);
            }
            let is_end = chunk.len() < CHUNK;
            chunk.sort_by_key(|record| record.index);
            for record in chunk {
                if record.index <= last {
                    continue;
                }
                // Before the first one nothing is known.
                if last > 0 && record.index > last + 1 {
                    let since = *self.gaps.entry(mdt).or_insert_with(Instant::now);
                    if since.elapsed() < GAP {
                        return Ok((records, PassEnd::Waits));
                    }
                    let missing = record.index - last - 1;
                    tracing::warn!(
                        mdt = name,
                        missing,
                        "records of the changelog are gone: looking through everything"
                    );
                    self.demand_scan()?;
                }
                self.gaps.remove(&mdt);
                last = record.index;
                records += 1;
                let now = Instant::now();
                let (at, quiet, fids) = ((mdt, record.index), self.follow.quiet, concerned(&record));
                if record.change == Change::Hsm {
                    self.pending.note_unchanged(at, fids, now, quiet);
                } else {
                    self.pending.note(at, fids, now, quiet);
                }
            }
            if is_end {
                self.newest.entry(mdt).or_insert(last);
                return Ok((records, PassEnd::Reached));
            }
        }
        Ok((records, PassEnd::More))
    }

    /// What was dealt with need not be told again.
    pub(super) fn forget_done(&mut self) -> Result<(), FollowError> {
        let mut feeds = std::mem::take(&mut self.feeds);
        let done = feeds.iter_mut().try_for_each(|feed| self.acknowledge(feed));
        self.feeds = feeds;
        done?;
        // Of some the others are followed; of all there is nothing to follow.
        match self.feeds.first() {
            Some(feed) if self.feeds.iter().all(|feed| feed.is_lost) => Err(FollowError::NoReader {
                mdt: feed.name.clone(),
                reader: feed.reader.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn acknowledge(&mut self, feed: &mut Feed) -> Result<(), FollowError> {
        let (done, before) = (self.pending.place(feed.mdt), self.copy_index.place(feed.mdt)?);
        if let Some(place) = done
            && before.is_none_or(|before| before < place)
        {
            self.copy_index.set_place(feed.mdt, place)?;
        }
        // 0 would be everything that there is.
        let Some(place) = done.or(before).filter(|place| *place > 0) else {
            return Ok(());
        };
        if !feed.is_acknowledgement_due(place, self.follow.acknowledge) {
            return Ok(());
        }
        match self.follow.mount.clear_changelog(&feed.name, &feed.reader, place) {
            Ok(()) => {
                feed.acknowledged(place);
                feed.acknowledging.is_over(&feed.name, HEARD_AGAIN);
            }
            Err(error) if error.is_not_found() => self.reader_is_gone(feed)?,
            // The reader was registered behind it, so that there is nothing to acknowledge yet.
            Err(error) if error.class() == ErrorClass::Invalid && self.pending.last_read(feed.mdt).is_some() => {
                tracing::debug!(mdt = feed.name, place, "not acknowledged: its reader is further");
                feed.acknowledged(place);
            }
            Err(error) if error.class() == ErrorClass::Invalid => {
                tracing::warn!(
                    mdt = feed.name,
                    place,
                    reader = feed.reader,
                    "its changelog has not come so far as it was read, or somebody has cleared it further: looking through \
                     everything"
                );
                self.copy_index.set_place(feed.mdt, 0)?;
                self.demand_scan()?;
            }
            Err(error) => feed.acknowledging.failed(&feed.name, UNHEARD, &error.to_string()),
        }
        Ok(())
    }

    /// As long as there was none, its MDT may have recorded nothing, and a gap need not show it.
    fn reader_is_gone(&mut self, feed: &mut Feed) -> Result<(), FollowError> {
        if !feed.is_lost {
            tracing::warn!(
                mdt = feed.name,
                reader = feed.reader,
                "does not know the reader of its changelog: it was idle for too long (mdd.*.changelog_max_idle_time), or was \
                 taken away"
            );
        }
        match register(self.follow, &feed.name) {
            Ok(reader) => {
                tracing::warn!(
                    mdt = feed.name,
                    reader,
                    "a reader of its changelog is registered anew; what happened meanwhile may be in no record: looking \
                     through everything"
                );
                self.demand_scan()?;
                self.copy_index.set_reader(&feed.name, &feed.given, &reader)?;
                feed.is_read_by(reader);
            }
            Err(why) => {
                feed.is_lost = true;
                feed.acknowledging.failed(
                    &feed.name,
                    "no reader of its changelog can be registered from here",
                    &why,
                );
            }
        }
        Ok(())
    }
}

/// Whom a record is about, and what they were called.
fn concerned(record: &ChangeRecord) -> Vec<(Fid, Vec<Name>)> {
    if let Change::Other(_) = record.change {
        return Vec::new();
    }
    let name = || {
        let parent = record.parent.filter(|_| !record.name.is_empty());
        parent.map(|parent| (parent, record.name.clone()))
    };
    let mut fids = Vec::new();
    if let Some(target) = record.target {
        fids.push((target, name().into_iter().collect()));
    }
    if let Some(source) = record.source {
        fids.push((source, name().into_iter().chain(record.before.clone()).collect()));
    }
    fids
}
