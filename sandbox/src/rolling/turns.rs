//! One mover after the other has its turn, as docs/fleet.md tells administrators to do it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lhsm_sandbox::Client;
use lhsm_sandbox::protocol::HsmControl;

use crate::load::Load;
use crate::mover::{Mover, Site};
use crate::pace::Pace;
use crate::world::Result;

/// For what a mover of a release that keeps nothing has in hand.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
/// The load waits for a round of all movers for so many files.
const FILES_A_ROUND: u32 = 2500;

/// What is done to a mover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Restart,
    Upgrade,
    Drain,
}

impl Turn {
    /// In the first round all are done, in the later ones each mover comes to the others', too. There is one upgrade: a
    /// mover that goes back to the former release is another story.
    const fn of(mover: u32, round: u32) -> Self {
        if round == 0 && mover == 1 {
            Self::Upgrade
        } else if (mover + round) % 3 == 2 {
            Self::Drain
        } else {
            Self::Restart
        }
    }

    const fn told(self) -> &'static str {
        match self {
            Self::Restart => "restarted",
            Self::Upgrade => "upgraded",
            Self::Drain => "drained and started",
        }
    }
}

/// Turns that there are at least.
pub(crate) const fn wanted(movers: u32, files: u32) -> u32 {
    let rounds = files.div_ceil(FILES_A_ROUND);
    rounds * movers
}

/// Until the load is over; how many there were.
pub(crate) fn take(
    movers: &mut [Mover],
    site: &Site<'_>,
    client: &mut Client,
    pace: &Pace,
    load: &Load<'_>,
) -> Result<u32> {
    let mut turns = 0;
    for round in 0.. {
        for (number, mover) in (0..).zip(&mut *movers) {
            if pace.is_spent() {
                return Ok(turns);
            }
            let start = Instant::now();
            let turn = Turn::of(number, round);
            match turn {
                Turn::Restart => {
                    mover.stop()?;
                    mover.start(client)?;
                }
                Turn::Upgrade => upgrade(mover, site, client)?,
                Turn::Drain => {
                    mover.drain()?;
                    mover.start(client)?;
                }
            }
            turns += 1;
            pace.turn_over();
            eprintln!(
                "{} {} in {:.1} s; {} files archived, {} read by now",
                mover.name,
                turn.told(),
                start.elapsed().as_secs_f64(),
                load.archived.load(Ordering::Relaxed),
                load.read.load(Ordering::Relaxed)
            );
        }
    }
    Ok(turns)
}

fn upgrade(mover: &mut Mover, site: &Site<'_>, client: &mut Client) -> Result<()> {
    if !mover.answers_on_stop() {
        mover.stop()?;
        mover.upgrade(site)?;
        return mover.start(client);
    }
    // It gets nothing new, and has nothing that it could answer with an error: everybody waits for that long.
    client.control(HsmControl::Disabled)?;
    let until = Instant::now() + PATIENCE;
    while mover.outstanding(client)? > 0 {
        if Instant::now() > until {
            return Err(format!("{}, which gets nothing new, does not come to an end", mover.name).into());
        }
        std::thread::park_timeout(LOOK);
    }
    mover.stop()?;
    mover.upgrade(site)?;
    mover.start(client)?;
    Ok(client.control(HsmControl::Enabled)?)
}
