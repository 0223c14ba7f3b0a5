//! What becomes of movers that share a ledger: their daemons and nodes die, stand still or are cut off, and the ledger is
//! restarted or failed over, one after the other by the seed's lot. Work and readers go on meanwhile.

use std::io;
use std::time::{Duration, Instant};

use lhsm_sandbox::postgres::Postgres;
use lhsm_sandbox::protocol::{NodeEvent, Tunable};
use nix::sys::signal::Signal;

use crate::world::{Result, World};

/// After that the others take over.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// What the coordinator gives up an action after of which it hears nothing: no more than what nobody knows of may take so
/// long.
pub(crate) const ACTIVE_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two things that users do while time goes by.
const WORK: Duration = Duration::from_millis(20);
/// What a replica lacks that is promoted.
const BEHIND: Duration = Duration::from_secs(1);

impl World {
    /// One of them, and its end.
    pub(crate) fn trouble(&mut self) -> Result<()> {
        match self.random.below(16) {
            0..7 => self.daemons_die()?,
            7..10 => self.node_dies()?,
            10..12 => self.stands_still()?,
            12..14 => self.is_cut_off()?,
            14 => self.ledger_restarts()?,
            _ => self.ledger_fails_over()?,
        }
        self.outcome.kills += self.start_dead()?;
        self.hear_readers();
        Ok(())
    }

    /// As without a ledger; some of the dead stay so until others have taken over.
    fn daemons_die(&mut self) -> Result<()> {
        self.kill_some()?;
        if self.random.below(4) == 0 {
            let time = LEASE + self.up_to_ms(2500);
            self.go_on_for(time)?;
        }
        Ok(())
    }

    /// With everything; its next daemon finds its journal. It is evicted after a while, or at once by who fences it.
    fn node_dies(&mut self) -> Result<()> {
        self.evict_after(1000, 2000)?;
        self.some_work()?;
        let (at, node) = self.any_mover()?;
        self.deaths.is_of_node(at);
        self.becomes(&node, NodeEvent::Kill)?;
        if let Some(mover) = self.movers.get_mut(at) {
            mover.kill()?;
        }
        self.look();
        self.outcome.fleet.nodes += 1;
        if self.random.below(2) == 0 {
            let time = self.up_to_ms(500);
            self.go_on_for(time)?;
            self.becomes(&node, NodeEvent::Evict)?;
        }
        let time = self.up_to_ms(5000);
        self.go_on_for(time)
    }

    /// For longer than a lease: the whole node, or its daemon alone.
    fn stands_still(&mut self) -> Result<()> {
        self.evict_after(1000, 6000)?;
        self.some_work()?;
        let (at, node) = self.any_mover()?;
        let is_node = self.random.below(2) == 0;
        let time = LEASE + Duration::from_millis(500) + self.up_to_ms(4500);
        self.deaths.stands(at, &node, time);
        if is_node {
            self.becomes(&node, NodeEvent::Pause)?;
        } else {
            self.signal(at, Signal::SIGSTOP);
        }
        self.go_on_for(time)?;
        if is_node {
            self.becomes(&node, NodeEvent::Heal)?;
        } else {
            self.signal(at, Signal::SIGCONT);
        }
        self.deaths.stands(at, &node, Duration::ZERO);
        self.outcome.fleet.pauses += 1;
        self.some_work()
    }

    /// From the MDT, for less or more than it takes to be evicted; the store and the ledger hear it.
    fn is_cut_off(&mut self) -> Result<()> {
        self.evict_after(1000, 4000)?;
        self.some_work()?;
        let (_, node) = self.any_mover()?;
        self.becomes(&node, NodeEvent::Cut)?;
        let time = Duration::from_millis(500) + self.up_to_ms(4500);
        self.go_on_for(time)?;
        self.becomes(&node, NodeEvent::Heal)?;
        self.outcome.fleet.cuts += 1;
        self.some_work()
    }

    /// It is away for a while; sometimes a daemon dies while it is.
    fn ledger_restarts(&mut self) -> Result<()> {
        self.some_work()?;
        self.at_ledger(Postgres::stop)?;
        let time = self.up_to_ms(1500);
        self.go_on_for(time)?;
        if self.random.below(2) == 0 {
            self.kill_some()?;
        }
        self.at_ledger(Postgres::resume)?;
        self.outcome.fleet.ledger_restarts += 1;
        self.some_work()
    }

    /// To a copy that lacks the last second; sometimes of daemons, too, that die with the old one.
    fn ledger_fails_over(&mut self) -> Result<()> {
        self.some_work()?;
        self.at_ledger(Postgres::copy)?;
        self.go_on_for(BEHIND)?;
        if self.random.below(2) == 0 {
            self.kill_some()?;
        }
        self.at_ledger(Postgres::fail_over)?;
        self.outcome.fleet.failovers += 1;
        self.some_work()
    }

    /// Work and readers, for a time.
    fn go_on_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.work()?;
            self.look();
            self.hear_readers();
            std::thread::park_timeout(WORK);
        }
        Ok(())
    }

    /// Does what takes its time with the ledger while work goes on.
    fn at_ledger(&mut self, work: impl FnOnce(&mut Postgres) -> io::Result<()> + Send) -> Result<()> {
        let Some(mut ledger) = self.ledger.take() else {
            return Ok(());
        };
        let (done, worked) = std::thread::scope(|scope| {
            let at_it = scope.spawn(|| work(&mut ledger));
            let mut worked = Ok(());
            while !at_it.is_finished() && worked.is_ok() {
                worked = self.go_on_for(WORK);
            }
            (at_it.join(), worked)
        });
        self.ledger = Some(ledger);
        worked?;
        Ok(done.map_err(|_| "the thread at the ledger panicked")??)
    }

    /// Its number and its node.
    fn any_mover(&mut self) -> Result<(usize, String)> {
        let at = usize::try_from(self.random.below(self.movers.len() as u64))?;
        let mover = self.movers.get(at).ok_or("there is no mover")?;
        Ok((at, mover.node().to_owned()))
    }

    fn becomes(&mut self, node: &str, event: NodeEvent) -> Result<()> {
        let done = self.client.node_event(node, event);
        done.map_err(|error| format!("{event:?} of {node}: {error}").into())
    }

    fn signal(&self, at: usize, signal: Signal) {
        if let Some(mover) = self.movers.get(at) {
            // A trap may have killed it.
            let _gone = mover.daemon.signal(signal);
        }
    }

    fn evict_after(&mut self, ms: u64, more_ms: u64) -> Result<()> {
        let ms = ms + self.random.below(more_ms);
        Ok(self.client.set(Tunable::EvictionMs, ms)?)
    }

    fn up_to_ms(&mut self, ms: u64) -> Duration {
        Duration::from_millis(self.random.below(ms))
    }
}
