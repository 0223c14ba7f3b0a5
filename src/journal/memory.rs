//! A journal in memory, for tests in which daemons are killed and decide what their successors find.

use std::collections::BTreeMap;
use std::path::PathBuf;

use redb::backends::InMemoryBackend;

use super::state::{Batch, Change};
use super::{DiskError, InHand, Journal, tables};
use crate::action::ActionKey;
use crate::database::Database;
use crate::thread::Supervisor;
use crate::types::Fid;

/// What a journal has at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) in_hand: BTreeMap<ActionKey, InHand>,
    /// As the bytes of their records.
    pub(crate) copies: BTreeMap<Fid, Vec<u8>>,
}

impl Held {
    /// What one has of these files.
    pub(crate) fn by(journal: &Journal, files: impl Iterator<Item = Fid>) -> Self {
        let copies = files.filter_map(|fid| Some((fid, journal.find(fid)?.to_bytes())));
        Self {
            in_hand: journal.in_hand().unwrap_or_default().into_iter().collect(),
            copies: copies.collect(),
        }
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        for (key, InHand { item, upload }) in &self.in_hand {
            if let Some(item) = item {
                batch.actions.insert(*key, Change::New(Box::new(item.clone())));
            }
            if let Some(upload) = upload {
                batch.uploads.insert(*key, Some(upload.clone()));
            }
        }
        let copies = self.copies.iter();
        batch
            .copies
            .extend(copies.map(|(fid, record)| (*fid, Some(record.clone()))));
        batch
    }
}

impl Journal {
    /// One whose disk has this. No disk's pace decides anything.
    pub(crate) fn in_memory(supervisor: &Supervisor, held: &Held) -> Self {
        let held = held.clone();
        let open = move || -> Result<Database, DiskError> {
            let database = tables::with_tables(Database::create_on(InMemoryBackend::new())?)?;
            let batch = held.batch();
            if !batch.is_empty() {
                database.write(|transaction| tables::write(transaction, &batch))?;
            }
            Ok(database)
        };
        Self::start(supervisor, PathBuf::from("/dev/null/nowhere"), Box::new(open))
    }
}
