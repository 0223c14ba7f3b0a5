//! Rows that change hands: who is dead, and how others take what it had, or what one that lives has
//! `offered`.

use tokio_postgres::types::Type;

use super::LedgerError;
use super::found::{Found, found};
use super::keyed::columns;
use super::link::Link;
use super::peers::{PeerRow, TAKEN};
use super::rows::{Owner, begin};

const PEERS: &str = "SELECT name, incarnation, renewals, state, address FROM lhsmtool_s3.mover WHERE name <> $1";

/// It lives if it has renewed since it was looked at last, and then nothing changes. One in the middle of a transaction is
/// looked at again. One that said that it goes (3), and left nothing, has gone.
const FIND_DEAD: &str = "\
UPDATE lhsmtool_s3.mover SET state = $4, since = now() WHERE name = (
    SELECT m.name FROM lhsmtool_s3.mover m
    WHERE m.name = $1 AND m.incarnation = $2 AND m.renewals = $3 AND m.state <> $4
        AND (m.state <> 3 OR EXISTS (SELECT 1 FROM lhsmtool_s3.action a WHERE a.owner = $2 AND NOT a.answered))
    FOR UPDATE OF m SKIP LOCKED)";

/// Movers that are no more, by the ledger's own clock, on which nothing else depends; and incarnations that a mover left whose
/// file was lost, as soon as nothing of them is to be taken over. Their numbers are random, and nobody's again.
const PRUNE: &str = "\
DELETE FROM lhsmtool_s3.mover WHERE name IN (
    SELECT m.name FROM lhsmtool_s3.mover m
    WHERE m.name <> $1 AND m.state IN (3, 4) AND (
        (m.archive_ids = '{}' AND NOT EXISTS (
            SELECT 1 FROM lhsmtool_s3.action a WHERE a.owner = m.incarnation AND NOT a.answered))
        OR (m.since < now() - interval '30 days' AND NOT EXISTS (
            SELECT 1 FROM lhsmtool_s3.action a WHERE a.owner = m.incarnation)))
    FOR UPDATE OF m SKIP LOCKED)";

/// It can't claim its row again before the transaction is over.
const HOLD_DEAD: &str = "\
SELECT 1 FROM lhsmtool_s3.mover WHERE name = $1 AND incarnation = $2 AND state = $3 FOR SHARE SKIP LOCKED";

const LOT: &str = "\
SELECT fid, cookie, verb, archive_id, dfid, first_byte, length, gid, blocking, data, object_key, writer, upload_id, size,
    part_size, data_version
FROM lhsmtool_s3.action
WHERE owner = $1 AND verb = ANY ($2) AND NOT answered AND (archive_id IS NULL OR archive_id = ANY ($3))
LIMIT $4 FOR UPDATE SKIP LOCKED";

/// What is not gone on with is nothing to the new owner; its old one knows of it.
const TAKE: &str = "\
UPDATE lhsmtool_s3.action a SET owner = $4,
    object_key = CASE WHEN k.goes_on THEN a.object_key END, writer = CASE WHEN k.goes_on THEN a.writer END,
    upload_id = CASE WHEN k.goes_on THEN a.upload_id END, size = CASE WHEN k.goes_on THEN a.size END,
    part_size = CASE WHEN k.goes_on THEN a.part_size END, previous = NULL, behind = false, offered = NULL,
    hops = CASE WHEN a.offered = a.owner THEN a.hops + 1 ELSE a.hops END,
    data_version = CASE WHEN k.goes_on THEN a.data_version END
FROM unnest($1::bytea[], $2::bigint[], $5::boolean[]) AS k (fid, cookie, goes_on)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = $3";

/// Which actions of a dead one are taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Share {
    /// Readers wait for them.
    Restores,
    /// The others: a node that was cut off may still write what it had under way.
    Rest,
}

impl Share {
    /// As rows have verbs.
    pub(super) fn verbs(self) -> Vec<i16> {
        match self {
            Self::Restores => vec![2],
            Self::Rest => vec![1, 3],
        }
    }
}

/// All other movers.
pub(super) async fn peers(link: &Link, name: &str) -> Result<Vec<PeerRow>, LedgerError> {
    let rows = link.query(PEERS, &[(&name, Type::TEXT)]).await?;
    rows.iter()
        .map(|row| {
            Ok(PeerRow {
                name: link.get(row, 0)?,
                incarnation: link.get(row, 1)?,
                renewals: link.get(row, 2)?,
                state: link.get(row, 3)?,
                address: link.get(row, 4)?,
            })
        })
        .collect()
}

/// Says that a mover is dead: it writes nothing any more before it has claimed its row anew. `false`: it lives, somebody else
/// has said so, or it has ended and left nothing.
pub(super) async fn find_dead(link: &Link, peer: &PeerRow) -> Result<bool, LedgerError> {
    let found = link
        .execute(
            FIND_DEAD,
            &[
                (&peer.name, Type::TEXT),
                (&peer.incarnation, Type::INT8),
                (&peer.renewals, Type::INT8),
                (&TAKEN, Type::INT2),
            ],
        )
        .await?;
    Ok(found == 1)
}

/// Takes rows away that are of no use to anybody any more; how many.
pub(super) async fn prune(link: &Link, name: &str) -> Result<u64, LedgerError> {
    link.execute(PRUNE, &[(&name, Type::TEXT)]).await
}

/// Begins to take some actions of a dead mover: nobody else gets these before [`take`] or the end of the connection. `None`:
/// it is not dead any more.
pub(super) async fn lot(
    link: &Link,
    owner: &Owner,
    dead: &PeerRow,
    share: Share,
    archives: &[i32],
    most: usize,
) -> Result<Option<Vec<Found>>, LedgerError> {
    begin(link, owner).await?;
    let held = link
        .query(
            HOLD_DEAD,
            &[
                (&dead.name, Type::TEXT),
                (&dead.incarnation, Type::INT8),
                (&TAKEN, Type::INT2),
            ],
        )
        .await?;
    if held.is_empty() {
        link.batch("ROLLBACK").await?;
        return Ok(None);
    }
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = link
        .query(
            LOT,
            &[
                (&dead.incarnation, Type::INT8),
                (&share.verbs(), Type::INT2_ARRAY),
                (&archives, Type::INT4_ARRAY),
                (&most, Type::INT8),
            ],
        )
        .await?;
    let found = found(link, &rows)?;
    if found.is_empty() {
        link.batch("ROLLBACK").await?;
    }
    Ok(Some(found))
}

/// Ends it: the rows are this mover's.
pub(super) async fn take(link: &Link, owner: &Owner, dead: &PeerRow, found: &[Found]) -> Result<(), LedgerError> {
    let (fids, cookies) = columns(found.iter().map(|found| found.item.key()));
    let goes_on: Vec<_> = found.iter().map(|found| found.upload.is_some()).collect();
    link.execute(
        TAKE,
        &[
            (&fids, Type::BYTEA_ARRAY),
            (&cookies, Type::INT8_ARRAY),
            (&dead.incarnation, Type::INT8),
            (&owner.incarnation, Type::INT8),
            (&goes_on, Type::BOOL_ARRAY),
        ],
    )
    .await?;
    link.batch("COMMIT").await
}
