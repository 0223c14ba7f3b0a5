//! The ledger: a copy in PostgreSQL of what other movers need to go on where one has ended.
//!
//! The truth about a file is in its record and its object, and a mover's journal is its own and written first: the ledger is
//! where the journal's changes also go. Nothing waits for it. While it is away nothing is kept for it either; at each
//! connection its rows are made equal to the journal's (`keeper`), for a replica that was promoted has lost the last ones.
//!
//! | table | holds |
//! |---|---|
//! | `mover` | who there is: name, incarnation, address, archive ids, renewals, state |
//! | `action` | what is in hand, and what was answered while something may be left of what it wrote |
//! | `copy` | where copies are whose object can't be told from the file's FID |
//! | `tombstone` | REMOVEs that found no copy |
//! | `job`, `job_list` | bulk jobs: what each is to do, who is at it, how far it is |
//!
//! `told` is what those tell it who change the journal, `changes` the last word on each thing, `rows` how that is written;
//! `state` is what they share with its thread, `health` what is shown of that. `own` is the mover's row, `recent` which copies
//! changed in the last day. `peers` tells which of the others are dead, `observe` takes over from them what `claim` gives it, for
//! the `heir` to do; a `warrant` says that no other mover has done so with what is in hand here. `fence` is what rows say of
//! fences, `fencer` which of those this mover sees to, by the site's own `command`. `schema` has the tables by versions, `link`
//! the connection, whose every wait ends. `unlinked` is where REMOVEs of files that are gone ask for copies of other movers, and
//! `tombs` how that is answered, now or for a copy whose row comes later. `uploads` tells those who throw old uploads away which
//! ones are in hand; `remembered` is who else there was, for a daemon that finds the ledger away.
//! `turns` is which of two movers' actions of one file waits, `ahead` how the ledger is asked that. `offers` is what a mover that is cut
//! off from an MDT or a store leaves to others, `offered` what rows say of that. `found` reads actions from their rows, `keyed` asks
//! for rows by their keys. `returned` is what was given up to others and came back. `seen` is the fleet as one: what each mover's
//! row tells of it, and `sharers` by how many the limits are divided that are all movers'. `jobs` is what nodes tell each other of
//! their bulk jobs, movers or not.

mod ahead;
mod changes;
mod claim;
mod command;
mod error;
mod fence;
mod fencer;
mod found;
mod health;
mod heir;
mod jobs;
mod keeper;
mod keyed;
mod link;
#[cfg(test)]
pub(crate) mod model;
mod moment;
mod observe;
mod offered;
mod offers;
mod options;
mod own;
mod peers;
mod recent;
mod remembered;
mod returned;
mod rows;
mod schema;
mod seen;
mod sharers;
mod state;
mod tls;
mod told;
mod tombs;
mod turns;
mod unlinked;
mod uploads;
mod warrant;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use command::FenceOptions;
pub use error::LedgerError;
pub use fence::MoverNode;
pub use health::{LedgerHealth, PeerHealth, Step};
pub use heir::Heir;
pub use jobs::{JobBook, JobInterrupt, JobNotice, JobRow, JobState, JobTakeError, JobTeller, TakenJob};
pub use options::{LedgerAddress, LedgerOptions};
pub use schema::LedgerState;
pub use seen::see;
pub use sharers::{Sharers, Teller};
pub use turns::Turns;
pub use unlinked::{LateCopy, OthersCopies, Told};
pub use uploads::UploadsInHand;
pub use warrant::Warrant;

use self::fencer::Fencer;
use self::keeper::Keeper;
use self::link::Link;
use self::offers::Offers;
use self::own::OwnRow;
use self::peers::PeerWatch;
use self::recent::Recent;
use self::remembered::Remembered;
use self::returned::GivenUp;
use self::state::Shared;
use self::tombs::Rounds;
use crate::fleet::{FleetReport, Telling};
use crate::journal::{Journal, JournalSink};
use crate::thread::{Supervisor, Thread};
use crate::types::{ArchiveId, Sequences};

/// Which mover writes it.
#[derive(Clone, Debug)]
pub struct LedgerMover {
    /// No other living one's.
    pub name: String,
    /// Host and port where it answers HTTP; `None`: nowhere.
    pub address: Option<String>,
    /// What it serves.
    pub archive_ids: Vec<ArchiveId>,
    /// Where it runs.
    pub node: MoverNode,
    /// How it fences the nodes of dead ones; `None`: not at all.
    pub fence: Option<FenceOptions>,
    /// The file system, with its incarnation.
    pub file_system: String,
    /// Which MDT a file is on.
    pub sequences: Sequences,
    /// What its row tells before there is a [`Teller`].
    pub told: Telling,
}

/// The ledger of a running daemon.
pub struct Ledger {
    shared: Arc<Shared>,
    unlinked: Option<OthersCopies>,
    thread: Mutex<Thread>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Ledger {
    /// Begins to write the changes of a journal to it. Whether it can be reached makes no difference here.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        supervisor: &Supervisor,
        options: &LedgerOptions,
        mover: LedgerMover,
        journal: &Arc<Journal>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let directory = journal.path().with_extension("ledger");
        if let Err(error) = std::fs::create_dir_all(&directory) {
            tracing::error!(path = %directory.display(), %error, "no place for the ledger's own files");
        }
        let archive_ids = mover.archive_ids.iter().map(|id| id.get().cast_signed());
        let row = OwnRow::new(
            mover.name,
            mover.address,
            archive_ids.collect(),
            mover.node,
            directory.join("incarnation"),
        );
        let fencer = Fencer::new(mover.fence, &row.owner.name, &mover.file_system);
        let shared = Arc::new(Shared::new(options, &row.owner));
        let unlinked = options.copies.then(OthersCopies::default);
        let mut keeper = Keeper {
            options: options.clone(),
            shared: Arc::clone(&shared),
            journal: Arc::clone(journal),
            fencer,
            file_system: mover.file_system,
            sequences: mover.sequences,
            row,
            told: mover.told,
            remembered: Remembered::new(directory.join("peers")),
            recent: Recent::new(directory),
            unlinked: unlinked.clone(),
            rounds: Rounds::new(),
            trimmed: Instant::now(),
            has_waited: false,
            watch: PeerWatch::new(options.lease),
            supervisor: supervisor.clone(),
            questions: Vec::new(),
            given_up: GivenUp::default(),
            outage: None,
            pruned: None,
            turn_due: None,
            turn_at: None,
            offers: Offers::default(),
        };
        keeper.remember_peers();
        // Before the thread looks at what is in hand: it is told of all that changes behind that look.
        journal.tell(Arc::clone(&shared) as Arc<dyn JournalSink>);
        let stopping = Arc::clone(&shared);
        let thread = supervisor.serve(
            "ledger",
            move || stopping.stop(),
            move || {
                runtime.block_on(keeper.run());
                // A look-up of a name may be under way; nobody wants it.
                runtime.shutdown_background();
            },
        )?;
        Ok(Self {
            shared,
            unlinked,
            thread: Mutex::new(thread),
        })
    }

    /// Where copies are that other movers made; `None`: it is not to hold them.
    #[must_use]
    pub fn others_copies(&self) -> Option<OthersCopies> {
        self.unlinked.clone()
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        self.shared.health()
    }

    /// Where this mover answers HTTP, once that is known.
    pub fn listens_at(&self, address: String) {
        self.shared.set_address(address);
    }

    /// Whether this mover may do what another one could not put right.
    #[must_use]
    pub fn warrant(&self) -> Warrant {
        Warrant::new(Arc::clone(&self.shared))
    }

    /// Which actions have to wait for other movers'.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.shared.turns().clone()
    }

    /// Whether it was found out which actions of this mover's journal others have by now, or that this can't be found out.
    #[must_use]
    pub fn has_looked(&self) -> bool {
        self.shared.has_looked()
    }

    /// Who takes over from dead movers, and lets go of what others have taken: from now on, until [`Ledger::finish`].
    pub fn set_heir(&self, heir: Arc<dyn Heir>) {
        self.shared.set_heir(heir);
    }

    /// Who says what the mover's row tells, and divides limits: from now on, until [`Ledger::finish`].
    pub fn set_teller(&self, teller: Arc<dyn Teller>) {
        self.shared.set_teller(teller);
    }

    /// By how many movers limits are divided that are the whole fleet's.
    #[must_use]
    pub fn sharers(&self) -> Sharers {
        self.shared.sharers()
    }

    /// All movers as this one sees them; `None`: the ledger is away, so nobody knows.
    #[must_use]
    pub fn fleet(&self) -> Option<FleetReport> {
        self.shared.fleet()
    }

    /// Has the last changes written, as far as they are taken in time, and says that this mover has gone.
    pub fn finish(&self, deadline: Instant) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if !thread.join(deadline) {
            tracing::warn!("the ledger's thread does not end; going on without it");
        }
        // It has the journal, which tells this.
        self.shared.drop_heir();
    }
}

/// Makes a database the ledger of a file system.
///
/// # Errors
/// It is one already, or it can't be reached or changed.
pub async fn init(options: &LedgerOptions, file_system: &str) -> Result<LedgerState, LedgerError> {
    let link = Box::pin(Link::open(options)).await?;
    Box::pin(schema::init(&link, file_system)).await?;
    Box::pin(LedgerState::read(&link)).await
}

/// What a ledger is, if this release and file system can use it. `file_system`: `None` where that is not known.
///
/// # Errors
/// It can't be reached, or not be used.
pub async fn check(options: &LedgerOptions, file_system: Option<&str>) -> Result<LedgerState, LedgerError> {
    let link = Box::pin(Link::open(options)).await?;
    let state = Box::pin(LedgerState::read(&link)).await?;
    state.must_be_of(file_system)?;
    state.must_be_usable()?;
    Ok(state)
}

/// Brings a ledger to this release's schema; the version before, and what it is now.
///
/// # Errors
/// It can't be reached or changed, or is newer.
pub async fn migrate(options: &LedgerOptions, file_system: &str) -> Result<(i32, LedgerState), LedgerError> {
    let link = Box::pin(Link::open(options)).await?;
    let state = Box::pin(LedgerState::read(&link)).await?;
    state.must_be_of(Some(file_system))?;
    let before = Box::pin(schema::migrate(&link, &state)).await?;
    Ok((before, Box::pin(LedgerState::read(&link)).await?))
}
