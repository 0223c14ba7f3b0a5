//! `cargo xtask lustre-vm`: the copytool on a real Lustre, in an emulated guest that is booted for it.
//!
//! Beside the checkout there may be `../shared/lustre-vm`, whose `quick.sh DIR` makes a guest with a Lustre in it and
//! mounts that. Into it go our binaries; the store is the embedded S3 on this machine. One line a case, one sum.
//! `--nodes 2`: there is a second guest, and what becomes of two movers when one's node goes.

mod beside;
mod bounded;
mod guest;
mod nodes;
mod postgres;
mod store;
mod suite;
mod tally;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use self::guest::Guest;
use self::nodes::Setting;
use self::store::Store;
use self::tally::Tally;

const USAGE: &str = "usage: cargo xtask lustre-vm [--in DIR] [--smoke] [--suite] [--sanity-hsm] [--only CASES] \
                     [--scale PERCENT] [--keep] [--json] [--scripts DIR]\n       \
                     cargo xtask lustre-vm --nodes 2 [--in DIR] [--in2 DIR] [--only CASES] [--keep] [--json] [--scripts DIR]";
/// In a few minutes: the data path, both MDTs, what was lost before, a coordinator that comes and goes.
const SMOKE: [&str; 6] = [
    "round-trip",
    "restore-on-open",
    "modify-after-archive",
    "several-mdts",
    "copied-record",
    "coordinator-stopped",
];
const SMOKE_UPSTREAM: [&str; 3] = ["12a", "24a", "33"];

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Options {
    guest: Option<PathBuf>,
    scripts: Option<PathBuf>,
    /// Of the suite; `None`: not that.
    suite: Option<Vec<String>>,
    /// Of sanity-hsm.
    upstream: Option<Vec<String>>,
    /// Of two nodes; then none of the others.
    nodes: Option<Vec<String>>,
    second: Option<PathBuf>,
    scale: u32,
    keep: bool,
    json: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut suite, mut upstream, mut smoke, mut nodes) = (false, false, false, false);
        let mut only = Vec::new();
        let mut options = Self {
            guest: None,
            scripts: None,
            suite: None,
            upstream: None,
            nodes: None,
            second: None,
            scale: 20,
            keep: false,
            json: false,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = || {
                let value = value.clone().or_else(|| arguments.next().cloned());
                value.ok_or_else(|| format!("{name} wants a value"))
            };
            match name {
                "--in" => options.guest = Some(value()?.into()),
                "--in2" => options.second = Some(value()?.into()),
                "--nodes" => {
                    let text = value()?;
                    if text != "1" && text != "2" {
                        return Err(format!("there are cases of 1 node and of 2, not of '{text}'"));
                    }
                    nodes = text == "2";
                }
                "--scripts" => options.scripts = Some(value()?.into()),
                "--only" => only.extend(value()?.split(',').map(str::to_owned)),
                "--scale" => {
                    let text = value()?;
                    options.scale = text.parse().map_err(|_| format!("'{text}' is no number of per cent"))?;
                }
                "--smoke" => smoke = true,
                "--suite" => suite = true,
                "--sanity-hsm" => upstream = true,
                "--keep" => options.keep = true,
                "--json" => options.json = true,
                _ => return Err(format!("unknown option '{name}'")),
            }
        }
        if nodes {
            if suite || upstream || smoke {
                return Err(
                    "--nodes 2 has its own cases: neither --suite nor --sanity-hsm nor --smoke goes with it".into(),
                );
            }
            options.nodes = Some(only);
            return Ok(options);
        }
        if options.second.is_some() {
            return Err("--in2 has no meaning without --nodes 2".into());
        }
        if smoke {
            options.scale = options.scale.min(5);
            if only.is_empty() {
                only.extend(SMOKE.into_iter().chain(SMOKE_UPSTREAM).map(str::to_owned));
            }
        }
        // sanity-hsm's begin with a number.
        let is_upstream = |case: &String| case.starts_with(|first: char| first.is_ascii_digit());
        let everything = only.is_empty();
        let (of_upstream, of_suite): (Vec<_>, Vec<_>) = only.into_iter().partition(is_upstream);
        let neither = !suite && !upstream;
        options.suite = ((suite || neither) && (everything || !of_suite.is_empty())).then_some(of_suite);
        options.upstream = ((upstream || neither) && (everything || !of_upstream.is_empty())).then_some(of_upstream);
        if options.suite.is_none() && options.upstream.is_none() {
            return Err("no case is left of what was asked for".into());
        }
        Ok(options)
    }
}

/// `build` makes the workspace's binaries and says where they are.
pub(super) fn run(root: &Path, arguments: &[String], build: fn() -> Option<PathBuf>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let scripts = options
        .scripts
        .clone()
        .unwrap_or_else(|| root.join("../shared/lustre-vm"));
    let cases = match options.nodes.as_deref().map(nodes::chosen).transpose() {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let of_nodes = || cases.as_ref().and_then(|_| nodes::hindrance(&scripts));
    if let Some(why) = hindrance(&scripts).or_else(of_nodes) {
        println!("skipped: {why}");
        return ExitCode::SUCCESS;
    }
    let Some(binaries) = build() else {
        return ExitCode::FAILURE;
    };
    let mut tally = Tally::default();
    let tried = match &cases {
        None => tried(root, &scripts, &binaries, &options, &mut tally),
        Some(cases) => of_two_nodes(root, &scripts, &binaries, &options, cases, &mut tally),
    };
    if let Err(error) = tried {
        tally.fail("guest", &error);
    }
    println!("{}", if options.json { tally.json() } else { tally.text() });
    if tally.is_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Why there can be no guest on this machine.
fn hindrance(scripts: &Path) -> Option<String> {
    if !scripts.join("quick.sh").exists() {
        return Some(format!(
            "there is no virtual machine's '{}/quick.sh' here",
            scripts.display()
        ));
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("the guest is an x86_64".into());
    }
    let user = Command::new("id").arg("-u").output();
    if !user.is_ok_and(|user| user.stdout == b"0\n") {
        return Some("only root can make the guest's image".into());
    }
    None
}

/// Where all output goes; made.
fn logs(root: &Path) -> Result<PathBuf, String> {
    let logs = root.join("target/lustre-vm");
    let made = std::fs::create_dir_all(&logs).and_then(|()| logs.canonicalize());
    made.map_err(|error| format!("'{}': {error}", logs.display()))
}

fn of_two_nodes(
    root: &Path,
    scripts: &Path,
    binaries: &Path,
    options: &Options,
    cases: &[nodes::Case],
    tally: &mut Tally,
) -> Result<(), String> {
    let logs = logs(root)?;
    eprintln!("all output is in {}", logs.display());
    let dir = options.guest.clone().unwrap_or_else(|| logs.join("guest"));
    let second = options.second.clone().unwrap_or_else(|| logs.join("guest2"));
    let setting = Setting {
        scripts,
        binaries,
        logs: &logs,
        dirs: (&dir, &second),
        keep: options.keep,
    };
    nodes::run(&setting, cases, tally)
}

fn tried(root: &Path, scripts: &Path, binaries: &Path, options: &Options, tally: &mut Tally) -> Result<(), String> {
    let logs = logs(root)?;
    let dir = options.guest.clone().unwrap_or_else(|| logs.join("guest"));
    let began = Instant::now();
    let step = |name: &str| {
        eprintln!(
            "=== {name} ({} s); all output is in {}",
            began.elapsed().as_secs(),
            logs.display()
        )
    };
    step("the guest");
    let guest = Guest::up(scripts, &dir, &logs, options.keep)?;
    step("our binaries");
    put(&guest, binaries)?;
    let store = Store::start(binaries, &logs.join("store"), &logs.join("store.log"))?;
    if let Some(only) = &options.suite {
        step("the suite for a mounted Lustre");
        suite::run(&guest, &store, only, options.scale, tally);
    }
    if let Some(only) = &options.upstream {
        step("sanity-hsm");
        upstream::run(&guest, &store, only, tally);
    }
    if !tally.is_whole() {
        let state = "dmesg | tail -n 1000; lctl get_param mdt.*.hsm_control mdt.*.hsm.agents mdt.*.hsm.actions";
        if let Err(error) = guest.ask("state", state) {
            eprintln!("{error}");
        }
    }
    step("the end");
    Ok(())
}

/// Onto the guest's own disk: pages of a program come slowly over a share.
fn put(guest: &Guest, binaries: &Path) -> Result<(), String> {
    let share = guest.share().join("bin");
    std::fs::create_dir_all(&share).map_err(|error| format!("'{}': {error}", share.display()))?;
    for name in ["lhsmtool-s3", "suite"] {
        let (from, to) = (binaries.join(name), share.join(name));
        std::fs::copy(&from, &to).map_err(|error| format!("'{}' to '{}': {error}", from.display(), to.display()))?;
    }
    let install = "cd /share/bin && install -m 755 lhsmtool-s3 suite /usr/local/bin/ && rm lhsmtool-s3 suite";
    guest.ask("binaries", install)?;
    let version = guest.ask("version", "lhsmtool-s3 --version").map_err(|error| {
        format!("{error} (the guest is a Debian 12: what was built with a newer libc does not run there)")
    })?;
    eprintln!("{}", version.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Options, String> {
        let words: Vec<_> = text
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        Options::parse(&words)
    }

    #[test]
    fn without_a_choice_everything_runs() {
        for text in ["", "--suite --sanity-hsm"] {
            let options = parsed(text).unwrap();
            assert_eq!(
                (options.suite, options.upstream),
                (Some(vec![]), Some(vec![])),
                "{text}"
            );
        }
        let options = parsed("--sanity-hsm --in=/tmp/guest").unwrap();
        assert_eq!((options.suite, options.upstream), (None, Some(vec![])));
        assert_eq!(options.guest, Some("/tmp/guest".into()));
    }

    #[test]
    fn a_case_goes_where_it_belongs() {
        let options = parsed("--only 12a,round-trip --only 33").unwrap();
        assert_eq!(options.suite, Some(vec!["round-trip".to_owned()]));
        assert_eq!(options.upstream, Some(vec!["12a".to_owned(), "33".to_owned()]));
        assert_eq!(parsed("--only 12a").unwrap().suite, None);
        assert!(parsed("--suite --only 12a").is_err());
        assert!(parsed("--only").is_err());
        assert!(parsed("--onyl 12a").is_err());
    }

    #[test]
    fn two_nodes_have_cases_of_their_own() {
        let options = parsed("--nodes 2 --only cut --in2 /tmp/guest2").unwrap();
        assert_eq!((options.suite, options.upstream), (None, None));
        assert_eq!(options.nodes, Some(vec!["cut".to_owned()]));
        assert_eq!(options.second, Some("/tmp/guest2".into()));
        assert_eq!(parsed("--nodes 1").unwrap().nodes, None);
        assert!(parsed("--nodes 3").is_err());
        assert!(parsed("--nodes 2 --suite").is_err());
        assert!(parsed("--in2 /tmp/guest2").is_err());
    }

    #[test]
    fn the_smoke_is_some_of_both() {
        let options = parsed("--smoke --json").unwrap();
        assert_eq!(options.suite.unwrap().len(), SMOKE.len());
        assert_eq!(options.upstream.unwrap().len(), SMOKE_UPSTREAM.len());
        assert!(options.json);
    }
}
