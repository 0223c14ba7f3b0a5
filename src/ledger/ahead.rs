//! Which actions of other movers are ahead of this one's: what the ledger's thread asks, and says in its own rows, so that
//! movers take turns at a file (`super::turns`).

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::keeper::Keeper;
use super::link::Link;
use super::peers::{GONE, TAKEN};
use super::rows::{Owner, begin, fid_bytes, key_of};
use super::turns::{Fresh, Other, Stage, Turn, turn};
use super::{Heir, LedgerError};
use crate::action::{ActionKey, Item};
use crate::types::Fid;

/// Actions of one look.
pub(super) const AT_ONCE: usize = 1000;
/// Between two looks at those that wait.
const PAUSE: Duration = Duration::from_millis(250);
/// Before those are looked at that came behind the last changes that were written.
const SOON: Duration = Duration::from_millis(50);
/// For whoever takes over from a dead mover, behind the time that it leaves it.
const SLACK: Duration = Duration::from_secs(60);

/// A row whose mover nobody knows is that of one which is being started again, and finds it in a moment; or nobody's.
const OTHERS: &str = "\
SELECT a.fid, a.cookie, a.verb, a.serial, a.behind, COALESCE(m.name, '?'), COALESCE(m.state, 1::smallint),
    a.answered OR m.name IS NULL
FROM lhsmtool_s3.action a LEFT JOIN lhsmtool_s3.mover m ON m.incarnation = a.owner
WHERE a.fid = ANY ($1) AND a.owner <> ALL ($2) AND a.verb IS NOT NULL AND (m.name IS NOT NULL OR NOT a.answered)";

const SAY: &str = "\
UPDATE lhsmtool_s3.action a SET behind = $3 FROM unnest($1::bytea[], $2::bigint[]) AS k (fid, cookie)
WHERE a.fid = k.fid AND a.cookie = k.cookie AND a.owner = ANY ($4) RETURNING a.fid, a.cookie, a.serial";

const SAY_NOTHING: &str = "UPDATE lhsmtool_s3.action SET behind = false WHERE owner = ANY ($1) AND behind";

/// A restore waits for restores alone.
const RESTORE: i16 = 2;

/// What is at files, by file and whether it restores it.
type Others = HashMap<(Fid, bool), Vec<(ActionKey, Other)>>;

/// What the rows are to say, when all were looked at.
#[derive(Debug, Default)]
struct Words {
    behind: Vec<ActionKey>,
    claims: Vec<ActionKey>,
}

/// No row says that it waits: whoever waited here before, it was for a connection that is gone.
///
/// # Errors
/// It is not known what they say.
pub(super) async fn say_nothing(link: &Link, owner: &Owner) -> Result<(), LedgerError> {
    begin(link, owner).await?;
    link.execute(SAY_NOTHING, &[(&owner.known_as, Type::INT8_ARRAY)])
        .await?;
    link.batch("COMMIT").await
}

async fn others(link: &Link, owner: &Owner, fids: &BTreeSet<Fid>) -> Result<Others, LedgerError> {
    let fids: Vec<_> = fids.iter().copied().map(fid_bytes).collect();
    let mut others = Others::new();
    for fids in fids.chunks(AT_ONCE) {
        let rows = link
            .query(
                OTHERS,
                &[(&fids, Type::BYTEA_ARRAY), (&owner.known_as, Type::INT8_ARRAY)],
            )
            .await?;
        for row in &rows {
            let Some(key) = key_of(link.get(row, 0)?, link.get(row, 1)?) else {
                continue;
            };
            let verb: i16 = link.get(row, 2)?;
            let state: i16 = link.get(row, 6)?;
            let other = Other {
                serial: link.get(row, 3)?,
                behind: link.get(row, 4)?,
                mover: link.get(row, 5)?,
                settles: link.get(row, 7)?,
                is_dead: [GONE, TAKEN].contains(&state),
            };
            let at_file = others.entry((key.fid, verb == RESTORE)).or_default();
            at_file.push((key, other));
        }
    }
    Ok(others)
}

/// Has own rows say whether they wait; the serials of those that there are. Once this mover was found dead whoever took them over
/// says that.
async fn say(
    link: &Link,
    owner: &Owner,
    keys: &[ActionKey],
    behind: bool,
) -> Result<HashMap<ActionKey, i64>, LedgerError> {
    let mut serials = HashMap::new();
    if keys.is_empty() {
        return Ok(serials);
    }
    begin(link, owner).await?;
    for keys in keys.chunks(AT_ONCE) {
        let fids: Vec<_> = keys.iter().map(|key| fid_bytes(key.fid)).collect();
        let cookies: Vec<_> = keys.iter().map(|key| key.cookie.0.cast_signed()).collect();
        let rows = link
            .query(
                SAY,
                &[
                    (&fids, Type::BYTEA_ARRAY),
                    (&cookies, Type::INT8_ARRAY),
                    (&behind, Type::BOOL),
                    (&owner.known_as, Type::INT8_ARRAY),
                ],
            )
            .await?;
        for row in &rows {
            if let Some(key) = key_of(link.get(row, 0)?, link.get(row, 1)?) {
                serials.insert(key, link.get(row, 2)?);
            }
        }
    }
    link.batch("COMMIT").await?;
    Ok(serials)
}

impl Keeper {
    /// What was taken in before the ledger was there is looked at, too.
    pub(super) fn ask_for<'a>(&mut self, in_hand: impl Iterator<Item = &'a Item>) {
        let turns = self.shared.turns();
        in_hand.for_each(|item| turns.add(item));
        self.turn_due = Some(Instant::now());
    }

    /// Has movers take turns, if there are others.
    pub(super) fn open_turns(&self) {
        if !self.row.owner.others.is_empty() {
            self.shared.turns().open();
        }
    }

    /// There is no ledger: whatever waits goes on.
    pub(super) fn close_turns(&mut self) {
        let keys = self.shared.turns().close();
        self.turn_due = None;
        self.turn_at = None;
        if let Some(heir) = self.shared.heir() {
            keys.into_iter().for_each(|key| heir.let_go(key));
        }
    }

    /// Looks at who else is at the files of these, whose rows are committed, and of those that wait.
    pub(super) async fn take_turns(&mut self, link: &Link, fresh: Vec<(ActionKey, Fresh)>) -> Result<(), LedgerError> {
        let turns = self.shared.turns().clone();
        if turns.is_empty() {
            self.turn_due = None;
            return Ok(());
        }
        let Some(heir) = self.shared.heir() else {
            self.turn_due = Some(Instant::now() + PAUSE);
            return Ok(());
        };
        turns.take_over().into_iter().for_each(|key| heir.let_go(key));
        let is_due = self.turn_due.is_some_and(|due| due <= Instant::now());
        let waiting = match is_due {
            true => turns.waiting(self.turn_at, AT_ONCE),
            false => Vec::new(),
        };
        let fids = fresh.iter().map(|(key, _)| key.fid);
        let fids: BTreeSet<_> = fids.chain(waiting.iter().map(|(key, _)| key.fid)).collect();
        let others = Box::pin(others(link, &self.row.owner, &fids)).await?;
        let ahead_of = |key: ActionKey, is_restore| -> Vec<Other> {
            let at_file = others.get(&(key.fid, is_restore)).into_iter().flatten();
            // Of what is another mover's by now nothing is to be done here.
            let different = at_file.filter(|(other, _)| *other != key);
            different.map(|(_, other)| other.clone()).collect()
        };
        let mut words = Words::default();
        let is_full = fresh.len() == AT_ONCE;
        for (key, fresh) in fresh {
            let ahead = ahead_of(key, fresh.is_restore);
            let turn = turn(Stage::Fresh, i64::MAX, &ahead);
            if !turns.looked_at(key, fresh) {
                continue;
            }
            match turn {
                Turn::Waits(other) if heir.hold(key, &other.mover) => {
                    turns.waits(key, fresh.is_restore);
                    turns.waits_for(key, other);
                    words.behind.push(key);
                }
                // It runs: what it does rests on what objects say of themselves.
                Turn::Waits(_) | Turn::Goes | Turn::Claims => {
                    turns.goes(key);
                    heir.let_go(key);
                }
            }
        }
        if is_due {
            let last = waiting.last().filter(|_| waiting.len() == AT_ONCE);
            self.turn_at = last.map(|(key, _)| *key);
        }
        let overdue = self.options.takeover_archives + SLACK;
        for (key, waiting) in waiting {
            let (serial, ahead) = match waiting.is_overdue(overdue) {
                true => (waiting.serial, Vec::new()),
                // The other one may wait for what is behind this one in its own queue.
                false if heir.holds_up(key) => (i64::MIN, ahead_of(key, waiting.is_restore)),
                false => (
                    turns.first_serial(key.fid, waiting.is_restore),
                    ahead_of(key, waiting.is_restore),
                ),
            };
            match turn(waiting.stage, serial, &ahead) {
                Turn::Goes => {
                    turns.goes(key);
                    heir.let_go(key);
                }
                Turn::Claims => words.claims.push(key),
                Turn::Waits(other) => {
                    turns.waits_for(key, other);
                    if waiting.stage == Stage::Claims {
                        words.behind.push(key);
                    }
                }
            }
        }
        let is_claiming = !words.claims.is_empty();
        Box::pin(self.say(link, heir.as_ref(), &words)).await?;
        let next = match turns.is_empty() {
            true => None,
            false if is_full || is_claiming || self.turn_at.is_some() => Some(Instant::now()),
            false if !turns.fresh(1).is_empty() => Some(Instant::now() + SOON),
            false => Some(Instant::now() + PAUSE),
        };
        self.turn_due = match (self.turn_due, next) {
            (Some(due), Some(next)) if !is_due => Some(due.min(next)),
            _ => next,
        };
        Ok(())
    }

    async fn say(&self, link: &Link, heir: &dyn Heir, words: &Words) -> Result<(), LedgerError> {
        let turns = self.shared.turns();
        for (keys, behind, stage) in [
            (&words.behind, true, Stage::Behind),
            (&words.claims, false, Stage::Claims),
        ] {
            let serials = say(link, &self.row.owner, keys, behind).await?;
            for key in keys {
                match serials.get(key) {
                    Some(serial) => turns.stands(*key, stage, *serial),
                    // It has ended, or is another mover's: there is nothing to wait here.
                    None => {
                        turns.goes(*key);
                        heir.let_go(*key);
                    }
                }
            }
        }
        Ok(())
    }
}
