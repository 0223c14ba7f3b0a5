//! The daemon under load, killed again and again: at random moments, at each step on the way to an action's end,
//! and while a request of each kind is under way. Meanwhile actions are cancelled and purged, and the files scrubbed. At
//! the end every file's bytes must be what was written last, and the store must have nothing that is no file's copy.
//!
//! Several movers share a ledger where there is a PostgreSQL. Then nodes die, stand still and are cut off, too, and the
//! ledger is restarted and failed over; and no reader may be given an error whose restore nobody cancelled.

mod files;
mod fleet;
mod readers;
mod reckon;
mod soak;
mod takeover;
mod trouble;
mod witness;
mod world;

use std::process::ExitCode;

use clap::Parser;

/// Kills the daemon under load and looks for what was lost
#[derive(Debug, Parser)]
#[command(name = "cargo xtask crash")]
struct Cli {
    /// How often
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Daemons, each on a client mount of its own and with its own journal. Two or more share a ledger where PostgreSQL is
    /// installed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    movers: u16,
    /// Several daemons share no ledger
    #[arg(long)]
    no_ledger: bool,
    /// Instead: so many restores wait at a mover that dies; how long until another one has served the first and the last
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    takeover: Option<u64>,
    /// Nobody is killed: work for so many minutes at a store that misbehaves, and look whether the daemon grows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: Option<u64>,
    /// Files that are worked on
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    files: u64,
    /// Where the random choices begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A store without conditional writes
    #[arg(long)]
    unconditional: bool,
    /// One line of JSON on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.takeover {
        Some(count) => takeover::run(count).map(|outcome| match outcome {
            Some(outcome) if cli.json => (outcome.json(), outcome.is_in_time()),
            Some(outcome) => (outcome.text(), outcome.is_in_time()),
            None => ("skipped: nothing is taken over without a ledger".to_owned(), true),
        }),
        None => world::run(&cli).map(|outcome| {
            let said = if cli.json { outcome.json() } else { outcome.text() };
            (said, outcome.is_whole())
        }),
    };
    match done {
        Ok((said, is_well)) => {
            println!("{said}");
            if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}
