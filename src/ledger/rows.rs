//! Changes as rows: what is written in one transaction.

use tokio_postgres::types::Type;

use super::LedgerError;
use super::changes::{Changes, CopyNews, Word};
use super::link::Link;
use super::peers::TAKEN;
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::UploadRecord;
use crate::types::{ArchiveId, Cookie, Domain, Fid};

/// Rows of one statement.
const AT_ONCE: usize = 1000;

/// Of whom rows are, in this process's writing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    /// As new rows name it.
    pub(super) incarnation: i64,
    /// Its own and those that this node had before: whose rows are its own.
    pub(super) known_as: Vec<i64>,
    /// Of the other movers that there are. Rows of an incarnation that nobody has any more are of whoever holds the action.
    pub(super) others: Vec<i64>,
}

/// Whether rows that another mover has may be taken from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rows {
    /// The coordinator has just given us these: whoever had them before has them no more.
    Fresh,
    /// We had them before, and somebody may have taken them over since.
    Own,
}

const UPSERT_ACTIONS: &str = "\
INSERT INTO lhsmtool_s3.action AS a
    (fid, cookie, owner, mdt, verb, archive_id, dfid, first_byte, length, gid, blocking, data)
SELECT fid, cookie, $3, mdt, verb, archive_id, dfid, first_byte, length, gid, blocking, data
FROM unnest($1::bytea[], $2::bigint[], $4::integer[], $5::smallint[], $6::integer[], $7::bytea[], $8::bigint[],
            $9::bigint[], $10::bigint[], $11::boolean[], $12::bytea[])
    AS n (fid, cookie, mdt, verb, archive_id, dfid, first_byte, length, gid, blocking, data)
ON CONFLICT (fid, cookie) DO UPDATE SET
    owner = EXCLUDED.owner, mdt = EXCLUDED.mdt, verb = EXCLUDED.verb, archive_id = EXCLUDED.archive_id,
    dfid = EXCLUDED.dfid, first_byte = EXCLUDED.first_byte, length = EXCLUDED.length, gid = EXCLUDED.gid,
    blocking = EXCLUDED.blocking, data = EXCLUDED.data, answered = false, behind = false,
    offered = NULL
WHERE $13 OR a.owner = ANY ($14) OR a.owner <> ALL ($15)";

const UPSERT_UPLOADS: &str = "\
INSERT INTO lhsmtool_s3.action AS a
    (fid, cookie, owner, answered, archive_id, object_key, writer, upload_id, size, part_size, data_version, previous)
SELECT fid, cookie, $3, true, archive_id, object_key, writer, upload_id, size, part_size, data_version, previous
FROM unnest($1::bytea[], $2::bigint[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[],
            $10::bigint[], $11::text[])
    AS n (fid, cookie, archive_id, object_key, writer, upload_id, size, part_size, data_version, previous)
ON CONFLICT (fid, cookie) DO UPDATE SET
    owner = EXCLUDED.owner, archive_id = COALESCE(a.archive_id, EXCLUDED.archive_id),
    object_key = EXCLUDED.object_key, writer = EXCLUDED.writer, upload_id = EXCLUDED.upload_id, size = EXCLUDED.size,
    part_size = EXCLUDED.part_size, data_version = EXCLUDED.data_version, previous = EXCLUDED.previous
WHERE a.owner = ANY ($12)";

const DELETE_ACTIONS: &str = "\
DELETE FROM lhsmtool_s3.action a USING unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3)";
const AND_NOTHING_WRITTEN: &str = " AND a.object_key IS NULL";
const AND_ANSWERED: &str = " AND a.answered";

const NOTHING_WRITTEN: &str = "\
UPDATE lhsmtool_s3.action a SET object_key = NULL, writer = NULL, upload_id = NULL, size = NULL, part_size = NULL,
    data_version = NULL, previous = NULL
FROM unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3) AND a.object_key IS NOT NULL";

const ANSWERED: &str = "\
UPDATE lhsmtool_s3.action a SET answered = true FROM unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($3) AND NOT a.answered";

const UPSERT_COPIES: &str = "\
INSERT INTO lhsmtool_s3.copy AS c (fid, stamp, record)
SELECT fid, stamp, record FROM unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS n (fid, stamp, record)
ON CONFLICT (fid) DO UPDATE SET stamp = EXCLUDED.stamp, record = EXCLUDED.record
WHERE c.stamp < EXCLUDED.stamp OR (c.stamp = EXCLUDED.stamp AND c.record <> EXCLUDED.record)";

const DELETE_COPIES: &str = "\
DELETE FROM lhsmtool_s3.copy c USING unnest($1::bytea[], $2::bigint[]) AS k (fid, stamp)
WHERE c.fid = k.fid AND c.stamp <= k.stamp";

/// Holds the own row until the transaction is over: a late one of an earlier connection is seen by whoever claims the row.
/// One that was found dead writes nothing before it has claimed it again.
const HOLD_ROW: &str = "\
SELECT 1 FROM lhsmtool_s3.mover WHERE name = $1 AND incarnation = $2 AND state <> $3 FOR SHARE";

/// A FID as its 16 bytes, which sort as FIDs do.
pub(super) fn fid_bytes(fid: Fid) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&fid.seq.to_be_bytes());
    bytes.extend_from_slice(&fid.oid.to_be_bytes());
    bytes.extend_from_slice(&fid.ver.to_be_bytes());
    bytes
}

/// From these; `None` for others.
pub(super) fn fid_of(bytes: &[u8]) -> Option<Fid> {
    let (seq, rest) = bytes.split_first_chunk::<8>()?;
    let (oid, rest) = rest.split_first_chunk::<4>()?;
    let ver: &[u8; 4] = rest.try_into().ok()?;
    Some(Fid {
        seq: u64::from_be_bytes(*seq),
        oid: u32::from_be_bytes(*oid),
        ver: u32::from_be_bytes(*ver),
    })
}

/// A key from a row's columns.
pub(super) fn key_of(fid: &[u8], cookie: i64) -> Option<ActionKey> {
    Some(ActionKey {
        cookie: Cookie(cookie.cast_unsigned()),
        fid: fid_of(fid)?,
    })
}

/// Writes all of it, in one transaction; how many rows that was about. `domain`: which MDT a file is on.
///
/// # Errors
/// None of it may be there then, or all.
pub(super) async fn write(
    link: &Link,
    owner: &Owner,
    changes: &Changes,
    rows: Rows,
    domain: impl Fn(Fid) -> Domain,
) -> Result<u64, LedgerError> {
    if changes.is_empty() {
        return Ok(0);
    }
    let sorted = Sorted::of(changes);
    begin(link, owner).await?;
    for items in sorted.taken.chunks(AT_ONCE) {
        upsert_actions(link, owner, items, rows, &domain).await?;
    }
    for uploads in sorted.writing.chunks(AT_ONCE) {
        upsert_uploads(link, owner, uploads).await?;
    }
    let with = |condition| format!("{DELETE_ACTIONS}{condition}");
    change(link, owner, DELETE_ACTIONS, &sorted.over).await?;
    change(link, owner, &with(AND_ANSWERED), &sorted.settled).await?;
    change(link, owner, NOTHING_WRITTEN, &sorted.settled).await?;
    change(link, owner, &with(AND_NOTHING_WRITTEN), &sorted.ended).await?;
    change(link, owner, ANSWERED, &sorted.ended).await?;
    for copies in sorted.copies.chunks(AT_ONCE) {
        write_copies(link, copies).await?;
    }
    link.batch("COMMIT").await?;
    Ok(changes.len() as u64)
}

/// Begins a transaction that holds the own row to its end: nobody finds this mover dead in between, and takes what it is about.
///
/// # Errors
/// It is another one's by now, or was found dead.
pub(super) async fn begin(link: &Link, owner: &Owner) -> Result<(), LedgerError> {
    link.batch("BEGIN").await?;
    let held = link
        .query(
            HOLD_ROW,
            &[
                (&owner.name, Type::TEXT),
                (&owner.incarnation, Type::INT8),
                (&TAKEN, Type::INT2),
            ],
        )
        .await?;
    if held.is_empty() {
        return Err(LedgerError::RowLost {
            name: owner.name.clone(),
        });
    }
    Ok(())
}

/// The changes by what is to be done, each in the order of the keys, so that two movers never wait for each other.
#[derive(Debug, Default)]
struct Sorted<'a> {
    taken: Vec<&'a Item>,
    writing: Vec<(ActionKey, &'a UploadRecord)>,
    ended: Vec<ActionKey>,
    settled: Vec<ActionKey>,
    /// Ended and settled.
    over: Vec<ActionKey>,
    copies: Vec<(Fid, &'a CopyNews)>,
}

impl<'a> Sorted<'a> {
    fn of(changes: &'a Changes) -> Self {
        let mut sorted = Self::default();
        let mut keys: Vec<_> = changes.actions.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| (key.fid, key.cookie));
        for (key, news) in keys {
            if let Word::Is(item) = &news.item {
                sorted.taken.push(item);
            }
            if let Word::Is(upload) = &news.upload {
                sorted.writing.push((*key, upload));
            }
            match (&news.item, &news.upload) {
                (Word::Gone, Word::Gone) => sorted.over.push(*key),
                (Word::Gone, _) => sorted.ended.push(*key),
                (_, Word::Gone) => sorted.settled.push(*key),
                _ => {}
            }
        }
        sorted.copies = changes.copies.iter().map(|(fid, news)| (*fid, news)).collect();
        sorted.copies.sort_unstable_by_key(|(fid, _)| *fid);
        sorted
    }
}

const fn verb(item: &Item) -> Option<i16> {
    match item.kind {
        Kind::Do(Verb::Archive) => Some(1),
        Kind::Do(Verb::Restore) => Some(2),
        Kind::Do(Verb::Remove) => Some(3),
        // Never admitted.
        Kind::Cancel | Kind::Unknown(_) => None,
    }
}

fn archive(id: ArchiveId) -> i32 {
    id.get().cast_signed()
}

async fn upsert_actions(
    link: &Link,
    owner: &Owner,
    items: &[&Item],
    rows: Rows,
    domain: &impl Fn(Fid) -> Domain,
) -> Result<(), LedgerError> {
    let fids: Vec<_> = items.iter().map(|item| fid_bytes(item.fid)).collect();
    let cookies: Vec<_> = items.iter().map(|item| item.cookie.0.cast_signed()).collect();
    let mdts: Vec<_> = items
        .iter()
        .map(|item| domain(item.fid).map(|mdt| mdt.0.cast_signed()))
        .collect();
    let verbs: Vec<_> = items.iter().map(|item| verb(item)).collect();
    let archives: Vec<_> = items.iter().map(|item| item.archive_id.map(archive)).collect();
    let data_fids: Vec<_> = items.iter().map(|item| fid_bytes(item.dfid)).collect();
    let starts: Vec<_> = items.iter().map(|item| item.extent.offset.cast_signed()).collect();
    let lengths: Vec<_> = items.iter().map(|item| item.extent.length.cast_signed()).collect();
    let gids: Vec<_> = items.iter().map(|item| item.gid.cast_signed()).collect();
    let blocking: Vec<_> = items.iter().map(|item| item.blocking).collect();
    let data: Vec<&[u8]> = items.iter().map(|item| &*item.data).collect();
    let from_anybody = rows == Rows::Fresh;
    link.execute(
        UPSERT_ACTIONS,
        &[
            (&fids, Type::BYTEA_ARRAY),
            (&cookies, Type::INT8_ARRAY),
            (&owner.incarnation, Type::INT8),
            (&mdts, Type::INT4_ARRAY),
            (&verbs, Type::INT2_ARRAY),
            (&archives, Type::INT4_ARRAY),
            (&data_fids, Type::BYTEA_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&lengths, Type::INT8_ARRAY),
            (&gids, Type::INT8_ARRAY),
            (&blocking, Type::BOOL_ARRAY),
            (&data, Type::BYTEA_ARRAY),
            (&from_anybody, Type::BOOL),
            (&owner.known_as, Type::INT8_ARRAY),
            (&owner.others, Type::INT8_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

async fn upsert_uploads(link: &Link, owner: &Owner, uploads: &[(ActionKey, &UploadRecord)]) -> Result<(), LedgerError> {
    let fids: Vec<_> = uploads.iter().map(|(key, _)| fid_bytes(key.fid)).collect();
    let cookies: Vec<_> = uploads.iter().map(|(key, _)| key.cookie.0.cast_signed()).collect();
    let each = || uploads.iter().map(|(_, upload)| upload);
    let targets: Vec<_> = each().map(|upload| upload.target()).collect();
    let archives: Vec<_> = targets
        .iter()
        .map(|target| target.as_ref().map(|(id, _)| archive(*id)))
        .collect();
    // Empty, which is no key, where there is none: the row still says that something was written.
    let object_keys: Vec<_> = targets
        .iter()
        .map(|target| target.as_ref().map_or("", |(_, key)| key.as_str()))
        .collect();
    let writers: Vec<_> = each()
        .map(|upload| upload.writer().map(|writer| writer.to_string()))
        .collect();
    let upload_ids: Vec<_> = each().map(|upload| upload.upload().map(|id| id.as_str())).collect();
    let sizes: Vec<_> = each().map(|upload| upload.size.cast_signed()).collect();
    let part_sizes: Vec<_> = each().map(|upload| upload.part_size.cast_signed()).collect();
    let data_versions: Vec<_> = each().map(|upload| upload.data_version.map(u64::cast_signed)).collect();
    let previous: Vec<_> = each()
        .map(|upload| {
            let (id, key, etag) = upload.previous()?;
            serde_json::to_string(&(id.get(), key.as_str(), etag)).ok()
        })
        .collect();
    link.execute(
        UPSERT_UPLOADS,
        &[
            (&fids, Type::BYTEA_ARRAY),
            (&cookies, Type::INT8_ARRAY),
            (&owner.incarnation, Type::INT8),
            (&archives, Type::INT4_ARRAY),
            (&object_keys, Type::TEXT_ARRAY),
            (&writers, Type::TEXT_ARRAY),
            (&upload_ids, Type::TEXT_ARRAY),
            (&sizes, Type::INT8_ARRAY),
            (&part_sizes, Type::INT8_ARRAY),
            (&data_versions, Type::INT8_ARRAY),
            (&previous, Type::TEXT_ARRAY),
            (&owner.known_as, Type::INT8_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

/// Does something with the rows of these keys.
async fn change(link: &Link, owner: &Owner, statement: &str, keys: &[ActionKey]) -> Result<(), LedgerError> {
    for keys in keys.chunks(AT_ONCE) {
        let fids: Vec<_> = keys.iter().map(|key| fid_bytes(key.fid)).collect();
        let cookies: Vec<_> = keys.iter().map(|key| key.cookie.0.cast_signed()).collect();
        link.execute(
            statement,
            &[
                (&fids, Type::BYTEA_ARRAY),
                (&cookies, Type::INT8_ARRAY),
                (&owner.known_as, Type::INT8_ARRAY),
            ],
        )
        .await?;
    }
    Ok(())
}

async fn write_copies(link: &Link, copies: &[(Fid, &CopyNews)]) -> Result<(), LedgerError> {
    let (mut fids, mut stamps, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let (mut gone, mut since) = (Vec::new(), Vec::new());
    for (fid, news) in copies {
        match &news.record {
            Some(record) => {
                fids.push(fid_bytes(*fid));
                stamps.push(news.stamp);
                records.push(record.as_slice());
            }
            None => {
                gone.push(fid_bytes(*fid));
                since.push(news.stamp);
            }
        }
    }
    if !fids.is_empty() {
        link.execute(
            UPSERT_COPIES,
            &[
                (&fids, Type::BYTEA_ARRAY),
                (&stamps, Type::INT8_ARRAY),
                (&records, Type::BYTEA_ARRAY),
            ],
        )
        .await?;
    }
    if !gone.is_empty() {
        link.execute(DELETE_COPIES, &[(&gone, Type::BYTEA_ARRAY), (&since, Type::INT8_ARRAY)])
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::changes::ActionNews;
    use crate::store::{ObjectKey, WriterId};
    use crate::types::Extent;

    fn fid(seq: u64, oid: u32) -> Fid {
        Fid { seq, oid, ver: 0 }
    }

    fn item(oid: u32) -> Item {
        let fid = fid(0x2_0000_0401, oid);
        Item {
            kind: Kind::Do(Verb::Archive),
            fid,
            dfid: fid,
            cookie: Cookie(u64::from(oid)),
            archive_id: ArchiveId::new(1),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        }
    }

    #[test]
    fn a_fid_is_the_same_from_its_bytes_and_sorts_as_they_do() {
        let mut fids = [fid(u64::MAX, 1), fid(2, 0x100), fid(2, 0xff), fid(1, u32::MAX)];
        for fid in fids {
            assert_eq!(fid_of(&fid_bytes(fid)), Some(fid));
        }
        fids.sort_unstable();
        assert!(fids.is_sorted_by_key(|fid| fid_bytes(*fid)));
        assert_eq!((fid_of(&[0; 15]), fid_of(&[0; 17])), (None, None));
        let key = key_of(&fid_bytes(fid(2, 3)), -1).unwrap();
        assert_eq!(key.cookie, Cookie(u64::MAX));
    }

    #[test]
    fn what_ended_and_is_settled_goes_in_one_step_and_the_rest_by_what_is_left_of_it() {
        let upload = UploadRecord::single(
            ArchiveId::new(1).unwrap(),
            &ObjectKey::new("a").unwrap(),
            WriterId::random(),
        );
        let mut changes = Changes::default();
        let items: Vec<_> = (0..6).map(item).collect();
        let key = |oid: usize| items[oid].key();
        let begun = ActionNews {
            item: Word::Is(Box::new(items[5].clone())),
            upload: Word::Is(Box::new(upload.clone())),
        };
        changes.actions.insert(key(5), begun);
        changes.admitted(&items[4]);
        changes.uploading(key(3), &upload);
        changes.ended(key(3));
        changes.ended(key(2));
        changes.settled(key(2));
        changes.settled(key(1));
        changes.ended(key(0));
        let sorted = Sorted::of(&changes);
        let taken: Vec<_> = sorted.taken.iter().map(|item| item.fid.oid).collect();
        let writing: Vec<_> = sorted.writing.iter().map(|(key, _)| key.fid.oid).collect();
        assert_eq!((taken, writing), (vec![4, 5], vec![3, 5]));
        assert_eq!(sorted.over, [key(2)]);
        assert_eq!(sorted.settled, [key(1)]);
        assert_eq!(sorted.ended, [key(0), key(3)]);
    }
}
