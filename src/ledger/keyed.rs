//! What rows of actions say, asked by their keys: whose they are, and what they are.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::LedgerError;
use super::found::{Found, found};
use super::link::Link;
use super::rows::{Owner, fid_bytes, key_of};
use crate::action::ActionKey;

const OWN: &str = "\
SELECT a.fid, a.cookie, verb, archive_id, dfid, first_byte, length, gid, blocking, data, object_key, writer, upload_id, size,
    part_size, data_version
FROM lhsmtool_s3.action a, unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3) AND NOT a.answered";

const KEYS: &str = "\
SELECT a.fid, a.cookie FROM lhsmtool_s3.action a, unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3)";

const OWN_OFFERS: &str = "\
SELECT a.fid, a.cookie, COALESCE(a.offered = a.owner, false)
FROM lhsmtool_s3.action a, unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3)";

/// Those of these actions that are this mover's by their rows.
pub(super) async fn own(link: &Link, owner: &Owner, keys: &[ActionKey]) -> Result<Vec<Found>, LedgerError> {
    found(link, &rows_of(link, OWN, &owner.known_as, keys.iter().copied()).await?)
}

/// Which of these actions other movers have.
pub(super) async fn lost(
    link: &Link,
    owner: &Owner,
    keys: impl Iterator<Item = ActionKey>,
) -> Result<Vec<ActionKey>, LedgerError> {
    keys_of(link, &rows_of(link, KEYS, &owner.others, keys).await?)
}

/// Which of these actions this mover has.
pub(super) async fn held(
    link: &Link,
    owner: &Owner,
    keys: impl Iterator<Item = ActionKey>,
) -> Result<Vec<ActionKey>, LedgerError> {
    keys_of(link, &rows_of(link, KEYS, &owner.known_as, keys).await?)
}

/// The same, and which of them are offered.
pub(super) async fn own_offers(
    link: &Link,
    owner: &Owner,
    keys: impl Iterator<Item = ActionKey>,
) -> Result<BTreeMap<ActionKey, bool>, LedgerError> {
    let rows = rows_of(link, OWN_OFFERS, &owner.known_as, keys).await?;
    let mut own = BTreeMap::new();
    for row in &rows {
        let fid: Vec<u8> = link.get(row, 0)?;
        if let Some(key) = key_of(&fid, link.get(row, 1)?) {
            own.insert(key, link.get(row, 2)?);
        }
    }
    Ok(own)
}

/// What a statement says of the rows of these keys that are of these owners.
pub(super) async fn rows_of(
    link: &Link,
    statement: &str,
    owners: &[i64],
    keys: impl Iterator<Item = ActionKey>,
) -> Result<Vec<Row>, LedgerError> {
    let (fids, cookies) = columns(keys);
    link.query(
        statement,
        &[
            (&fids, Type::BYTEA_ARRAY),
            (&cookies, Type::INT8_ARRAY),
            (&owners, Type::INT8_ARRAY),
        ],
    )
    .await
}

/// Of rows that begin with FID and cookie.
pub(super) fn keys_of(link: &Link, rows: &[Row]) -> Result<Vec<ActionKey>, LedgerError> {
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let fid: Vec<u8> = link.get(row, 0)?;
        keys.extend(key_of(&fid, link.get(row, 1)?));
    }
    Ok(keys)
}

/// Keys as two columns.
pub(super) fn columns(keys: impl Iterator<Item = ActionKey>) -> (Vec<Vec<u8>>, Vec<i64>) {
    keys.map(|key| (fid_bytes(key.fid), key.cookie.0.cast_signed())).unzip()
}
