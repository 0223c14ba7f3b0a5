//! What former daemons left at the stores, what the coordinator forgot, and copies that came to be known too late: a thread of
//! its own, for nobody waits for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::Context;
use super::cleanup::CleanUp;
use super::late::LateCopies;
use crate::ledger::UploadsInHand;
use crate::queue::Queue;
use crate::store::{Target, Targets};
use crate::thread::{Supervisor, Thread};
use crate::transfer::{Control, Lane, Stop, Transfer, TransferOptions};

/// Between two looks at actions that ended without having begun; a look without any costs nothing.
const EVERY: Duration = Duration::from_secs(1);
/// Of what is cleaned up: before that its action may be sent again, under its cookie and with the same upload.
const AGE: Duration = Duration::from_secs(10);
/// Between two tries of those that could not be cleaned up.
const AGAIN: Duration = Duration::from_secs(60);
/// For the last look, at the end.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// The running thread; once it is stopped it looks once more.
#[derive(Debug)]
pub struct Sweeper {
    thread: Thread,
}

impl Sweeper {
    /// Starts it: uploads that are nobody's and older than `age` go now, what the journal knows of now and then. `others`: who
    /// knows which uploads other movers have in hand; `None`: nobody would.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start(
        supervisor: &Supervisor,
        queue: &Arc<Queue>,
        context: &Context,
        targets: &Targets,
        options: TransferOptions,
        age: Duration,
        others: Option<UploadsInHand>,
    ) -> std::io::Result<Self> {
        let mut lane = Lane::new(&targets.all(), options)?;
        let mut late = LateCopies::new(context, targets, options)?;
        let (stop, stopped): (Sender<()>, _) = channel();
        let (queue, context, targets) = (Arc::clone(queue), context.clone(), targets.clone());
        let control = Arc::new(Control::default());
        let sweeping = Arc::clone(&control);
        let stop = move || {
            control.stop(Stop::Shutdown);
            drop(stop);
        };
        let thread = supervisor.serve("sweeper", stop, move || {
            let mut swept = 0;
            let mut asked: Option<Instant> = None;
            let mut looked = false;
            let mut failed = HashSet::new();
            let mut forgiven = Instant::now();
            loop {
                lane.follow(&targets);
                let clean_up = CleanUp {
                    context: &context,
                    lane: &lane,
                };
                // Where the ledger is away they stay until it is back.
                let is_due = asked.is_none_or(|asked| asked.elapsed() >= AGAIN);
                for target in targets.since(swept).iter().take_while(|_| is_due) {
                    if !abandoned(clean_up, target, age, others.as_ref(), &sweeping) {
                        asked = Some(Instant::now());
                        break;
                    }
                    swept += 1;
                }
                let mut all = true;
                let begun = Instant::now();
                if forgiven.elapsed() >= AGAIN {
                    failed.clear();
                    forgiven = begun;
                }
                let age = sweeping.stopped().map_or(AGE, |_| Duration::ZERO);
                // What another mover may go on with stays until it is known that none does.
                let orphans = match context.is_warranted() {
                    true => context.journal.orphans(age),
                    false => Vec::new(),
                };
                for action in orphans {
                    let stopping = sweeping.stopped().is_some();
                    if stopping && (!all || begun.elapsed() > LAST_LOOK) {
                        return;
                    }
                    // It may have been sent again.
                    if failed.contains(&action) || !context.journal.sweeping(action) {
                        continue;
                    }
                    // Not beside an action of the file. One that comes from now on waits.
                    if queue.has_file(action.fid) {
                        context.journal.left(action);
                        continue;
                    }
                    if clean_up.after(action) {
                        context.journal.cleaned(action);
                    } else {
                        context.journal.left(action);
                        failed.insert(action);
                        all = false;
                        // The store may be away: what else there is to do does not wait for each of a thousand.
                        break;
                    }
                }
                context
                    .forgotten
                    .look(context.fs.as_ref(), &sweeping, |fid| queue.is_silent(fid));
                if let Some(late) = &mut late {
                    late.look(&context, &queue, &targets, &sweeping);
                }
                match stopped.recv_timeout(EVERY) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) => return,
                    // The last look.
                    Err(RecvTimeoutError::Disconnected)
                        if !all || looked || context.journal.orphans(Duration::ZERO).is_empty() =>
                    {
                        return;
                    }
                    Err(RecvTimeoutError::Disconnected) => looked = true,
                }
            }
        })?;
        Ok(Self { thread })
    }

    /// The thread.
    pub const fn thread(&mut self) -> &mut Thread {
        &mut self.thread
    }
}

/// `false`: not all, for it can't be told now which are other movers'.
fn abandoned(
    clean_up: CleanUp<'_>,
    target: &Target,
    age: Duration,
    others: Option<&UploadsInHand>,
    control: &Arc<Control>,
) -> bool {
    let transfer = Transfer::new(clean_up.lane, control);
    let archive = target.options().archive_id;
    let live = |ids: &[&str]| {
        let of_others = others.map(|others| {
            clean_up.lane.block_on(async {
                tokio::select! {
                    told = Box::pin(others.among(ids)) => told.map_err(|error| error.to_string()),
                    () = control.wait_stopped() => Err("the daemon ends".to_owned()),
                }
            })
        });
        match of_others.transpose() {
            Ok(of_others) => {
                let mut live = clean_up.context.journal.live_uploads();
                live.extend(of_others.into_iter().flatten());
                Some(live)
            }
            Err(error) => {
                tracing::debug!(archive = archive.get(), %error, "old uploads stay for now: some may be other movers'");
                None
            }
        }
    };
    match transfer.sweep_uploads(archive, age, live) {
        Ok(swept) => {
            if swept.aborted > 0 {
                tracing::info!(
                    archive = archive.get(),
                    aborted = swept.aborted,
                    "abandoned uploads aborted"
                );
            }
            swept.is_whole
        }
        Err(error) => {
            tracing::warn!(archive = archive.get(), %error, "abandoned uploads can't be looked for");
            true
        }
    }
}
