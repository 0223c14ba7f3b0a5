//! The journal's database: its file, its four tables, and what is read from them and written to them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::state::{Batch, Change};
use super::{DiskError, OwedActions, UploadRecord, record};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::database::{
    Database, DatabaseError, Error, ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction,
};
use crate::store::SentPart;
use crate::types::{ArchiveId, Cookie, Fid};

type FidKey = (u64, u32, u32);
/// Cookie and FID.
pub(super) type ActionId = (u64, u64, u32, u32);
/// An action, and the part's index.
type PartId = (u64, u64, u32, u32, u32);

const COPIES: TableDefinition<'_, FidKey, &[u8]> = TableDefinition::new("copies");
const ACTIONS: TableDefinition<'_, ActionId, &[u8]> = TableDefinition::new("actions");
const UPLOADS: TableDefinition<'_, ActionId, &[u8]> = TableDefinition::new("uploads");
const PARTS: TableDefinition<'_, PartId, &[u8]> = TableDefinition::new("parts");

const fn fid_key(fid: Fid) -> FidKey {
    (fid.seq, fid.oid, fid.ver)
}

pub(super) const fn action_key((cookie, seq, oid, ver): ActionId) -> ActionKey {
    ActionKey {
        cookie: Cookie(cookie),
        fid: Fid { seq, oid, ver },
    }
}

pub(super) const fn action_id(key: ActionKey) -> ActionId {
    (key.cookie.0, key.fid.seq, key.fid.oid, key.fid.ver)
}

const fn parts_of((cookie, seq, oid, ver): ActionId) -> RangeInclusive<PartId> {
    (cookie, seq, oid, ver, 0)..=(cookie, seq, oid, ver, u32::MAX)
}

/// One file for each mount: two daemons of one node may share the directory.
pub(super) fn file_name(name: &str, mount: &Path) -> String {
    let mount: String = mount
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("{name}{mount}.redb")
}

/// Opens the database, or makes it. A damaged one is set aside for a new one.
pub(super) fn open(path: &Path) -> Result<Database, DiskError> {
    if let Some(state_dir) = path.parent() {
        std::fs::create_dir_all(state_dir)?;
    }
    let error = match create(path) {
        Ok(database) => return Ok(database),
        Err(error) => error,
    };
    // No place, no permission, no space, or another process.
    if !error.is_damage() {
        return Err(error.into());
    }
    let aside = aside(path);
    tracing::error!(path = %path.display(), aside = %aside.display(), %error, "the journal is damaged; it is set aside and a new one begun");
    std::fs::rename(path, aside)?;
    Ok(create(path)?)
}

pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", std::process::id()));
    name.into()
}

fn create(path: &Path) -> Result<Database, DatabaseError> {
    with_tables(Database::create(path)?)
}

/// Makes the tables where there are none: one that has them can be read on a full disk, too.
pub(crate) fn with_tables(database: Database) -> Result<Database, DatabaseError> {
    match database.read(has_tables) {
        Ok(()) => return Ok(database),
        Err(error) if error.lacks_table() => {}
        Err(error) => return Err(error),
    }
    database.write(|transaction| {
        transaction.open_table(COPIES)?;
        transaction.open_table(ACTIONS)?;
        transaction.open_table(UPLOADS)?;
        transaction.open_table(PARTS)?;
        Ok(())
    })?;
    Ok(database)
}

fn has_tables(transaction: &ReadTransaction) -> Result<(), Error> {
    transaction.open_table(COPIES)?;
    transaction.open_table(ACTIONS)?;
    transaction.open_table(UPLOADS)?;
    transaction.open_table(PARTS)?;
    Ok(())
}

/// The record of a file's copy, as it was written.
pub(super) fn copy(transaction: &ReadTransaction, fid: Fid) -> Result<Option<Vec<u8>>, Error> {
    let table = transaction.open_table(COPIES)?;
    Ok(table.get(fid_key(fid))?.map(|bytes| bytes.value().to_vec()))
}

/// All actions that are not answered.
pub(super) fn actions(transaction: &ReadTransaction) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    for entry in transaction.open_table(ACTIONS)?.iter()? {
        let (id, bytes) = entry?;
        items.extend(record::item(id.value(), bytes.value()));
    }
    Ok(items)
}

/// How many there are, by archive.
pub(super) fn owed(transaction: &ReadTransaction) -> Result<Vec<OwedActions>, Error> {
    let mut owed: BTreeMap<Option<ArchiveId>, OwedActions> = BTreeMap::new();
    for entry in transaction.open_table(ACTIONS)?.iter()? {
        let (id, bytes) = entry?;
        let Some(item) = record::item(id.value(), bytes.value()) else {
            continue;
        };
        let of = owed.entry(item.archive_id).or_insert(OwedActions {
            archive_id: item.archive_id,
            actions: 0,
            restores: 0,
        });
        of.actions += 1;
        of.restores += u64::from(item.kind == Kind::Do(Verb::Restore));
    }
    Ok(owed.into_values().collect())
}

/// Where an action's archive writes to.
pub(super) fn upload(transaction: &ReadTransaction, action: ActionKey) -> Result<Option<UploadRecord>, Error> {
    let table = transaction.open_table(UPLOADS)?;
    let bytes = table.get(action_id(action))?;
    Ok(bytes.and_then(|bytes| record::upload(bytes.value())))
}

/// The confirmed parts of an action's upload, by index.
pub(super) fn parts(transaction: &ReadTransaction, action: ActionKey) -> Result<HashMap<u32, SentPart>, Error> {
    let mut parts = HashMap::new();
    for entry in transaction.open_table(PARTS)?.range(parts_of(action_id(action)))? {
        let (part, bytes) = entry?;
        parts.extend(record::part(bytes.value()).map(|sent| (part.value().4, sent)));
    }
    Ok(parts)
}

/// Actions with an entry in `uploads`.
pub(super) fn uploading(transaction: &ReadTransaction) -> Result<Vec<ActionKey>, Error> {
    let mut keys = Vec::new();
    for entry in transaction.open_table(UPLOADS)?.iter()? {
        keys.push(action_key(entry?.0.value()));
    }
    Ok(keys)
}

/// All uploads, each with its action.
pub(super) fn uploads(transaction: &ReadTransaction) -> Result<Vec<(ActionKey, UploadRecord)>, Error> {
    let mut uploads = Vec::new();
    for entry in transaction.open_table(UPLOADS)?.iter()? {
        let (id, bytes) = entry?;
        uploads.extend(record::upload(bytes.value()).map(|upload| (action_key(id.value()), upload)));
    }
    Ok(uploads)
}

/// The ids of all multipart uploads.
pub(super) fn upload_ids(transaction: &ReadTransaction) -> Result<HashSet<String>, Error> {
    let mut ids = HashSet::new();
    for entry in transaction.open_table(UPLOADS)?.iter()? {
        let (_, bytes) = entry?;
        ids.extend(record::upload(bytes.value()).and_then(|upload| upload.upload_id()));
    }
    Ok(ids)
}

/// Makes the changes of a batch.
pub(super) fn write(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Error> {
    let mut copies = transaction.open_table(COPIES)?;
    for (fid, change) in &batch.copies {
        match change {
            Some(bytes) => drop(copies.insert(fid_key(*fid), bytes.as_slice())?),
            None => drop(copies.remove(fid_key(*fid))?),
        }
    }
    let mut actions = transaction.open_table(ACTIONS)?;
    for (key, change) in &batch.actions {
        match change {
            Change::New(item) => drop(actions.insert(action_id(*key), record::of_item(item).as_slice())?),
            Change::Gone => drop(actions.remove(action_id(*key))?),
        }
    }
    let mut uploads = transaction.open_table(UPLOADS)?;
    let mut parts = transaction.open_table(PARTS)?;
    for (key, change) in &batch.uploads {
        let id = action_id(*key);
        if let Some(upload) = change {
            uploads.insert(id, record::of_upload(upload).as_slice())?;
            continue;
        }
        if uploads.remove(id)?.is_some() {
            parts.retain_in(parts_of(id), |_, _| false)?;
        }
    }
    for ((key, index), part) in &batch.parts {
        let (cookie, seq, oid, ver) = action_id(*key);
        parts.insert((cookie, seq, oid, ver, *index), record::of_part(part).as_slice())?;
    }
    Ok(())
}
