//! Rows that change hands: those of a mover that was found dead, and those that others have taken from this one.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::LedgerError;
use super::link::Link;
use super::peers::{GONE, PeerRow, TAKEN};
use super::rows::{Owner, begin, fid_bytes, fid_of, key_of};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::UploadRecord;
use crate::store::{ObjectKey, UploadId, WriterId};
use crate::types::{ArchiveId, Domain, Extent, Fid, Mdt};

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

const OWN: &str = "\
SELECT a.fid, a.cookie, verb, archive_id, dfid, first_byte, length, gid, blocking, data, object_key, writer, upload_id, size,
    part_size, data_version
FROM lhsmtool_s3.action a, unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3) AND NOT a.answered";

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

/// What living movers offer, with one file of each MDT and archive.
const OFFERS: &str = "\
SELECT DISTINCT ON (m.name, a.mdt, a.archive_id) m.name, m.incarnation, a.mdt, a.archive_id, a.fid
FROM lhsmtool_s3.action a JOIN lhsmtool_s3.mover m ON m.incarnation = a.offered
WHERE a.offered IS NOT NULL AND a.owner = a.offered AND a.owner <> ALL ($1) AND a.verb IS NOT NULL AND NOT a.answered
    AND m.state <> ALL ($2) AND a.mdt IS NOT NULL AND a.archive_id = ANY ($3)";

/// Whoever offers them does not begin one before it has taken the offer back, which waits for these rows.
const OFFERED_LOT: &str = "\
SELECT fid, cookie, verb, archive_id, dfid, first_byte, length, gid, blocking, data, object_key, writer, upload_id, size,
    part_size, data_version
FROM lhsmtool_s3.action a
WHERE offered = $1 AND owner = $1 AND verb = ANY ($2) AND NOT answered
    AND EXISTS (SELECT 1 FROM unnest($3::integer[], $4::integer[]) AS k (mdt, archive_id)
        WHERE k.mdt = a.mdt AND k.archive_id = a.archive_id)
    AND EXISTS (SELECT 1 FROM lhsmtool_s3.mover m WHERE m.incarnation = $1 AND m.state <> ALL ($5))
LIMIT $6 FOR UPDATE OF a SKIP LOCKED";

const OFFER: &str = "\
UPDATE lhsmtool_s3.action a SET offered = $4, mdt = COALESCE(a.mdt, k.mdt)
FROM unnest($1::bytea[], $2::bigint[], $3::integer[]) AS k (fid, cookie, mdt)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = $4 AND NOT a.answered AND a.hops < $5
RETURNING a.fid, a.cookie";

/// Those that somebody is about to take stay offered: who waited for that would renew nothing meanwhile.
const TAKE_BACK: &str = "\
WITH own AS (
    SELECT a.fid, a.cookie FROM lhsmtool_s3.action a, unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
    WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3) FOR UPDATE OF a SKIP LOCKED)
UPDATE lhsmtool_s3.action a SET offered = NULL FROM own WHERE a.fid = own.fid AND a.cookie = own.cookie
RETURNING a.fid, a.cookie";

const WITHDRAW: &str = "UPDATE lhsmtool_s3.action SET offered = NULL WHERE owner = ANY ($1) AND offered IS NOT NULL";

const OWNED_BY: &str = "\
SELECT a.fid, a.cookie FROM lhsmtool_s3.action a, unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3)";

const OWN_OFFERS: &str = "\
SELECT a.fid, a.cookie, COALESCE(a.offered = a.owner, false)
FROM lhsmtool_s3.action a, unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3)";

/// Of movers whose offers say nothing any more.
const OVER: [i16; 2] = [GONE, TAKEN];
/// How often an action is taken from movers that offer it: then it stays where it is.
const MOST_HOPS: i16 = 3;

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
    fn verbs(self) -> Vec<i16> {
        match self {
            Self::Restores => vec![2],
            Self::Rest => vec![1, 3],
        }
    }
}

/// What a living mover offers of one MDT and archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Offer {
    pub(super) mover: String,
    pub(super) incarnation: i64,
    pub(super) mdt: Mdt,
    pub(super) archive_id: ArchiveId,
    /// One of its files.
    pub(super) fid: Fid,
}

/// An action that another mover had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) item: Item,
    /// What it was sending in parts.
    pub(super) upload: Option<UploadRecord>,
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
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.extend(read(link, row)?);
    }
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

/// Those of these actions that are this mover's by their rows.
pub(super) async fn own(link: &Link, owner: &Owner, keys: &[ActionKey]) -> Result<Vec<Found>, LedgerError> {
    let (fids, cookies) = columns(keys.iter().copied());
    let rows = link
        .query(
            OWN,
            &[
                (&fids, Type::BYTEA_ARRAY),
                (&cookies, Type::INT8_ARRAY),
                (&owner.known_as, Type::INT8_ARRAY),
            ],
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.extend(read(link, row)?);
    }
    Ok(found)
}

/// Which of these actions other movers have.
pub(super) async fn lost(
    link: &Link,
    owner: &Owner,
    keys: impl Iterator<Item = ActionKey>,
) -> Result<Vec<ActionKey>, LedgerError> {
    owned_by(link, &owner.others, keys).await
}

/// Which of these actions this mover has.
pub(super) async fn held(
    link: &Link,
    owner: &Owner,
    keys: impl Iterator<Item = ActionKey>,
) -> Result<Vec<ActionKey>, LedgerError> {
    owned_by(link, &owner.known_as, keys).await
}

/// The same, and which of them are offered.
pub(super) async fn own_offers(
    link: &Link,
    owner: &Owner,
    keys: impl Iterator<Item = ActionKey>,
) -> Result<BTreeMap<ActionKey, bool>, LedgerError> {
    let (fids, cookies) = columns(keys);
    let rows = link
        .query(
            OWN_OFFERS,
            &[
                (&fids, Type::BYTEA_ARRAY),
                (&cookies, Type::INT8_ARRAY),
                (&owner.known_as, Type::INT8_ARRAY),
            ],
        )
        .await?;
    let mut own = BTreeMap::new();
    for row in &rows {
        let fid: Vec<u8> = link.get(row, 0)?;
        if let Some(key) = key_of(&fid, link.get(row, 1)?) {
            own.insert(key, link.get(row, 2)?);
        }
    }
    Ok(own)
}

async fn owned_by(
    link: &Link,
    owners: &[i64],
    keys: impl Iterator<Item = ActionKey>,
) -> Result<Vec<ActionKey>, LedgerError> {
    let (fids, cookies) = columns(keys);
    let rows = link
        .query(
            OWNED_BY,
            &[
                (&fids, Type::BYTEA_ARRAY),
                (&cookies, Type::INT8_ARRAY),
                (&owners, Type::INT8_ARRAY),
            ],
        )
        .await?;
    keys_of(link, &rows)
}

/// Of rows that begin with FID and cookie.
fn keys_of(link: &Link, rows: &[Row]) -> Result<Vec<ActionKey>, LedgerError> {
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let fid: Vec<u8> = link.get(row, 0)?;
        keys.extend(key_of(&fid, link.get(row, 1)?));
    }
    Ok(keys)
}

/// What other movers offer of these archives.
pub(super) async fn offers(link: &Link, owner: &Owner, archives: &[i32]) -> Result<Vec<Offer>, LedgerError> {
    let rows = link
        .query(
            OFFERS,
            &[
                (&owner.known_as, Type::INT8_ARRAY),
                (&OVER.as_slice(), Type::INT2_ARRAY),
                (&archives, Type::INT4_ARRAY),
            ],
        )
        .await?;
    let mut offers = Vec::with_capacity(rows.len());
    for row in &rows {
        let (mdt, archive): (i32, i32) = (link.get(row, 2)?, link.get(row, 3)?);
        let fid: Vec<u8> = link.get(row, 4)?;
        let Some((archive_id, fid)) = ArchiveId::new(archive.cast_unsigned()).zip(fid_of(&fid)) else {
            continue;
        };
        offers.push(Offer {
            mover: link.get(row, 0)?,
            incarnation: link.get(row, 1)?,
            mdt: Mdt(mdt.cast_unsigned()),
            archive_id,
            fid,
        });
    }
    Ok(offers)
}

/// Begins to take some of what a living mover offers, as [`lot`] does; `reached`: of these MDTs and archives.
pub(super) async fn offered_lot(
    link: &Link,
    owner: &Owner,
    from: i64,
    share: Share,
    reached: &[(Mdt, ArchiveId)],
    most: usize,
) -> Result<Vec<Found>, LedgerError> {
    begin(link, owner).await?;
    let mdts: Vec<_> = reached.iter().map(|(mdt, _)| mdt.0.cast_signed()).collect();
    let archives: Vec<_> = reached.iter().map(|(_, id)| id.get().cast_signed()).collect();
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = link
        .query(
            OFFERED_LOT,
            &[
                (&from, Type::INT8),
                (&share.verbs(), Type::INT2_ARRAY),
                (&mdts, Type::INT4_ARRAY),
                (&archives, Type::INT4_ARRAY),
                (&OVER.as_slice(), Type::INT2_ARRAY),
                (&most, Type::INT8),
            ],
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.extend(read(link, row)?);
    }
    if found.is_empty() {
        link.batch("ROLLBACK").await?;
    }
    Ok(found)
}

/// Has own rows say that whoever reaches their MDT and their store may take them; of which that is so now.
pub(super) async fn offer(
    link: &Link,
    owner: &Owner,
    actions: &[(ActionKey, Domain)],
) -> Result<Vec<ActionKey>, LedgerError> {
    let (fids, cookies) = columns(actions.iter().map(|(key, _)| *key));
    let mdts: Vec<_> = actions
        .iter()
        .map(|(_, domain)| domain.map(|mdt| mdt.0.cast_signed()))
        .collect();
    // A late one of an earlier connection would offer what was taken back by the next.
    begin(link, owner).await?;
    let rows = link
        .query(
            OFFER,
            &[
                (&fids, Type::BYTEA_ARRAY),
                (&cookies, Type::INT8_ARRAY),
                (&mdts, Type::INT4_ARRAY),
                (&owner.incarnation, Type::INT8),
                (&MOST_HOPS, Type::INT2),
            ],
        )
        .await?;
    let offered = keys_of(link, &rows)?;
    link.batch("COMMIT").await?;
    Ok(offered)
}

/// Has own rows say no more that others may take them; of which that is so now. Of the others somebody is about to take some,
/// or has.
pub(super) async fn take_back(
    link: &Link,
    owner: &Owner,
    keys: impl Iterator<Item = ActionKey>,
) -> Result<Vec<ActionKey>, LedgerError> {
    let (fids, cookies) = columns(keys);
    begin(link, owner).await?;
    let rows = link
        .query(
            TAKE_BACK,
            &[
                (&fids, Type::BYTEA_ARRAY),
                (&cookies, Type::INT8_ARRAY),
                (&owner.known_as, Type::INT8_ARRAY),
            ],
        )
        .await?;
    let back = keys_of(link, &rows)?;
    link.batch("COMMIT").await?;
    Ok(back)
}

/// The same of all rows that are this mover's.
pub(super) async fn withdraw(link: &Link, owner: &Owner) -> Result<(), LedgerError> {
    begin(link, owner).await?;
    link.execute(WITHDRAW, &[(&owner.known_as, Type::INT8_ARRAY)]).await?;
    link.batch("COMMIT").await
}

fn columns(keys: impl Iterator<Item = ActionKey>) -> (Vec<Vec<u8>>, Vec<i64>) {
    keys.map(|key| (fid_bytes(key.fid), key.cookie.0.cast_signed())).unzip()
}

/// `None`: a row that says too little of its action.
fn read(link: &Link, row: &Row) -> Result<Option<Found>, LedgerError> {
    let fid: Vec<u8> = link.get(row, 0)?;
    let Some(key) = key_of(&fid, link.get(row, 1)?) else {
        return Ok(None);
    };
    let verb: Option<i16> = link.get(row, 2)?;
    let kind = match verb {
        Some(1) => Kind::Do(Verb::Archive),
        Some(2) => Kind::Do(Verb::Restore),
        Some(3) => Kind::Do(Verb::Remove),
        _ => return Ok(None),
    };
    let archive: Option<i32> = link.get(row, 3)?;
    let dfid: Option<Vec<u8>> = link.get(row, 4)?;
    let (first, length): (Option<i64>, Option<i64>) = (link.get(row, 5)?, link.get(row, 6)?);
    let gid: Option<i64> = link.get(row, 7)?;
    let blocking: Option<bool> = link.get(row, 8)?;
    let data: Option<Vec<u8>> = link.get(row, 9)?;
    let item = Item {
        kind,
        fid: key.fid,
        dfid: dfid.and_then(|dfid| fid_of(&dfid)).unwrap_or(key.fid),
        cookie: key.cookie,
        archive_id: archive.and_then(|id| ArchiveId::new(id.cast_unsigned())),
        extent: Extent {
            offset: first.unwrap_or(0).cast_unsigned(),
            length: length.unwrap_or(-1).cast_unsigned(),
        },
        gid: gid.unwrap_or(0).cast_unsigned(),
        blocking: blocking.unwrap_or(false),
        data: data.unwrap_or_default().into(),
    };
    Ok(Some(Found {
        upload: upload(link, row, item.archive_id)?,
        item,
    }))
}

/// One in parts whose file's data can be told from others'. A single PUT is begun anew: there is nothing to go on with.
fn upload(link: &Link, row: &Row, archive_id: Option<ArchiveId>) -> Result<Option<UploadRecord>, LedgerError> {
    let key: Option<String> = link.get(row, 10)?;
    let writer: Option<String> = link.get(row, 11)?;
    let id: Option<String> = link.get(row, 12)?;
    let size: Option<i64> = link.get(row, 13)?;
    let part_size: Option<i64> = link.get(row, 14)?;
    let data_version: Option<i64> = link.get(row, 15)?;
    let told = || {
        let key = ObjectKey::new(key?).ok()?;
        let single = UploadRecord::single(archive_id?, &key, WriterId::parse(&writer?)?);
        let (size, part_size) = (size?.cast_unsigned(), part_size?.cast_unsigned());
        let version = data_version?.cast_unsigned();
        let upload = single.multipart(&UploadId::new(id?), size, part_size, Some(version));
        Some(upload.of_another(true))
    };
    Ok(told())
}
