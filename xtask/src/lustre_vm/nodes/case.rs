//! One case: files of which some are being restored, archived and removed by both movers, then something happens to one's
//! node. Everything has to end well meanwhile, and to be well when the node is back.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::load::{self, Told};
use super::outcome::Outcome;
use super::site::{self, Site};

/// Until what was asked for is at both movers.
const UNDER_WAY: Duration = Duration::from_secs(90);
/// What was delivered is in the ledger then.
const KNOWN: Duration = Duration::from_secs(2);
/// For what a node that is back still has to send, and to learn.
const CALM: Duration = Duration::from_secs(40);

/// What happens to the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// It dies, and is booted again when all is over.
    Kill,
    /// From the file system, the other mover, the store and the ledger.
    Cut,
    /// From the file system and the other mover alone: its row in the ledger is renewed.
    CutFromLustre,
    /// It stands still and its clocks with it.
    Pause,
    /// It stands still and its clocks run on.
    Freeze,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::lustre_vm) struct Case {
    pub(super) name: &'static str,
    event: Event,
    /// For so many seconds.
    lasts: u64,
}

pub(super) const ALL: [Case; 6] = [
    Case::new("killed", Event::Kill, 0),
    Case::new("cut-60", Event::Cut, 60),
    Case::new("cut-125", Event::Cut, 125),
    Case::new("paused-125", Event::Pause, 125),
    Case::new("frozen-125", Event::Freeze, 125),
    Case::new("cut-from-lustre-125", Event::CutFromLustre, 125),
];

impl Case {
    const fn new(name: &'static str, event: Event, lasts: u64) -> Self {
        Self { name, event, lasts }
    }

    /// Runs it in a directory of that name, which it makes.
    ///
    /// # Errors
    /// It could not be tried. What is wrong with what was tried is in the outcome.
    pub(super) fn run(&self, site: &Site<'_>, directory: &str) -> Result<Outcome, String> {
        site.ready()?;
        let made = self.load(site, "make", directory, &mut || {})?;
        if !made.left.is_empty() {
            return Err(format!("before anything happened: {}", made.left.join(", ")));
        }
        let before = (site.status(&site.stays)?, site.status(&site.goes)?);
        let (in_hand, early, late) = self.under_load(site, directory)?;
        let mut outcome = Outcome::new(in_hand, &early, &late);
        outcome.unended(site.unended()?);
        self.check(site, "without", directory, &mut outcome)?;
        site.ready()?;
        site::pass(Instant::now() + CALM);
        outcome.unended(site.unended()?);
        outcome.taken_over = site.status(&site.stays)?.taken_over.saturating_sub(before.0.taken_over);
        if self.event != Event::Kill {
            outcome.given_up = site.status(&site.goes)?.given_up.saturating_sub(before.1.given_up);
        }
        self.check(site, "after", directory, &mut outcome)?;
        // What the store has is what counts.
        let released = self.load(site, "release", directory, &mut || {})?;
        outcome.left(&released);
        let on_mount = format!("/mnt/lustre/{directory}");
        let read = load::run(site.node, self.name, "check", &on_mount, &mut || {})?;
        outcome.read_by("on the node that is back, from the store", &read);
        outcome.unended(site.unended()?);
        self.check(site, "end", directory, &mut outcome)?;
        Ok(outcome)
    }

    /// The users on the servers' node, on a mount that is no mover's.
    fn load(&self, site: &Site<'_>, verb: &str, directory: &str, begun: &mut dyn FnMut()) -> Result<Told, String> {
        load::run(
            site.servers,
            self.name,
            verb,
            &format!("/mnt/lustre2/{directory}"),
            begun,
        )
    }

    /// How much the node had in hand when it happened; what became of all that was under way then, and of what was asked
    /// for after that.
    fn under_load(&self, site: &Site<'_>, directory: &str) -> Result<(u64, Told, Told), String> {
        std::thread::scope(|scope| {
            let (tell, begun) = mpsc::channel();
            let early = scope.spawn(move || {
                self.load(site, "early", directory, &mut || {
                    // Nobody listens any more: then it was too late, which is told there.
                    let _told = tell.send(());
                })
            });
            let happens = begun
                .recv_timeout(UNDER_WAY)
                .map_err(|_| "nothing was asked for".to_owned())
                .and_then(|()| self.until_under_way(site))
                .and_then(|()| {
                    site::pass(Instant::now() + KNOWN);
                    let in_hand = site.status(&site.goes)?.in_hand;
                    if in_hand == 0 {
                        return Err("the node had done all of its part before it could happen".into());
                    }
                    eprintln!("{}: it happens, with {in_hand} actions in hand", self.name);
                    self.begin(site).map(|()| in_hand)
                });
            let began = Instant::now();
            let late = happens.map(|in_hand| {
                site::pass(began + KNOWN);
                let late = scope.spawn(move || self.load(site, "late", directory, &mut || {}));
                site::pass(began + Duration::from_secs(self.lasts));
                eprintln!("{}: it is over", self.name);
                (in_hand, late)
            });
            // In any case, and before anybody waits for the load.
            let over = self.end(site);
            let early = joined(early);
            let late = late.and_then(|(in_hand, late)| Ok((in_hand, joined(late)?)));
            over?;
            let (in_hand, late) = late?;
            Ok((in_hand, early?, late))
        })
    }

    /// All that was asked for is with a mover, and the node has its part.
    fn until_under_way(&self, site: &Site<'_>) -> Result<(), String> {
        site.until("both movers have something in hand", UNDER_WAY, || {
            let (waiting, _) = site.actions()?;
            let (stays, goes) = (site.status(&site.stays)?, site.status(&site.goes)?);
            Ok(waiting == 0 && stays.in_hand > 0 && goes.in_hand > 0)
        })
    }

    fn begin(&self, site: &Site<'_>) -> Result<(), String> {
        match self.event {
            Event::Kill => site.node.by("boot.sh", Some("kill")),
            Event::Cut => {
                site.gate.cut();
                site.node.by("net.sh", Some("cut"))
            }
            Event::CutFromLustre => site.node.by("net.sh", Some("cut")),
            Event::Pause => site.node.by("boot.sh", Some("pause")),
            Event::Freeze => site.node.by("boot.sh", Some("freeze")),
        }
    }

    /// Does nothing where it had not begun.
    fn end(&self, site: &Site<'_>) -> Result<(), String> {
        match self.event {
            // It is booted when all is over.
            Event::Kill => Ok(()),
            Event::Cut | Event::CutFromLustre => {
                site.gate.join();
                site.node.by("net.sh", Some("join"))
            }
            Event::Pause => site.node.by("boot.sh", Some("resume")),
            Event::Freeze => site.node.by("boot.sh", Some("thaw")),
        }
    }

    /// Bytes and copies, seen from the servers' node.
    fn check(&self, site: &Site<'_>, when: &str, directory: &str, outcome: &mut Outcome) -> Result<(), String> {
        let read = self.load(site, "check", directory, &mut || {})?;
        outcome.read_by(when, &read);
        let report = format!("{}-{when}", self.name);
        let said = site.stays.ours(
            &format!("{report}-scrub"),
            &format!(
                "scrub /mnt/lustre/{directory} --grace 0s --json --checkpoint /run/{report}.scrub \
                 --report /share/lhsm/{report}.findings\necho \"it ended with $?\"; cat /share/lhsm/{report}.findings"
            ),
        )?;
        outcome.scrubbed(when, &said);
        Ok(())
    }
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<Told, String>>) -> Result<Told, String> {
    thread
        .join()
        .unwrap_or_else(|_| Err("the thread that waits for the load ended".into()))
}
