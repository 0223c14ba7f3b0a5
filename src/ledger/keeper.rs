//! The ledger's thread: connects, claims the mover's row, makes the rows equal to the journal's, and then writes what
//! changes. When anything of that fails it begins anew, after a pause, as long as it takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::ahead;
use super::changes::{ActionNews, Changes, CopyNews, Word};
use super::claim;
use super::fencer::Fencer;
use super::link::Link;
use super::moment::Moment;
use super::observe::Question;
use super::offers::Offers;
use super::own::{Claim, OwnRow, between};
use super::peers::PeerWatch;
use super::recent::Recent;
use super::remembered::Remembered;
use super::returned::GivenUp;
use super::rows::{self, Rows};
use super::schema::LedgerState;
use super::state::{Shared, now};
use super::tombs::{self, Rounds};
use super::unlinked::OthersCopies;
use super::{LedgerError, LedgerOptions};
use crate::action::ActionKey;
use crate::fleet::Telling;
use crate::journal::{InHand, Journal};
use crate::thread::Supervisor;
use crate::types::Sequences;

/// Before another try, doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For the last changes, and to say that it goes.
const LAST_CHANGES: Duration = Duration::from_secs(3);
/// Rows of one look, and changes of one transaction, while rows are made equal.
pub(super) const AT_ONCE: usize = 5000;
/// Between two looks at how old the marks are.
const TRIM: Duration = Duration::from_secs(600);

/// Its own rows, some at a time. A key's bytes sort as no other's: the pages are those of the primary key.
const PAGE: &str = "\
SELECT fid, cookie, owner, answered, object_key, writer, upload_id, previous IS NOT NULL FROM lhsmtool_s3.action
WHERE owner = ANY ($1) AND (fid, cookie) > ($2, $3) ORDER BY fid, cookie LIMIT $4";

/// What the thread has.
pub(super) struct Keeper {
    pub(super) options: LedgerOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Arc<Journal>,
    pub(super) file_system: String,
    pub(super) sequences: Sequences,
    pub(super) row: OwnRow,
    /// What the row tells before there is a daemon to be asked.
    pub(super) told: Telling,
    pub(super) recent: Recent,
    /// Who asks for copies that others made; `None`: copies are none of its business.
    pub(super) unlinked: Option<OthersCopies>,
    pub(super) rounds: Rounds,
    /// When marks were looked at last.
    pub(super) trimmed: Instant,
    /// It was said that another one has the row.
    pub(super) has_waited: bool,
    /// The other movers.
    pub(super) watch: PeerWatch,
    pub(super) remembered: Remembered,
    /// What is done about the nodes of those that are dead.
    pub(super) fencer: Fencer,
    /// For whoever asks them.
    pub(super) supervisor: Supervisor,
    /// Those that were asked whether they live.
    pub(super) questions: Vec<Question>,
    /// What others had taken, and this one has let go of.
    pub(super) given_up: GivenUp,
    /// The others are being asked whether they have no ledger either.
    pub(super) outage: Option<Receiver<()>>,
    /// When rows of movers that are no more were looked for last.
    pub(super) pruned: Option<Instant>,
    /// When those are looked at that wait for other movers.
    pub(super) turn_due: Option<Instant>,
    /// Behind which of them the next look begins.
    pub(super) turn_at: Option<ActionKey>,
    /// What others may take, for this mover can't carry it out.
    pub(super) offers: Offers,
}

impl Keeper {
    /// Until it is told to end.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut pause = FIRST_PAUSE;
        while !shared.is_stopping() {
            self.keep_marks(false);
            let session = tokio::select! {
                session = Box::pin(self.session(&mut pause)) => session,
                () = shared.overtime(LAST_CHANGES) => {
                    tracing::warn!("the ledger lacks the last changes: its server is away, or did not take them in time");
                    break;
                }
            };
            self.close_turns();
            self.keep_offers();
            let error = match session {
                Ok(()) => return,
                Err(error) => error,
            };
            if shared.away(&error.to_string()) {
                tell(&error);
            }
            self.ask_whether_all_are_away();
            if let Some(unlinked) = &self.unlinked {
                unlinked.close();
            }
            shared.pause(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.keep_marks(false);
    }

    /// One connection, from its beginning to its end. `Ok`: it was told to end.
    async fn session(&mut self, pause: &mut Duration) -> Result<(), LedgerError> {
        let link = Link::open(&self.options).await?;
        let ledger = LedgerState::read(&link).await?;
        ledger.must_be_of(Some(&self.file_system))?;
        ledger.must_be_usable()?;
        // Whatever was seen before: it was not renewed in between.
        self.watch.lost();
        let claimed = Moment::now();
        self.claim(&link).await?;
        self.shared.connected(claimed);
        if let Some(unlinked) = &self.unlinked {
            unlinked.open();
        }
        let mut renewed = Instant::now();
        self.catch_up(&link, &mut renewed).await?;
        *pause = FIRST_PAUSE;
        let mut look = Instant::now();
        loop {
            let due = look.min(renewed + between(self.options.lease));
            let due = self.turn_due.map_or(due, |turn| due.min(turn));
            tokio::select! {
                () = self.shared.wait(due) => {}
                () = self.asked() => {}
            }
            // Before the changes are taken: what was told before the stop is among them.
            let is_last = self.shared.is_stopping();
            self.keep_marks(true);
            if self.shared.is_overrun() && !is_last {
                tracing::warn!("the ledger was too slow for the changes of late; its rows are made equal");
                self.catch_up(&link, &mut renewed).await?;
            }
            // Many changes take a while.
            self.renew(&link, &mut renewed).await?;
            self.open_turns();
            // Before the changes are taken: then the rows of all these are written.
            let fresh = self.shared.turns().fresh(ahead::AT_ONCE);
            self.write_changes(&link).await?;
            if is_last {
                return self.row.leave(&link).await;
            }
            Box::pin(self.take_turns(&link, fresh)).await?;
            self.renew(&link, &mut renewed).await?;
            if let Some(unlinked) = &self.unlinked {
                Box::pin(self.rounds.look(&link, unlinked)).await?;
            }
            if look <= Instant::now() {
                look = Instant::now() + Box::pin(self.observe(&link)).await?;
            }
        }
    }

    /// The mover's row. Where another one has it, a lease shows whether that one lives.
    async fn claim(&mut self, link: &Link) -> Result<(), LedgerError> {
        self.row.address = self.shared.address().or(self.row.address.take());
        self.tell();
        let held = match self.row.claim(link, None).await? {
            Claim::Ours => return Ok(()),
            Claim::Held(held) => held,
        };
        let name = &self.row.owner.name;
        if !std::mem::replace(&mut self.has_waited, true) {
            tracing::warn!(
                name,
                lease_s = self.options.lease.as_secs_f64(),
                "the ledger has a mover by this name that is not this node's last one; waiting whether it lives"
            );
        }
        self.shared.pause(self.options.lease).await;
        if self.shared.is_stopping() {
            // It was no whole lease, and shows nothing.
            return Err(LedgerError::NameTaken { name: name.clone() });
        }
        match self.row.claim(link, Some(held)).await? {
            Claim::Ours => Ok(()),
            Claim::Held(_) => Err(LedgerError::NameTaken { name: name.clone() }),
        }
    }

    /// A REMOVE asks; never where nobody does.
    async fn asked(&self) {
        match &self.unlinked {
            Some(unlinked) => unlinked.asked().await,
            None => std::future::pending().await,
        }
    }

    /// Between two writings: answers who waits for that, and renews the row if it is time.
    async fn renew(&mut self, link: &Link, renewed: &mut Instant) -> Result<(), LedgerError> {
        if let Some(unlinked) = &self.unlinked {
            Box::pin(tombs::answer(link, unlinked)).await?;
        }
        if renewed.elapsed() >= between(self.options.lease) {
            let (at, moment) = (Instant::now(), Moment::now());
            self.row.address = self.shared.address().or(self.row.address.take());
            let archives = self.shared.heir().map(|heir| heir.archives()).unwrap_or_default();
            // None are told where nothing new is taken any more.
            if !archives.is_empty() {
                self.row.archive_ids = archives.iter().map(|id| id.get().cast_signed()).collect();
            }
            self.tell();
            self.row.renew(link).await?;
            self.shared.renewed(moment);
            *renewed = at;
        }
        Ok(())
    }

    /// What has changed since this was called last.
    async fn write_changes(&mut self, link: &Link) -> Result<(), LedgerError> {
        let changes = self.shared.take();
        if changes.is_empty() {
            return Ok(());
        }
        // What the coordinator gives to this mover is its own, whoever had an action of the same key before.
        let new = changes
            .actions
            .iter()
            .filter(|(_, news)| matches!(news.item, Word::Is(_)));
        self.given_up.forget(new.map(|(key, _)| *key));
        let rows = self.write(link, &changes, Rows::Fresh).await?;
        self.shared.written(rows);
        Ok(())
    }

    pub(super) async fn write(&self, link: &Link, changes: &Changes, rows: Rows) -> Result<u64, LedgerError> {
        let domain = |fid| self.sequences.domain(fid);
        let written = Box::pin(rows::write(link, &self.row.owner, changes, rows, domain)).await?;
        if let Some(unlinked) = &self.unlinked
            && !changes.copies.is_empty()
        {
            // Not before they are committed.
            unlinked.add_late(Box::pin(tombs::meet(link, &changes.copies)).await?);
        }
        Ok(written)
    }

    /// Makes the rows equal to what the journal has. Of what changes meanwhile the last word comes after it.
    async fn catch_up(&mut self, link: &Link, renewed: &mut Instant) -> Result<(), LedgerError> {
        let start = Instant::now();
        let peers = claim::peers(link, &self.row.owner.name).await?;
        // What the journal has is this mover's, also where the rows name one that it was and knows nothing of.
        let (formers, others): (Vec<_>, Vec<_>) = peers.into_iter().partition(|row| self.row.is_former(&row.name));
        self.shared
            .list_sharers(others.iter().filter(|row| row.is_there()).count());
        self.row.owner.others = others.into_iter().map(|row| row.incarnation).collect();
        self.close_turns();
        ahead::say_nothing(link, &self.row.owner).await?;
        self.withdraw_offers(link).await?;
        self.shared.begin();
        self.open_turns();
        // What changed before this is told by no change: its marks have to be in the files that are read below.
        self.keep_marks(false);
        let mut held = self.journal.in_hand().ok_or(LedgerError::Journal)?;
        let in_hand = held.len();
        self.ask_for(held.values().filter_map(|held| held.item.as_ref()));
        let (mut changed, returned) = Box::pin(self.compare(link, &mut held, renewed)).await?;
        if !returned.is_empty() {
            Box::pin(self.take_back(link, returned)).await?;
            self.renew(link, renewed).await?;
        }
        let mut missing = held.drain();
        loop {
            let mut news = Changes::default();
            news.actions
                .extend(missing.by_ref().take(AT_ONCE).map(|(key, held)| (key, held.into())));
            if news.is_empty() {
                break;
            }
            changed += self.write(link, &news, Rows::Own).await?;
            let keys: Vec<_> = news.actions.keys().copied().collect();
            Box::pin(self.give_up_lost(link, &keys)).await?;
            self.renew(link, renewed).await?;
        }
        for former in formers {
            Box::pin(self.row.leave_former(link, &former)).await?;
        }
        Box::pin(self.settle_offers(link)).await?;
        let copies = Box::pin(self.copies(link, renewed)).await?;
        self.row.settle()?;
        self.recent.trim(now(), true);
        if !self.shared.in_step() {
            return Ok(());
        }
        tracing::info!(
            in_hand,
            changed,
            copies,
            seconds = start.elapsed().as_secs_f64(),
            "the ledger is in step with the journal"
        );
        Ok(())
    }

    /// Writes what differs of the rows that are there, and takes what is there from `held`. How many differed, and which are of
    /// actions that this one gave up to others, by whose rows they would be those'.
    async fn compare(
        &mut self,
        link: &Link,
        held: &mut HashMap<ActionKey, InHand>,
        renewed: &mut Instant,
    ) -> Result<(u64, Vec<ActionKey>), LedgerError> {
        let (mut fid, mut cookie): (Vec<u8>, i64) = (Vec::new(), i64::MIN);
        let at_once = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
        let (mut changed, mut returned) = (0, Vec::new());
        loop {
            let page = link
                .query(
                    PAGE,
                    &[
                        (&self.row.owner.known_as, Type::INT8_ARRAY),
                        (&fid, Type::BYTEA),
                        (&cookie, Type::INT8),
                        (&at_once, Type::INT8),
                    ],
                )
                .await?;
            let mut news = Changes::default();
            for row in &page {
                fid = link.get(row, 0)?;
                cookie = link.get(row, 1)?;
                let Some(key) = rows::key_of(&fid, cookie) else {
                    continue;
                };
                let is_answered: bool = link.get(row, 3)?;
                let held = held.remove(&key);
                // It may still be on its way out of the queue.
                if !is_answered && self.given_up.has(key) {
                    returned.push(key);
                    continue;
                }
                match held {
                    Some(held) if self.is_equal(link, row, &held)? => {}
                    held => {
                        news.actions.insert(key, held.unwrap_or_default().into());
                    }
                }
            }
            changed += self.write(link, &news, Rows::Own).await?;
            self.renew(link, renewed).await?;
            if page.len() < AT_ONCE {
                return Ok((changed, returned));
            }
        }
    }

    fn is_equal(&self, link: &Link, row: &Row, held: &InHand) -> Result<bool, LedgerError> {
        let owner: i64 = link.get(row, 2)?;
        let answered: bool = link.get(row, 3)?;
        let key: Option<String> = link.get(row, 4)?;
        let writer: Option<String> = link.get(row, 5)?;
        let upload_id: Option<String> = link.get(row, 6)?;
        let replaces: bool = link.get(row, 7)?;
        let upload = held.upload.as_ref();
        let of_upload = |column: Option<String>| column.unwrap_or_default();
        Ok(owner == self.row.owner.incarnation
            && answered == held.item.is_none()
            && key.is_some() == upload.is_some()
            && of_upload(key)
                == of_upload(upload.and_then(|upload| upload.target().map(|(_, key)| key.as_str().to_owned())))
            && writer == upload.and_then(|upload| upload.writer().map(|writer| writer.to_string()))
            && upload_id == upload.and_then(|upload| upload.upload().map(|id| id.as_str().to_owned()))
            && replaces == upload.is_some_and(|upload| upload.previous().is_some()))
    }

    /// Writes where the copies are that changed in the last day, as the journal has it now. How many those were.
    async fn copies(&mut self, link: &Link, renewed: &mut Instant) -> Result<u64, LedgerError> {
        let mut copies = 0;
        if !self.options.copies {
            return Ok(copies);
        }
        for file in self.recent.files() {
            for marks in Recent::read(&file)?.chunks(AT_ONCE) {
                let mut news = Changes::default();
                for mark in marks {
                    let record = self.journal.find(mark.fid).map(|location| location.to_bytes());
                    // A journal that was set aside, or can't be read, knows none: what the ledger has stays.
                    if record.is_some() || mark.is_gone {
                        let stamp = mark.stamp;
                        news.copies.insert(mark.fid, CopyNews { stamp, record });
                    }
                }
                copies += self.write(link, &news, Rows::Own).await?;
                // The rows of actions are equal by now: what changes meanwhile follows at once.
                self.write_changes(link).await?;
                self.renew(link, renewed).await?;
            }
        }
        Ok(copies)
    }

    /// Writes down which copies changed, whether the ledger hears of them or not.
    fn keep_marks(&mut self, complete: bool) {
        let (marks, lost) = self.shared.take_marks();
        if let Err(error) = self.recent.add(&marks) {
            tracing::warn!(
                copies = marks.len(), %error,
                "where copies are was not written down beside the journal: if the ledger's server loses its last rows, \
                 other movers will not know them"
            );
        }
        if lost > 0 {
            tracing::warn!(
                copies = lost,
                "the ledger's own disk is too slow: other movers may not know these copies"
            );
        }
        if self.trimmed.elapsed() >= TRIM {
            self.trimmed = Instant::now();
            self.recent.trim(now(), complete);
        }
    }
}

impl From<InHand> for ActionNews {
    fn from(held: InHand) -> Self {
        Self {
            item: held.item.map_or(Word::Gone, |item| Word::Is(Box::new(item))),
            upload: held.upload.map_or(Word::Gone, |upload| Word::Is(Box::new(upload))),
        }
    }
}

/// What somebody has to put right is an error; what comes back by itself a warning.
fn tell(error: &LedgerError) {
    const MEANWHILE: &str = "no ledger: other movers can't take over from this one; going on without, and trying again";
    match error {
        LedgerError::Unreachable { .. }
        | LedgerError::Silent { .. }
        | LedgerError::Statement { .. }
        | LedgerError::RowLost { .. } => {
            tracing::warn!(%error, "{MEANWHILE}");
        }
        _ => tracing::error!(%error, "{MEANWHILE}"),
    }
}
