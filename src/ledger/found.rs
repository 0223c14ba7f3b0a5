//! Actions as their rows have them.

use tokio_postgres::Row;

use super::LedgerError;
use super::link::Link;
use super::rows::{fid_of, key_of};
use crate::action::{Item, Kind, Verb};
use crate::journal::UploadRecord;
use crate::store::{ObjectKey, UploadId, WriterId};
use crate::types::{ArchiveId, Extent};

/// An action that another mover had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) item: Item,
    /// What it was sending in parts.
    pub(super) upload: Option<UploadRecord>,
}

/// Those of rows with the columns fid, cookie, verb, archive_id, dfid, first_byte, length, gid, blocking, data, object_key, writer,
/// upload_id, size, part_size, data_version; but for rows that say too little.
pub(super) fn found(link: &Link, rows: &[Row]) -> Result<Vec<Found>, LedgerError> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.extend(read(link, row)?);
    }
    Ok(found)
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
