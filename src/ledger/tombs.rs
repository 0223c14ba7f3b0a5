//! REMOVEs of files that are gone: where the copy is, or, where nobody knows, a tombstone, for a copy whose row comes later.
//!
//! Whoever buries looks for the row once more when that is committed, and whoever brings a row looks for a tombstone when
//! that is committed: whichever was first, one of the two sees the other's. A mover that ended in between looks again at its
//! next connection, with the copies of its last day; for one that never comes back the others go their rounds.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::LedgerError;
use super::changes::CopyNews;
use super::link::Link;
use super::rows::{fid_bytes, fid_of};
use super::unlinked::{LateCopy, OthersCopies};
use crate::store::Location;
use crate::types::Fid;

/// Of one statement.
const AT_ONCE: usize = 1000;
/// Tombstones of one look.
const LOT: usize = 500;
/// Between two rounds, and between two lots of one.
const ROUND: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(5);
/// As a tombstone has it: of all archives.
const ALL: i32 = 0;

/// File by file: of 64 partitions each look is at one index.
const FIND: &str = "\
SELECT k.fid, c.record FROM unnest($1::bytea[]) AS k (fid)
CROSS JOIN LATERAL (SELECT record FROM lhsmtool_s3.copy WHERE copy.fid = k.fid LIMIT 1) AS c";

const BURY: &str = "\
INSERT INTO lhsmtool_s3.tombstone (fid, archive_id)
SELECT fid, archive_id FROM unnest($1::bytea[], $2::integer[]) AS n (fid, archive_id)
ON CONFLICT (fid, archive_id) DO UPDATE SET taken = now()";

const MEET: &str = "SELECT fid, archive_id FROM lhsmtool_s3.tombstone WHERE fid = ANY ($1)";

const PAGE: &str = "\
SELECT fid, archive_id FROM lhsmtool_s3.tombstone WHERE (fid, archive_id) > ($1, $2)
ORDER BY fid, archive_id LIMIT $3";

const PRUNE: &str = "\
DELETE FROM lhsmtool_s3.tombstone WHERE (fid, archive_id) IN (
    SELECT fid, archive_id FROM lhsmtool_s3.tombstone WHERE taken < now() - interval '30 days'
    ORDER BY taken LIMIT $1 FOR UPDATE SKIP LOCKED)";

/// Answers all that was asked.
///
/// # Errors
/// Some of it is not answered then.
pub(super) async fn answer(link: &Link, copies: &OthersCopies) -> Result<(), LedgerError> {
    loop {
        let questions = copies.questions(AT_ONCE);
        if questions.is_empty() {
            return Ok(());
        }
        let mut found = find(link, questions.iter().map(|question| question.fid)).await?;
        let buried: BTreeSet<(Fid, i32)> = questions
            .iter()
            .filter(|question| question.is_to_stay && !found.contains_key(&question.fid))
            .map(|question| {
                (
                    question.fid,
                    question.archive_id.map_or(ALL, |id| id.get().cast_signed()),
                )
            })
            .collect();
        if !buried.is_empty() {
            bury(link, &buried).await?;
            found.extend(find(link, buried.iter().map(|(fid, _)| *fid)).await?);
        }
        for question in questions {
            let record = found.get(&question.fid).cloned();
            question.answer(record);
        }
    }
}

/// The records of these files' copies.
async fn find(link: &Link, fids: impl Iterator<Item = Fid>) -> Result<HashMap<Fid, Vec<u8>>, LedgerError> {
    let fids: BTreeSet<Fid> = fids.collect();
    let fids: Vec<_> = fids.into_iter().map(fid_bytes).collect();
    let mut found = HashMap::new();
    for row in link.query(FIND, &[(&fids, Type::BYTEA_ARRAY)]).await? {
        if let Some(fid) = fid_of(link.get(&row, 0)?) {
            found.insert(fid, link.get(&row, 1)?);
        }
    }
    Ok(found)
}

/// In the order of the keys, so that two movers never wait for each other.
async fn bury(link: &Link, graves: &BTreeSet<(Fid, i32)>) -> Result<(), LedgerError> {
    let fids: Vec<_> = graves.iter().map(|(fid, _)| fid_bytes(*fid)).collect();
    let archives: Vec<_> = graves.iter().map(|(_, archive_id)| *archive_id).collect();
    link.execute(BURY, &[(&fids, Type::BYTEA_ARRAY), (&archives, Type::INT4_ARRAY)])
        .await?;
    Ok(())
}

/// Of copies that were just written those whose REMOVE has come before.
///
/// # Errors
/// It is not known then.
pub(super) async fn meet(link: &Link, copies: &HashMap<Fid, CopyNews>) -> Result<Vec<LateCopy>, LedgerError> {
    let written = copies.iter().filter(|(_, news)| news.record.is_some());
    let written: Vec<_> = written.map(|(fid, _)| fid_bytes(*fid)).collect();
    let mut late = Vec::new();
    for fids in written.chunks(AT_ONCE) {
        for row in link.query(MEET, &[(&fids, Type::BYTEA_ARRAY)]).await? {
            let fid = fid_of(link.get(&row, 0)?);
            let record = fid.and_then(|fid| copies.get(&fid)?.record.as_deref());
            late.extend(late_copy(fid, link.get(&row, 1)?, record));
        }
    }
    Ok(late)
}

/// If the tombstone is that copy's.
fn late_copy(fid: Option<Fid>, archive_id: i32, record: Option<&[u8]>) -> Option<LateCopy> {
    let (fid, record) = (fid?, record?);
    let is_meant = archive_id == ALL
        || Location::from_bytes(record).is_ok_and(|location| location.archive_id.get().cast_signed() == archive_id);
    is_meant.then(|| LateCopy {
        fid,
        record: record.to_vec(),
    })
}

/// Looks at all tombstones, a lot at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rounds {
    due: Instant,
    /// The last one that was looked at.
    at: (Vec<u8>, i32),
}

impl Rounds {
    /// The first one is due.
    pub(super) fn new() -> Self {
        Self {
            due: Instant::now(),
            at: (Vec::new(), ALL),
        }
    }

    /// The next lot, if it is due: old ones go, and copies that have one are given to `copies`.
    ///
    /// # Errors
    /// What is left is for the next time.
    pub(super) async fn look(&mut self, link: &Link, copies: &OthersCopies) -> Result<(), LedgerError> {
        if Instant::now() < self.due {
            return Ok(());
        }
        let lot = i64::try_from(LOT).unwrap_or(i64::MAX);
        let pruned = link.execute(PRUNE, &[(&lot, Type::INT8)]).await?;
        let rows = link
            .query(
                PAGE,
                &[(&self.at.0, Type::BYTEA), (&self.at.1, Type::INT4), (&lot, Type::INT8)],
            )
            .await?;
        let mut graves: Vec<(Option<Fid>, i32)> = Vec::with_capacity(rows.len());
        for row in &rows {
            self.at = (link.get(row, 0)?, link.get(row, 1)?);
            graves.push((fid_of(&self.at.0), self.at.1));
        }
        let found = find(link, graves.iter().filter_map(|(fid, _)| *fid)).await?;
        let late = graves.into_iter().filter_map(|(fid, archive_id)| {
            let record = fid.and_then(|fid| found.get(&fid));
            late_copy(fid, archive_id, record.map(Vec::as_slice))
        });
        copies.add_late(late);
        let is_over = rows.len() < LOT;
        if is_over {
            self.at = (Vec::new(), ALL);
        }
        let is_pruned = usize::try_from(pruned).is_ok_and(|pruned| pruned < LOT);
        self.due = Instant::now() + if is_over && is_pruned { ROUND } else { SOON };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_a_copys_of_its_archive_or_of_any_where_it_names_none() {
        let fid = Fid {
            seq: 0x2_0000_0401,
            oid: 7,
            ver: 0,
        };
        let record = br#"{"v":1,"archive":2,"key":"a/b","size":7,"etag":"\"e\""}"#;
        let late = |archive_id| late_copy(Some(fid), archive_id, Some(record)).is_some();
        assert!(late(ALL) && late(2) && !late(1));
        assert_eq!(late_copy(Some(fid), ALL, None), None);
        assert_eq!(late_copy(None, ALL, Some(record)), None);
        // Nobody can tell of which archive this is.
        assert_eq!(late_copy(Some(fid), 2, Some(b"{")), None);
    }
}
