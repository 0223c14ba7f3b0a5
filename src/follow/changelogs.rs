//! Reads the changelogs, notes whom their records are about, and clears what was dealt with.

use std::time::{Duration, Instant};

use super::pending::Name;
use super::state::State;
use super::{FollowError, is_passing};
use crate::lustre::{Change, ChangeRecord};
use crate::types::Fid;

/// What waits in memory; the rest waits in the changelogs.
const MOST_PENDING: usize = 200_000;
/// Read at a time: within so many, records may be out of order (2.10).
const CHUNK: usize = 4096;
/// A record that is not there may still be on its way: since 2.17 they are written in parallel (LU-18218).
const GAP: Duration = Duration::from_secs(2);
/// Passes in a row in which a changelog can't be read, because the client or an MDT is away.
const TROUBLE: u32 = 600;
/// Between two looks at which MDTs there are.
const MDTS: Duration = Duration::from_secs(60);

/// What a pass over the changelogs found.
#[derive(Clone, Copy, Default)]
pub(super) struct Read {
    pub(super) records: usize,
    /// A record is missing and may still come, or a changelog could not be read.
    pub(super) waits: bool,
}

/// Where a pass over a changelog ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There are no more for now.
    Reached,
    /// There are, and no room for them.
    More,
    /// A record is missing and may still come.
    Waits,
}

impl State<'_> {
    /// One that is new, or was never read, makes a look at everything necessary.
    pub(super) fn find_mdts(&mut self) -> Result<(), FollowError> {
        if self.seen_mdts.is_some_and(|at| at.elapsed() < MDTS) {
            return Ok(());
        }
        match self.follow.mount.mdt_names() {
            Ok(mdts) => self.mdts = mdts,
            Err(error) if self.seen_mdts.is_some() && is_passing(error.errno) => {}
            Err(error) => return Err(FollowError::Mdts(error)),
        }
        self.seen_mdts = Some(Instant::now());
        for (mdt, name) in &self.mdts {
            if self.follow.users.of(name).is_none() {
                return Err(FollowError::NoUser(name.clone()));
            }
            if self.book.place(*mdt)?.is_none() {
                self.book.owe_scan(true)?;
            }
        }
        Ok(())
    }

    /// Everything that a former process may have seen was dealt with.
    pub(super) fn has_caught_up(&self) -> bool {
        self.mdts.iter().all(|(mdt, _)| {
            let newest = self.newest.get(mdt);
            newest.is_some_and(|newest| self.pending.place(*mdt).unwrap_or(*newest) >= *newest)
        })
    }

    /// Reads what is new.
    pub(super) fn read(&mut self) -> Result<Read, FollowError> {
        let mut read = Read::default();
        let mut ends = true;
        for (mdt, name) in self.mdts.clone() {
            // Once means: up to here.
            if self.follow.once && self.newest.contains_key(&mdt) {
                continue;
            }
            match self.read_one(mdt, &name) {
                Ok((records, state)) => {
                    read.records += records;
                    read.waits |= state == End::Waits;
                    ends &= state == End::Reached;
                    self.troubles = 0;
                }
                Err(FollowError::Changelog { source, .. }) if is_passing(source.errno) && self.troubles < TROUBLE => {
                    if self.troubles == 0 {
                        tracing::warn!(mdt = name, error = %source, "its changelog can't be read for the moment");
                    }
                    self.troubles += 1;
                    read.waits = true;
                    ends = false;
                }
                Err(error) => return Err(error),
            }
        }
        if ends {
            self.pending.next_round();
        }
        self.counts.records += read.records as u64;
        Ok(read)
    }

    fn read_one(&mut self, mdt: u32, name: &str) -> Result<(usize, End), FollowError> {
        let failed = |source| FollowError::Changelog {
            mdt: name.to_owned(),
            source,
        };
        let before = self.pending.last_read(mdt).or(self.book.place(mdt)?).unwrap_or(0);
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
                        return Ok((records, End::Waits));
                    }
                    let missing = record.index - last - 1;
                    tracing::warn!(
                        mdt = name,
                        missing,
                        "records of the changelog are gone: looking through everything"
                    );
                    self.book.owe_scan(true)?;
                }
                self.gaps.remove(&mdt);
                last = record.index;
                records += 1;
                let now = Instant::now();
                self.pending
                    .note((mdt, record.index), concerned(&record), now, self.follow.quiet);
            }
            if is_end {
                self.newest.entry(mdt).or_insert(last);
                return Ok((records, End::Reached));
            }
        }
        Ok((records, End::More))
    }

    /// What was dealt with need not be told again.
    pub(super) fn forget_done(&mut self) -> Result<(), FollowError> {
        for (mdt, name) in &self.mdts {
            let Some(place) = self.pending.place(*mdt) else {
                continue;
            };
            if self.book.place(*mdt)?.is_some_and(|before| before >= place) {
                continue;
            }
            self.book.set_place(*mdt, place)?;
            let user = self.follow.users.of(name).filter(|_| place > 0);
            let Some(user) = user else {
                continue;
            };
            match self.follow.mount.clear_changelog(name, user, place) {
                Ok(()) => {}
                // With one of the next ones.
                Err(error) if is_passing(error.errno) => tracing::debug!(mdt = name, %error, "not cleared"),
                Err(source) => {
                    return Err(FollowError::Changelog {
                        mdt: name.clone(),
                        source,
                    });
                }
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
