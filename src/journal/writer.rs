//! The journal's thread: collects changes for a moment and writes them in one transaction.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use redb::Database;

use super::{ACTIONS, Batch, COPIES, Change, PARTS, Shared, UPLOADS, action_id, fid_key, record};

/// Changes of so long go together; what ends sooner is never written.
const COLLECT: Duration = Duration::from_millis(50);
/// After an error: the disk may be full for a while.
const PAUSE: Duration = Duration::from_secs(5);

/// Until the journal is dropped; then what is left is written.
pub(super) fn run(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        while state.pending.is_empty() && !state.stopping {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.stopping {
            state = shared
                .changed
                .wait_timeout_while(state, COLLECT, |state| !state.stopping)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let stopping = state.stopping;
        let batch = Arc::new(std::mem::take(&mut state.pending));
        state.writing = Some(Arc::clone(&batch));
        drop(state);
        let written = match &shared.database {
            Some(database) if !batch.is_empty() => write(database, &batch),
            _ => Ok(()),
        };
        let mut state = shared.lock();
        state.writing = None;
        if let Err(error) = written {
            tracing::error!(%error, "the journal can't be written; trying again");
            // What came meanwhile is newer; the rest waits for the next try.
            if let Some(batch) = Arc::into_inner(batch) {
                let newer = std::mem::replace(&mut state.pending, batch);
                state.pending.copies.extend(newer.copies);
                state.pending.actions.extend(newer.actions);
                state.pending.uploads.extend(newer.uploads);
                state.pending.parts.extend(newer.parts);
            }
            if !stopping {
                let paused = shared.changed.wait_timeout_while(state, PAUSE, |state| !state.stopping);
                drop(paused);
            }
        }
        if stopping {
            return;
        }
    }
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
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
                let (a, b, c, d) = id;
                parts.retain_in((a, b, c, d, 0)..=(a, b, c, d, u32::MAX), |_, _| false)?;
            }
        }
        for ((key, index), part) in &batch.parts {
            let (a, b, c, d) = action_id(*key);
            parts.insert((a, b, c, d, *index), record::of_part(part).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}
