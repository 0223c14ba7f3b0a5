//! All verbs over all dialects: the real daemon and the real commands between the sandbox and a store that speaks one
//! dialect. Each verb works, or is refused with words and nothing lost, as the table says; what says that it is done and
//! is wrong counts as silent.

mod commands;
mod gzip;
mod judge;
mod page;
mod table;
mod verbs;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use lhsm_sandbox_s3::Dialect;

use crate::judge::{Outcome, Tally};
use crate::table::expected;
use crate::verbs::Verb;
use crate::world::World;

/// Runs all verbs over all dialects of stores
#[derive(Debug, Parser)]
#[command(name = "cargo xtask stores --dialects")]
struct Cli {
    /// Only this dialect; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Dialects at a time (default: as many as there are processors)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// One line of JSON on stdout
    #[arg(long)]
    json: bool,
    /// Afterwards, when all is as expected: put the table of dialects into this page
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(tally) if tally.is_whole() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dialects: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> world::Result<Tally> {
    if let Some(unknown) = cli
        .only
        .iter()
        .find(|name| !Dialect::ALL.iter().any(|one| one.name() == *name))
    {
        let known: Vec<_> = Dialect::ALL.iter().map(|dialect| dialect.name()).collect();
        return Err(format!("no dialect '{unknown}'; there are {}", known.join(", ")).into());
    }
    let wanted = |dialect: &&Dialect| cli.only.is_empty() || cli.only.iter().any(|name| name == dialect.name());
    let start = Instant::now();
    let tally = Mutex::new(Tally::default());
    let rest = Mutex::new(Dialect::ALL.iter().filter(wanted));
    let jobs = cli.jobs.map_or_else(
        || std::thread::available_parallelism().map_or(2, usize::from),
        usize::from,
    );
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = rest.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(&dialect) = next else {
                        return;
                    };
                    let found = tried(dialect);
                    count(
                        &mut tally.lock().unwrap_or_else(PoisonError::into_inner),
                        dialect,
                        &found,
                    );
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    if cli.json {
        println!("{}", tally.json());
    } else {
        println!(
            "{} dialects, {} verbs each, {:.0} s: {} as expected, {} not, {} silently wrong",
            tally.dialects,
            Verb::ALL.len(),
            start.elapsed().as_secs_f64(),
            tally.passed,
            tally.failed,
            tally.silent
        );
    }
    if let Some(page) = cli.page.as_deref().filter(|_| tally.is_whole()) {
        page::write(page)?;
    }
    Ok(tally)
}

/// All verbs, one after the other. A world that breaks down is told by each verb that is left.
fn tried(dialect: Dialect) -> Vec<Outcome> {
    let broken = |error: &dyn std::fmt::Display| Outcome::Broken(error.to_string());
    let mut world = match World::new(dialect) {
        Ok(world) => world,
        Err(error) => return vec![broken(&error); Verb::ALL.len()],
    };
    let mut found: Vec<_> = Verb::ALL
        .iter()
        .map(|verb| verb.tried(&mut world).unwrap_or_else(|error| broken(&error)))
        .collect();
    if let (Err(error), Some(last)) = (world.stop(), found.last_mut()) {
        *last = broken(&format!("the daemon does not end: {error}"));
    }
    found
}

fn count(tally: &mut Tally, dialect: Dialect, found: &[Outcome]) {
    let row = expected(dialect);
    tally.dialects += 1;
    let mut classes = Vec::new();
    let mut wrong = Vec::new();
    for (&verb, outcome) in Verb::ALL.iter().zip(found) {
        let is_expected = outcome.is_expected(&row, verb);
        tally.count(outcome, is_expected);
        classes.push(format!("{} {}", verb.name(), outcome.class()));
        if !is_expected {
            let should = if row.told.contains(&verb) { "told" } else { "works" };
            let (name, is) = (verb.name(), outcome.class());
            wrong.push(format!("\n  {name}: {is}, should be {should}: {}", outcome.words()));
        }
    }
    eprintln!("{}: {}{}", dialect.name(), classes.join(", "), wrong.concat());
}
