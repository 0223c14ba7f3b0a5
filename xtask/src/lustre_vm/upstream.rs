//! (b) Lustre's own tests of HSM, with our copytool where they look for lhsmtool_posix.
//!
//! Which of them lhsmtool_posix passes in this guest is asked of itself: what fails with ours runs once more with it,
//! and what fails then too is none of ours.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::bounded::Limits;
use super::guest::Guest;
use super::store::Store;
use super::tally::Tally;

const MINUTE: Duration = Duration::from_secs(60);
/// They look for files in lhsmtool_posix' tree, take them away there, or look for its words in its log; 260b and 260c
/// also start two tools on one mount, where one of ours serves all archive ids.
const ITS_OWN: [&str; 17] = [
    "10a", "11a", "14", "25a", "30a", "60", "72", "110a", "111a", "111b", "222a", "222c", "222d", "224a", "260a",
    "260b", "260c",
];
/// Runs that a test which hangs may cost.
const RUNS: u32 = 6;
const SETTINGS: &str = "/run/lhsm-s3.env";
const INSTALL: &str = "set -e
cd /usr/sbin
[ -e lhsmtool_posix.real ] || mv lhsmtool_posix lhsmtool_posix.real
install -m 755 /share/lhsm/lhsmtool_posix /usr/sbin/lhsmtool_posix
install -m 600 /share/lhsm/settings /run/lhsm-s3.env
mkdir -p /srv/arc1 /srv/arc2 /tmp/shared";
const ENVIRONMENT: &str = ". /root/lustre.env
export AGTDEV1=/srv/arc1 AGTDEV2=/srv/arc2 SHARED_DIRECTORY=/tmp/shared RUNAS_ID=500 NAME=local SLOW=no
cd /usr/lib/lustre/tests";

/// Runs those of `only`; none: all but those that are about lhsmtool_posix itself.
pub(super) fn run(guest: &Guest, store: &Store, only: &[String], tally: &mut Tally) {
    if let Err(error) = tried(guest, store, only, tally) {
        tally.fail("sanity-hsm", &error);
    }
    // Whoever uses the guest next has lhsmtool_posix there.
    if let Err(error) = guest.ask("uninstall", &format!("rm -f {SETTINGS}")) {
        eprintln!("{error}");
    }
}

fn tried(guest: &Guest, store: &Store, only: &[String], tally: &mut Tally) -> Result<(), String> {
    install(guest, store)?;
    let names: Vec<String> = if only.is_empty() {
        let list = guest.ask(
            "names",
            "sed -n 's/^run_test \\([0-9A-Za-z]*\\) .*/\\1/p' /usr/lib/lustre/tests/sanity-hsm.sh",
        )?;
        let names = list.lines().filter(|name| !ITS_OWN.contains(name));
        names.map(str::to_owned).collect()
    } else {
        only.to_vec()
    };
    let mut failed = Vec::new();
    all(guest, "sanity-hsm", &names, &mut |case, outcome, took| {
        let shown = format!("sanity-hsm/{case}");
        match outcome {
            Outcome::Passed => tally.pass(&shown, took),
            Outcome::Skipped(why) => tally.skip(&shown, &why),
            Outcome::Failed(why) => failed.push((case.to_owned(), why)),
        }
    });
    if failed.is_empty() {
        return Ok(());
    }
    eprintln!("{} failed; with lhsmtool_posix:", failed.len());
    guest.ask("uninstall", &format!("rm -f {SETTINGS}"))?;
    let names: Vec<_> = failed.iter().map(|(case, _)| case.clone()).collect();
    let mut fail_there = Vec::new();
    all(guest, "reference", &names, &mut |case, outcome, _| {
        if matches!(outcome, Outcome::Failed(_)) {
            fail_there.push(case.to_owned());
        }
    });
    for (case, why) in failed {
        let shown = format!("sanity-hsm/{case}");
        if fail_there.contains(&case) {
            tally.skip(&shown, &format!("lhsmtool_posix fails it here, too ({why})"));
        } else {
            tally.fail(&shown, &why);
        }
    }
    Ok(())
}

fn install(guest: &Guest, store: &Store) -> Result<(), String> {
    let share = guest.share().join("lhsm");
    let settings = format!(
        "export AWS_ACCESS_KEY_ID='{}' AWS_SECRET_ACCESS_KEY='{}' AWS_EC2_METADATA_DISABLED=true\n\
         ENDPOINT='{}' BUCKET='{}'\n",
        store.key, store.secret, store.endpoint, store.bucket
    );
    let files = [
        ("lhsmtool_posix", include_str!("guest/lhsmtool_posix"), 0o755),
        ("put-tree.py", include_str!("guest/put-tree.py"), 0o644),
        ("settings", settings.as_str(), 0o600),
    ];
    std::fs::create_dir_all(&share).map_err(|error| format!("'{}': {error}", share.display()))?;
    for (name, text, mode) in files {
        let path = share.join(name);
        written(&path, text, mode).map_err(|error| format!("'{}': {error}", path.display()))?;
    }
    guest.ask("install", INSTALL).map(drop)
}

fn written(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

type Told<'a> = dyn FnMut(&str, Outcome, Duration) + 'a;

/// Runs all of these, however often the script has to be started for it: one that hangs or ends the script has failed,
/// and those behind it have their turn.
fn all(guest: &Guest, log: &str, names: &[String], told: &mut Told<'_>) {
    let mut left: Vec<&str> = names.iter().map(String::as_str).collect();
    for run in 1..=RUNS {
        if left.is_empty() {
            return;
        }
        let script = format!("{ENVIRONMENT}\nONLY='{}' bash sanity-hsm.sh", left.join(" "));
        let limits = Limits {
            total: MINUTE * 240,
            silence: MINUTE * 10,
        };
        let mut cases = Cases::new(&mut left);
        let log = if run == 1 {
            log.to_owned()
        } else {
            format!("{log}-{run}")
        };
        let ended = guest.work(&log, &script, limits, &mut |line| cases.hear(line, told));
        let at = cases.now.take();
        let why = match ended {
            Ok(_) => format!("the script ended with it; see {log}.log"),
            Err(error) => error,
        };
        // Where none had begun, the first one stands for them.
        let Some(case) = at
            .filter(|case| left.contains(&case.as_str()))
            .or(left.first().map(|case| (*case).into()))
        else {
            return;
        };
        left.retain(|left| *left != case);
        told(&case, Outcome::Failed(why), Duration::ZERO);
    }
    for case in left {
        told(
            case,
            Outcome::Failed(format!("not reached in {RUNS} runs")),
            Duration::ZERO,
        );
    }
}

/// What a run says of its cases.
struct Cases<'a, 'b> {
    /// Without a result yet.
    left: &'a mut Vec<&'b str>,
    now: Option<String>,
    since: Instant,
    why: String,
}

impl<'a, 'b> Cases<'a, 'b> {
    fn new(left: &'a mut Vec<&'b str>) -> Self {
        Self {
            left,
            now: None,
            since: Instant::now(),
            why: String::new(),
        }
    }

    fn hear(&mut self, line: &str, told: &mut Told<'_>) {
        if let Some(rest) = line.strip_prefix("== sanity-hsm test ")
            && let Some((case, _)) = rest.split_once(':')
        {
            self.now = Some(case.to_owned());
            self.since = Instant::now();
            self.why.clear();
            return;
        }
        if let Some((_, why)) = line.split_once("@@@@@@ FAIL: ") {
            // The first one is the cause.
            if self.why.is_empty() {
                why.trim().clone_into(&mut self.why);
            }
            return;
        }
        if let Some((_, why)) = line.split_once(" SKIP: sanity-hsm ") {
            // Behind the test's name.
            let why = why.split_once(' ').map_or(why, |(_, why)| why);
            why.trim().clone_into(&mut self.why);
            return;
        }
        let mut words = line.split(' ');
        let (Some(word), Some(case)) = (words.next(), words.next()) else {
            return;
        };
        let why = || {
            if self.why.is_empty() {
                "it says no more".to_owned()
            } else {
                self.why.clone()
            }
        };
        let outcome = match word {
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed(why()),
            "SKIP" => Outcome::Skipped(why()),
            _ => return,
        };
        let Some(at) = self.left.iter().position(|left| *left == case) else {
            return;
        };
        self.left.remove(at);
        self.now = None;
        told(case, outcome, self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_one_outcome_with_its_cause() {
        let mut left = vec!["1A", "12a", "57", "58"];
        let mut heard = Vec::new();
        let mut cases = Cases::new(&mut left);
        for line in [
            "== sanity-hsm test 1A: lfs hsm flags root/non-root access ===== 10:00:00 (1)",
            "PASS 1A (5s)",
            "== sanity-hsm test 12a: Restore an imported file explicitly === 10:00:05 (6)",
            " sanity-hsm test_12a: @@@@@@ FAIL: Restored file differs ",
            " sanity-hsm test_12a: @@@@@@ FAIL: test_12a failed with 1 ",
            "FAIL 12a (7s)",
            "FAIL 12a (7s)",
            "== sanity-hsm test 57: Archive a file with dirty cache === 10:00:12 (13)",
            " SKIP: sanity-hsm test_57 needs 2 clients",
            "SKIP 57 (0s)",
            "== sanity-hsm test 58: Truncate === 10:00:13 (14)",
        ] {
            cases.hear(line, &mut |case: &str, outcome, _| {
                heard.push((case.to_owned(), outcome))
            });
        }
        assert_eq!(cases.now.as_deref(), Some("58"));
        assert_eq!(left, ["58"]);
        assert_eq!(
            heard,
            [
                ("1A".to_owned(), Outcome::Passed),
                ("12a".to_owned(), Outcome::Failed("Restored file differs".to_owned())),
                ("57".to_owned(), Outcome::Skipped("needs 2 clients".to_owned())),
            ]
        );
    }
}
