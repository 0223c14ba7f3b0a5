//! What is counted where movers share a ledger: troubles, reads, and for each read that failed whether anybody could have
//! served it.

use std::time::{Duration, Instant};

use lhsm_sandbox::mover::Mover;
use lhsm_sandbox::protocol::{ActionState, Fid};

use crate::readers::{Failure, Found, Told};
use crate::world::{LOOK, Result, World};

/// What a mover has received is in its journal and in the ledger after so long.
const WRITTEN: Duration = Duration::from_millis(100);
/// For one that stood still, to read what its kernel had for it.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads: u64,
    /// Of readers whose restore nobody had cancelled or purged.
    pub(crate) failed_reads: u64,
    /// Of readers whose restore was cancelled or purged.
    pub(crate) cancelled_reads: u64,
    /// Restores that only a mover knew that died before it could say so.
    pub(crate) unknown_to_all: u64,
    /// Of those, where its daemon died alone.
    pub(crate) unknown_of_daemons: u64,
    /// Of those, where it stood still until the servers had evicted it, and answered then.
    pub(crate) unknown_of_paused: u64,
    /// Restores that were whole, and whose data went with a restart of the MDT between their copytool's last look at them and
    /// its end: the MDT takes that end, by the cookie, for one of the action that it has sent to somebody again.
    pub(crate) spoiled_by_restarts: u64,
    pub(crate) longest_wait: Duration,
    pub(crate) nodes: u64,
    pub(crate) pauses: u64,
    pub(crate) cuts: u64,
    pub(crate) mdt_restarts: u64,
    pub(crate) ledger_restarts: u64,
    pub(crate) failovers: u64,
}

impl Counts {
    pub(crate) fn json(&self) -> String {
        format!(
            "\"reads\":{},\"failed_reads\":{},\"longest_wait_s\":{:.3},\"unknown_to_all\":{},\"unknown_of_daemons\":{},\
             \"unknown_of_paused\":{},\"spoiled_by_restarts\":{},\"cancelled_reads\":{},\"nodes\":{},\"pauses\":{},\"cuts\":{},\
             \"mdt_restarts\":{},\"ledger_restarts\":{},\"failovers\":{}",
            self.reads,
            self.failed_reads,
            self.longest_wait.as_secs_f64(),
            self.unknown_to_all,
            self.unknown_of_daemons,
            self.unknown_of_paused,
            self.spoiled_by_restarts,
            self.cancelled_reads,
            self.nodes,
            self.pauses,
            self.cuts,
            self.mdt_restarts,
            self.ledger_restarts,
            self.failovers
        )
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "; {} nodes killed, {} paused, {} cut off, {} restarts of the MDT, {} restarts and {} failovers of the ledger; {} reads, \
             the longest took {:.1} s: {} failed, {} were cancelled or purged, {} nobody knew of but a mover that had just died ({} \
             without its node, {} were evicted while they stood still), {} were whole when the MDT restarted, and gone with it when \
             they were handed over",
            self.nodes,
            self.pauses,
            self.cuts,
            self.mdt_restarts,
            self.ledger_restarts,
            self.failovers,
            self.reads,
            self.longest_wait.as_secs_f64(),
            self.failed_reads,
            self.cancelled_reads,
            self.unknown_to_all,
            self.unknown_of_daemons,
            self.unknown_of_paused,
            self.spoiled_by_restarts
        )
    }
}

/// A time within which something happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// When movers died, and what they can have left unread or unsaid.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    lives: Vec<Life>,
    deaths: Vec<Death>,
    /// Nodes that stood still for longer than a lease, and what they had got just before.
    pauses: Vec<(String, Span)>,
}

#[derive(Debug)]
struct Death {
    node: String,
    /// Whatever the mover got then may have gone with it.
    span: Span,
    /// The node died with it.
    is_nodes: bool,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    /// Whatever it had got by then it has read.
    read_up_to: Instant,
    /// It reads nothing before.
    stands_until: Option<Instant>,
    is_dead: bool,
    /// Its node dies.
    is_nodes: bool,
}

impl Deaths {
    pub(crate) fn new(movers: usize) -> Self {
        let life = Life {
            read_up_to: Instant::now(),
            stands_until: None,
            is_dead: false,
            is_nodes: false,
        };
        Self {
            lives: vec![life; movers],
            deaths: Vec::new(),
            pauses: Vec::new(),
        }
    }

    /// Looks which of them live. The more often, the better a death's time is known.
    pub(crate) fn look(&mut self, movers: &mut [Mover]) {
        let now = Instant::now();
        for (life, mover) in self.lives.iter_mut().zip(movers) {
            if mover.is_running() {
                life.is_dead = false;
                if life.stands_until.is_none_or(|until| until <= now) {
                    life.stands_until = None;
                    life.read_up_to = now;
                }
            } else if !std::mem::replace(&mut life.is_dead, true) {
                let from = life.read_up_to.checked_sub(WRITTEN).unwrap_or(life.read_up_to);
                let to = Instant::now();
                self.deaths.push(Death {
                    node: mover.node().to_owned(),
                    span: Span { from, to },
                    is_nodes: std::mem::take(&mut life.is_nodes),
                });
                life.stands_until = None;
            }
        }
    }

    /// Whether it was dead at the last look.
    pub(crate) fn is_dead(&self, at: usize) -> bool {
        self.lives.get(at).is_some_and(|life| life.is_dead)
    }

    /// It stands still for so long, and then has what came meanwhile to read.
    pub(crate) fn stands(&mut self, at: usize, node: &str, time: Duration) {
        let now = Instant::now();
        if time > Duration::ZERO {
            let from = now.checked_sub(WRITTEN).unwrap_or(now);
            self.pauses.push((node.to_owned(), Span { from, to: now }));
        }
        if let Some(life) = self.lives.get_mut(at) {
            life.stands_until = Some(now + time + CATCH_UP);
        }
    }

    /// Its death, which is about to come, is its node's.
    pub(crate) fn is_of_node(&mut self, at: usize) {
        if let Some(life) = self.lives.get_mut(at).filter(|life| !life.is_dead) {
            life.is_nodes = true;
        }
    }

    /// The death that what a node got at that time may have gone with.
    fn took(&self, node: &str, delivered: Instant) -> Option<&Death> {
        let mut deaths = self.of(node);
        deaths.find(|death| death.span.from <= delivered && delivered <= death.span.to)
    }

    /// Whether what a node got at that time it can't have said before it stood still.
    fn stood_still_on(&self, node: &str, delivered: Instant) -> bool {
        let mut pauses = self.pauses.iter().filter(|(paused, _)| paused == node);
        pauses.any(|(_, span)| span.from <= delivered && delivered <= span.to)
    }

    /// How long after that time its next death was noticed.
    fn next(&self, node: &str, delivered: Instant) -> Option<Duration> {
        let later = self.of(node).filter(|death| death.span.to >= delivered);
        later.map(|death| death.span.to.duration_since(delivered)).min()
    }

    /// One that died and booted since has its number behind its name.
    fn of(&self, node: &str) -> impl Iterator<Item = &Death> {
        self.deaths.iter().filter(move |death| {
            let number = node.strip_prefix(death.node.as_str());
            number.is_some_and(|number| number.is_empty() || number.starts_with('#'))
        })
    }
}

impl World {
    /// Looks who lives.
    pub(crate) fn look(&mut self) {
        self.deaths.look(&mut self.movers);
    }

    /// What readers have to say.
    pub(crate) fn hear_readers(&mut self) {
        while let Some(told) = self.readers.as_mut().and_then(|readers| readers.ended(Duration::ZERO)) {
            self.judge(&told);
        }
    }

    /// Until the last of them has ended; those that don't hang.
    pub(crate) fn end_readers(&mut self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let left = |world: &Self| {
            world
                .readers
                .as_ref()
                .map(|readers| readers.under_way())
                .unwrap_or_default()
        };
        while !left(self).is_empty() && Instant::now() < until {
            // What a leftover trap kills is started again meanwhile.
            self.outcome.kills += self.start_dead()?;
            if let Some(told) = self.readers.as_mut().and_then(|readers| readers.ended(LOOK)) {
                self.judge(&told);
            }
        }
        for (fid, since) in left(self) {
            let said = format!("hangs: a reader has waited for {:.1} s", since.elapsed().as_secs_f64());
            self.tell(&said, fid);
            self.outcome.hung += 1;
        }
        Ok(())
    }

    fn judge(&mut self, told: &Told) {
        let waited = told.ended.duration_since(told.began);
        let fid = told.file.fid;
        match &told.found {
            Found::Right | Found::Wrong => {
                let counts = &mut self.outcome.fleet;
                counts.reads += 1;
                counts.longest_wait = counts.longest_wait.max(waited);
                if matches!(told.found, Found::Wrong) {
                    self.outcome.corrupt += 1;
                    self.tell(
                        &format!("corrupt, as a reader saw it after {:.3} s", waited.as_secs_f64()),
                        fid,
                    );
                }
            }
            Found::Failed(failure) => {
                let was_purged = self
                    .purges
                    .iter()
                    .any(|purge| purge.to >= told.began && purge.from <= told.ended);
                if failure.is_cancelled || was_purged {
                    self.outcome.fleet.cancelled_reads += 1;
                } else if failure.restore.as_ref().is_some_and(|restore| restore.spoiled) {
                    self.outcome.fleet.spoiled_by_restarts += 1;
                } else if self.was_paused_over(failure) {
                    self.outcome.fleet.unknown_to_all += 1;
                    self.outcome.fleet.unknown_of_paused += 1;
                } else if let Some(death) = self.was_unknown(failure) {
                    let is_daemons = !death.is_nodes;
                    self.outcome.fleet.unknown_to_all += 1;
                    self.outcome.fleet.unknown_of_daemons += u64::from(is_daemons);
                } else {
                    self.outcome.fleet.failed_reads += 1;
                    self.tell_failure(fid, waited, failure);
                }
            }
        }
    }

    /// The coordinator gave it up unanswered, and its mover had died before it could say that it had it: that death.
    fn was_unknown(&self, failure: &Failure) -> Option<&Death> {
        let restore = failure.restore.as_ref()?;
        let is_given_up = restore.state == ActionState::Canceled && restore.ends == 0;
        let death = self.deaths.took(restore.agent.as_deref()?, failure.delivered?);
        death.filter(|_| is_given_up)
    }

    /// Its mover stood still before it could say that it had it, and its answer came when its node had been evicted: the
    /// data that it had for the file was gone, with all that the node had open.
    fn was_paused_over(&self, failure: &Failure) -> bool {
        let Some(restore) = failure.restore.as_ref() else {
            return false;
        };
        let is_of_evicted = restore.state == ActionState::Failed && restore.errval == libc::ESTALE;
        let node = restore.agent.as_deref().zip(failure.delivered);
        is_of_evicted && node.is_some_and(|(node, delivered)| self.deaths.stood_still_on(node, delivered))
    }

    fn tell_failure(&mut self, fid: Fid, waited: Duration, failure: &Failure) {
        let mut said = format!("a read failed after {:.3} s: {}", waited.as_secs_f64(), failure.error);
        if let Some(restore) = &failure.restore {
            let node = restore.agent.as_deref().unwrap_or("nobody");
            said += &format!(
                "; its restore (cookie {:#x}) is {:?}, errval {}, {} answers, at {node}",
                restore.cookie, restore.state, restore.errval, restore.ends
            );
            if let Some(delivered) = failure.delivered {
                said += &format!(" for {:.3} s", delivered.elapsed().as_secs_f64());
                match self.deaths.next(node, delivered) {
                    Some(after) => {
                        said += &format!(", whose mover was seen to be dead {:.3} s later", after.as_secs_f64())
                    }
                    None => said += ", whose mover did not die since",
                }
            }
        }
        self.tell(&said, fid);
    }
}
