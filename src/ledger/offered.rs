//! What rows say of offers: a living mover's actions that others may take.

use tokio_postgres::types::Type;

use super::LedgerError;
use super::claim::Share;
use super::found::{Found, found};
use super::keyed::{columns, keys_of, rows_of};
use super::link::Link;
use super::peers::{GONE, TAKEN};
use super::rows::{Owner, begin, fid_of};
use crate::action::ActionKey;
use crate::types::{ArchiveId, Domain, Fid, Mdt};

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

/// Of movers whose offers say nothing any more.
const OVER: [i16; 2] = [GONE, TAKEN];
/// How often an action is taken from movers that offer it: then it stays where it is.
const MOST_HOPS: i16 = 3;

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

/// Begins to take some of what a living mover offers, as [`lot`](super::claim::lot) does; `reached`: of these MDTs and archives.
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
    let found = found(link, &rows)?;
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
    begin(link, owner).await?;
    let back = keys_of(link, &rows_of(link, TAKE_BACK, &owner.known_as, keys).await?)?;
    link.batch("COMMIT").await?;
    Ok(back)
}

/// The same of all rows that are this mover's.
pub(super) async fn withdraw(link: &Link, owner: &Owner) -> Result<(), LedgerError> {
    begin(link, owner).await?;
    link.execute(WITHDRAW, &[(&owner.known_as, Type::INT8_ARRAY)]).await?;
    link.batch("COMMIT").await
}
