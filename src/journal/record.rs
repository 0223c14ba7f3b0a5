//! Values of the journal's tables: JSON with a version, so that a later release can read an earlier one's.

use serde::{Deserialize, Serialize};

use super::tables::ActionId;
use crate::action::{Item, Kind, Verb};
use crate::store::{Location, ObjectKey, SentPart, UploadId, WriterId};
use crate::types::{ArchiveId, Cookie, Extent, Fid};

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct ItemRecord {
    v: u32,
    verb: VerbRecord,
    dfid: String,
    archive: Option<u32>,
    offset: u64,
    length: u64,
    #[serde(default)]
    gid: u64,
    #[serde(default)]
    blocking: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    data: Vec<u8>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum VerbRecord {
    Archive,
    Restore,
    Remove,
}

/// Where a running archive writes to.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct UploadRecord {
    pub(super) v: u32,
    archive: u32,
    key: String,
    /// The attempt, as the object's metadata names it; `None`: an older release's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    /// Of the copy that goes once this one is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<(u32, String, String)>,
    /// `None`: a single PUT.
    upload: Option<UploadId>,
    /// Of the file.
    pub size: u64,
    /// Of each part but the last.
    pub part_size: u64,
    /// The file's, when the upload began; `None`: not known, so it can't be gone on with.
    pub data_version: Option<u64>,
    /// Another mover wrote it, whose action was taken over and which may live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    anothers: bool,
}

impl UploadRecord {
    /// A single PUT.
    #[must_use]
    pub fn single(archive_id: ArchiveId, key: &ObjectKey, writer: WriterId) -> Self {
        Self {
            v: FORMAT,
            archive: archive_id.get(),
            key: key.as_str().to_owned(),
            writer: Some(writer.to_string()),
            previous: None,
            upload: None,
            size: 0,
            part_size: 0,
            data_version: None,
            anothers: false,
        }
    }

    /// A multipart upload, of what [`UploadRecord::single`] says.
    #[must_use]
    pub fn multipart(self, upload: &UploadId, size: u64, part_size: u64, data_version: Option<u64>) -> Self {
        Self {
            upload: Some(upload.clone()),
            size,
            part_size,
            data_version,
            ..self
        }
    }

    /// A copy that is committed now, and the one before it that is to be deleted.
    #[must_use]
    pub fn committed(location: &Location, previous: &Location) -> Self {
        Self {
            previous: Some((
                previous.archive_id.get(),
                previous.key.as_str().to_owned(),
                previous.etag.clone(),
            )),
            writer: location.writer.map(|writer| writer.to_string()),
            v: FORMAT,
            archive: location.archive_id.get(),
            key: location.key.as_str().to_owned(),
            upload: None,
            size: 0,
            part_size: 0,
            data_version: None,
            anothers: false,
        }
    }

    /// The same, as another mover wrote it, or as one's own.
    #[must_use]
    pub fn of_another(self, anothers: bool) -> Self {
        Self { anothers, ..self }
    }

    /// Whether another mover wrote it, which may live.
    #[must_use]
    pub const fn is_anothers(&self) -> bool {
        self.anothers
    }

    /// The attempt that it is the record of; `None`: an older release's.
    #[must_use]
    pub fn writer(&self) -> Option<WriterId> {
        WriterId::parse(self.writer.as_ref()?)
    }

    /// The copy before, and its ETag; `None` when there is none.
    #[must_use]
    pub fn previous(&self) -> Option<(ArchiveId, ObjectKey, String)> {
        let (archive, key, etag) = self.previous.as_ref()?;
        Some((
            ArchiveId::new(*archive)?,
            ObjectKey::new(key.as_str()).ok()?,
            etag.clone(),
        ))
    }

    /// Where to; `None` for a record that can't be.
    #[must_use]
    pub fn target(&self) -> Option<(ArchiveId, ObjectKey)> {
        Some((ArchiveId::new(self.archive)?, ObjectKey::new(self.key.as_str()).ok()?))
    }

    /// The upload, if it is one in parts.
    #[must_use]
    pub const fn upload(&self) -> Option<&UploadId> {
        self.upload.as_ref()
    }

    pub(super) fn upload_id(&self) -> Option<String> {
        self.upload.as_ref().map(|upload| upload.as_str().to_owned())
    }
}

pub(super) fn of_item(item: &Item) -> Vec<u8> {
    let verb = match item.kind {
        Kind::Do(Verb::Archive) => VerbRecord::Archive,
        Kind::Do(Verb::Restore) => VerbRecord::Restore,
        Kind::Do(Verb::Remove) => VerbRecord::Remove,
        // Never admitted.
        Kind::Cancel | Kind::Unknown(_) => return Vec::new(),
    };
    let record = ItemRecord {
        v: FORMAT,
        verb,
        dfid: item.dfid.to_string(),
        archive: item.archive_id.map(ArchiveId::get),
        offset: item.extent.offset,
        length: item.extent.length,
        gid: item.gid,
        blocking: item.blocking,
        data: item.data.to_vec(),
    };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// `None`, said in the log, for what can't be read.
pub(super) fn item((cookie, seq, oid, ver): ActionId, bytes: &[u8]) -> Option<Item> {
    let record: ItemRecord = read(bytes)?;
    let fid = Fid { seq, oid, ver };
    let verb = match record.verb {
        VerbRecord::Archive => Verb::Archive,
        VerbRecord::Restore => Verb::Restore,
        VerbRecord::Remove => Verb::Remove,
    };
    Some(Item {
        kind: Kind::Do(verb),
        fid,
        dfid: record.dfid.parse().unwrap_or(fid),
        cookie: Cookie(cookie),
        archive_id: record.archive.and_then(ArchiveId::new),
        extent: Extent {
            offset: record.offset,
            length: record.length,
        },
        gid: record.gid,
        blocking: record.blocking,
        data: record.data.into(),
    })
}

pub(super) fn of_upload(upload: &UploadRecord) -> Vec<u8> {
    serde_json::to_vec(upload).unwrap_or_default()
}

pub(super) fn upload(bytes: &[u8]) -> Option<UploadRecord> {
    read(bytes).filter(|record: &UploadRecord| record.v == FORMAT)
}

/// What an archive was about to write, or that it is over: a number that grows from line to line, the action, and where to.
pub(super) type Line = (u64, ActionId, Option<UploadRecord>);

/// `None` for what is none: the end of a file may be half a line.
pub(super) fn line(bytes: &[u8]) -> Option<Line> {
    let line: Line = serde_json::from_slice(bytes).ok()?;
    line.2.as_ref().is_none_or(|upload| upload.v == FORMAT).then_some(line)
}

pub(super) fn add_line(to: &mut Vec<u8>, number: u64, action: ActionId, upload: Option<&UploadRecord>) {
    let len = to.len();
    match serde_json::to_writer(&mut *to, &(number, action, upload)) {
        Ok(()) => to.push(b'\n'),
        Err(_) => to.truncate(len),
    }
}

pub(super) fn of_part(part: &SentPart) -> Vec<u8> {
    serde_json::to_vec(part).unwrap_or_default()
}

pub(super) fn part(bytes: &[u8]) -> Option<SentPart> {
    read(bytes)
}

fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::error!(%error, "the journal has a bad record; going on without it"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_survives_its_bytes() {
        let item = Item {
            kind: Kind::Do(Verb::Restore),
            fid: Fid { seq: 1, oid: 2, ver: 3 },
            dfid: Fid { seq: 4, oid: 5, ver: 6 },
            cookie: Cookie(7),
            archive_id: ArchiveId::new(8),
            extent: Extent {
                offset: 0,
                length: u64::MAX,
            },
            gid: 9,
            blocking: true,
            data: vec![1, 2, 3].into(),
        };
        assert_eq!(super::item((7, 1, 2, 3), &of_item(&item)), Some(item));
        assert_eq!(super::item((7, 1, 2, 3), b"{}"), None);
    }
}
