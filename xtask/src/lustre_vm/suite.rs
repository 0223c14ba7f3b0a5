//! (a) Our own suite for a mounted Lustre, in the guest.

use std::time::{Duration, Instant};

use super::bounded::Limits;
use super::guest::Guest;
use super::store::Store;
use super::tally::Tally;

const MINUTE: Duration = Duration::from_secs(60);
/// Unmounts and mounts the MDT of the number `$MDT`, as Lustre's own tests mount it.
const RESTART: &str = "m=mds$((MDT + 1)); umount /mnt/lustre-$m && \
                       mount -t lustre -o localrecov /dev/mapper/${m}_flakey /mnt/lustre-$m";

/// Runs the cases whose names have one of the words of `only` in them; none: all.
pub(super) fn run(guest: &Guest, store: &Store, only: &[String], scale: u32, tally: &mut Tally) {
    let only = if only.is_empty() {
        String::new()
    } else {
        format!("--only '{}'", only.join(","))
    };
    let script = format!(
        "exec suite --mount /mnt/lustre --s3 '{}' --whole-file-system --restart-mdt '{RESTART}' --scale {scale} {only}",
        store.url()
    );
    let limits = Limits {
        total: MINUTE * 240,
        silence: MINUTE * 25,
    };
    let mut cases = Cases::new();
    let ended = guest.work("suite", &script, limits, &mut |line| cases.hear(line, tally));
    cases.end(ended, tally);
}

/// What comes by TAP.
struct Cases {
    planned: Option<usize>,
    ended: usize,
    /// A case that failed, until its message comes.
    failed: Option<String>,
    since: Instant,
}

impl Cases {
    fn new() -> Self {
        Self {
            planned: None,
            ended: 0,
            failed: None,
            since: Instant::now(),
        }
    }

    fn hear(&mut self, line: &str, tally: &mut Tally) {
        if let Some(planned) = line.strip_prefix("1..") {
            self.planned = planned.parse().ok();
        } else if let Some(message) = line.strip_prefix("  message: ") {
            if let Some(case) = self.failed.take() {
                tally.fail(&case, message);
            }
        } else if let Some(case) = line.strip_prefix("not ok ").and_then(name) {
            self.settle(tally);
            self.ended += 1;
            self.failed = Some(case);
            self.since = Instant::now();
        } else if let Some(rest) = line.strip_prefix("ok ")
            && let Some(case) = name(rest)
        {
            self.settle(tally);
            self.ended += 1;
            match rest.split_once("# SKIP ") {
                Some((_, why)) => tally.skip(&case, why),
                None => tally.pass(&case, self.since.elapsed()),
            }
            self.since = Instant::now();
        }
    }

    /// One that failed without a message.
    fn settle(&mut self, tally: &mut Tally) {
        if let Some(case) = self.failed.take() {
            tally.fail(&case, "it says no more");
        }
    }

    fn end(&mut self, ended: Result<bool, String>, tally: &mut Tally) {
        self.settle(tally);
        let planned = self.planned.map_or("?".into(), |planned| planned.to_string());
        match ended {
            Err(error) => tally.fail("suite", &error),
            Ok(_) if self.planned != Some(self.ended) => tally.fail(
                "suite",
                &format!("it ended after {} of {planned} cases; see suite.log", self.ended),
            ),
            // One that failed has been counted.
            Ok(_) => {}
        }
    }
}

/// From `12 - round-trip: what it proves` or `12 - round-trip # SKIP why`.
fn name(rest: &str) -> Option<String> {
    let (number, rest) = rest.split_once(" - ")?;
    number.parse::<u32>().ok()?;
    let name = rest.split([':', ' ']).next()?;
    Some(format!("suite/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str], ended: Result<bool, String>) -> String {
        let (mut cases, mut tally) = (Cases::new(), Tally::default());
        for line in lines {
            cases.hear(line, &mut tally);
        }
        cases.end(ended, &mut tally);
        tally.text()
    }

    #[test]
    fn each_case_is_counted_once() {
        let lines = [
            "TAP version 13",
            "1..3",
            "ok 1 - one: it holds",
            "ok this is no case",
            "not ok 2 - two: it does not",
            "  ---",
            "  message: why",
            "  ...",
            "ok 3 - three # SKIP not here",
        ];
        assert_eq!(heard(&lines, Ok(false)), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_suite_that_ends_early_has_failed() {
        assert_eq!(
            heard(&["1..2", "ok 1 - one: it holds"], Ok(true)),
            "1 passed, 1 failed, 0 skipped"
        );
        assert_eq!(heard(&[], Ok(true)), "0 passed, 1 failed, 0 skipped");
        assert_eq!(heard(&["1..0"], Err("it hung".into())), "0 passed, 1 failed, 0 skipped");
    }
}
