//! The journal's thread: collects changes for a moment and writes them in one transaction. When that fails it keeps them,
//! opens the database anew and tries again, as long as it takes.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use super::state::{Batch, JournalState};
use super::{Shared, tables};
use crate::thread::guarded;

/// Changes of so long go together; what ends sooner is never written.
const COLLECT: Duration = Duration::from_millis(50);
/// After an error, doubled from the first to the last: the disk may be full for a while.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Until the journal is dropped; then what is left is written.
pub(super) fn run(shared: &Shared) {
    let mut pause = FIRST_PAUSE;
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
        drop(state);
        if let Some(intents) = &shared.intents {
            intents.turn();
        }
        let mut state = shared.lock();
        let stopping = state.stopping;
        let batch = Arc::new(std::mem::take(&mut state.pending));
        state.writing = Some(Arc::clone(&batch));
        drop(state);
        let written = if batch.is_empty() { Ok(()) } else { put(shared, &batch) };
        if let (Ok(()), Some(intents)) = (&written, &shared.intents) {
            intents.committed();
        }
        let mut state = shared.lock();
        state.writing = None;
        match written {
            Ok(()) => {
                // That nothing was to be written says nothing.
                if !batch.is_empty() {
                    pause = FIRST_PAUSE;
                    if std::mem::take(&mut state.broken) {
                        let unknown = std::mem::take(&mut state.unknown);
                        tracing::info!(unknown, "the journal is written again; its changes are on disk");
                    }
                }
            }
            Err(error) => {
                let first = !std::mem::replace(&mut state.broken, true);
                // What came meanwhile is newer; the rest waits for the next try.
                if let Some(batch) = Arc::into_inner(batch) {
                    let newer = std::mem::replace(&mut state.pending, batch);
                    let JournalState { pending, on_disk, .. } = &mut *state;
                    pending.overlay(newer);
                    // Of a commit that failed nobody knows what reached the disk: what ends is taken away there, too.
                    on_disk.extend(pending.living());
                }
                if stopping {
                    tracing::error!(error, "the journal lacks its last changes");
                    return;
                }
                drop(state);
                if first {
                    tracing::error!(
                        error,
                        "the journal can't be written: a crash now would leave actions to the coordinator's time-out. \
                         Going on without; it is tried again until there is room"
                    );
                }
                // Readers need one that is open, also while it can't be written.
                match guarded(|| shared.reopen().map_err(|error| error.to_string())) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) | Err(error) => tracing::debug!(error, "nor can it be opened"),
                }
                let waited = shared
                    .changed
                    .wait_timeout_while(shared.lock(), pause, |state| !state.stopping);
                drop(waited);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        if stopping {
            return;
        }
    }
}

fn put(shared: &Shared, batch: &Batch) -> Result<(), String> {
    let written = guarded(|| shared.with(|database| database.write(|transaction| tables::write(transaction, batch))))?;
    match written {
        Some(written) => written.map_err(|error| error.to_string()),
        None => Err("it is not open".into()),
    }
}
