//! The two nodes, and what they and the coordinators say.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::guest::Guest;
use super::mover::Mover;
use super::wire::Gate;

const MINUTE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(1);
/// A node that was evicted is back by then, and both movers know of each other.
const READY: Duration = Duration::from_secs(240);
/// More than `active_request_timeout`: what nobody knows of is over then, too.
const ENDED: Duration = Duration::from_secs(300);
/// On each MDT: more actions at a time than the three that are the default, and none that is lost to all for an hour.
const TUNABLES: &str = "mdt.*.hsm.max_requests mdt.*.hsm.active_request_timeout mdt.*.hsm.loop_period";
const TUNED: &str = "mdt.*.hsm.max_requests=100 mdt.*.hsm.active_request_timeout=240 mdt.*.hsm.loop_period=1";
/// A new coordinator, for a purge alone leaves the slots of started actions taken.
const ANEW: &str = "for word in purge shutdown; do lctl set_param -n mdt.*.hsm_control=$word; sleep 2; done\n\
                    lctl set_param -n mdt.*.hsm_control=enabled";

#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) servers: &'a Guest,
    /// The node that something happens to.
    pub(super) node: &'a Guest,
    /// On the servers' node, which stays.
    pub(super) stays: Mover<'a>,
    pub(super) goes: Mover<'a>,
    /// Of the node's ways to the store and the ledger.
    pub(super) gate: &'a Gate,
    pub(super) logs: &'a Path,
}

/// What a mover's `/status` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Status {
    pub(super) in_hand: u64,
    pub(super) taken_over: u64,
    pub(super) given_up: u64,
}

impl Site<'_> {
    /// Makes the coordinators ready; their former settings.
    pub(super) fn tune(servers: &Guest) -> Result<String, String> {
        let before = servers.ask("tunables", &format!("lctl get_param {TUNABLES}"))?;
        servers.ask("tune", &format!("{ANEW}\nlctl set_param {TUNED}"))?;
        Ok(before)
    }

    /// The settings that [`Self::tune`] found.
    pub(super) fn put_back(servers: &Guest, before: &str) -> Result<(), String> {
        let lines: Vec<&str> = before.lines().filter(|line| line.contains('=')).collect();
        servers
            .ask("untune", &format!("lctl set_param {}", lines.join(" ")))
            .map(drop)
    }

    /// Both nodes up, both movers registered with all MDTs, and each watched by the other.
    pub(super) fn ready(&self) -> Result<(), String> {
        if !self.node.is_there() {
            self.node.by("boot.sh", None)?;
            self.node.by("mount.sh", None)?;
        }
        self.stays.serve()?;
        self.goes.serve()?;
        let ask = format!(
            "for at in {} {}; do curl -sf -m 5 http://$at/readyz >/dev/null && curl -sf -m 5 http://$at/status && echo; done\n\
             lctl get_param -n mdt.*.hsm.agents",
            self.stays.address(),
            self.goes.address()
        );
        self.until("both movers serve and see each other in the ledger", READY, || {
            let said = self.servers.ask("ready", &ask)?;
            let in_step =
                |line: &&str| line.contains("\"state\":\"in step\"") && line.contains("\"state\":\"serving\"");
            Ok(said.lines().filter(in_step).count() == 2 && said.matches("uuid=").count() >= 4)
        })
    }

    /// Of the mover on either node.
    pub(super) fn status(&self, mover: &Mover<'_>) -> Result<Status, String> {
        let said = self
            .servers
            .ask("status", &format!("curl -sf -m 10 http://{}/status", mover.address()))?;
        let count = |key| number(&said, key).unwrap_or_default();
        Ok(Status {
            in_hand: sum(&said, "waiting") + sum(&said, "running"),
            taken_over: count("taken_over"),
            given_up: count("given_up"),
        })
    }

    /// Actions that wait for a mover, and actions that a mover has, by the coordinators.
    pub(super) fn actions(&self) -> Result<(usize, usize), String> {
        let said = self.servers.ask("actions", "lctl get_param -n mdt.*.hsm.actions")?;
        Ok((
            said.matches("status=WAITING").count(),
            said.matches("status=STARTED").count(),
        ))
    }

    /// Actions that don't end, for as long as that is waited for.
    pub(super) fn unended(&self) -> Result<usize, String> {
        let mut last = 0;
        let ended = self.until("every action ends", ENDED, || {
            let (waiting, started) = self.actions()?;
            last = waiting + started;
            Ok(last == 0)
        });
        // In vain: then there are some, which is for who asked.
        match ended {
            Err(error) if last == 0 => Err(error),
            _ => Ok(last),
        }
    }

    /// Waits until it is so.
    pub(super) fn until(
        &self,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut() -> Result<bool, String>,
    ) -> Result<(), String> {
        let began = Instant::now();
        while !is_so()? {
            if began.elapsed() > limit {
                return Err(format!("waited in vain for {} s: {what}", limit.as_secs()));
            }
            std::thread::park_timeout(POLL);
        }
        Ok(())
    }

    /// What is known when a case fails, into files of its name; the ends of the movers' logs also to this process' errors.
    pub(super) fn tell(&self, case: &str) {
        for (name, mover) in [("servers", &self.stays), ("node2", &self.goes)] {
            let copy = self.logs.join(format!("{case}-{name}-mover.log"));
            if let Err(error) = std::fs::copy(mover.log_file(), &copy) {
                eprintln!("'{}': {error}", copy.display());
            }
            eprintln!("the mover's log of {name} ends with\n{}", mover.last_lines());
        }
        let state = "dmesg | tail -n 300; lctl get_param mdt.*.hsm.agents mdt.*.hsm.actions";
        if let Err(error) = self.servers.ask(&format!("{case}-state"), state) {
            eprintln!("{error}");
        }
        if self.node.is_there()
            && let Err(error) = self.node.ask(&format!("{case}-state"), "dmesg | tail -n 300")
        {
            eprintln!("{error}");
        }
    }
}

/// Waits: not for anything, but for a time that belongs to what is tried.
pub(super) fn pass(until: Instant) {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left.min(MINUTE));
    }
}

/// Of a line of JSON, the first number of that name.
pub(super) fn number(json: &str, key: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{key}\":"))?;
    let end = rest.find(|of: char| !of.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// All numbers of the object of that name, which has no others in it.
fn sum(json: &str, key: &str) -> u64 {
    let Some((_, rest)) = json.split_once(&format!("\"{key}\":{{")) else {
        return 0;
    };
    let object = rest.split('}').next().unwrap_or_default();
    let numbers = object
        .split(',')
        .filter_map(|pair| pair.rsplit_once(':')?.1.parse::<u64>().ok());
    numbers.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"host":"node2","waiting":{"archive":3,"restore":2},"running":{"restore":4},"sums":[],
        "ledger":{"state":"in step","lag":0.0,"mover":"node2","taken_over":17,"given_up":0}}"#;

    #[test]
    fn what_a_mover_has_in_hand_is_what_waits_and_what_runs() {
        assert_eq!(sum(STATUS, "waiting") + sum(STATUS, "running"), 9);
        assert_eq!(sum(r#"{"waiting":{},"running":{}}"#, "waiting"), 0);
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        assert_eq!(number(STATUS, "taken_over"), Some(17));
        assert_eq!(number(STATUS, "given_up"), Some(0));
        assert_eq!(number(STATUS, "lost"), None);
        assert_eq!(number(STATUS, "host"), None);
    }
}
