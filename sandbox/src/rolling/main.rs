//! Movers that share a ledger, under load, while one after the other is restarted, upgraded, or drained and started again:
//! no reader and no action may hear of it. The load does not end before each of them had its turns, and a turn does not end
//! before its mover serves again and the ledger has what it has in hand, as somebody would do it by hand.

mod load;
mod mover;
mod pace;
mod reckon;
mod told;
mod tree;
mod turns;
mod watch;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Set where a missing PostgreSQL is a failure.
const REQUIRED: &str = "LHSM_REQUIRE_POSTGRES";
const NONE_HERE: &str = "no PostgreSQL on this node (package postgresql)";

/// Restarts, upgrades and drains movers under load, and looks for who noticed
#[derive(Debug, Parser)]
#[command(name = "cargo xtask rolling")]
struct Cli {
    /// Movers, each on a client mount of its own and with its own journal
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=8))]
    movers: u32,
    /// Files that are archived
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    files: u32,
    /// Of these, files that are released and read again
    #[arg(long, value_name = "N", default_value_t = 5000)]
    reads: u32,
    /// The daemon of the release before, from which the second mover is upgraded (default: this one)
    #[arg(long, value_name = "PATH")]
    former: Option<PathBuf>,
    /// One line of JSON on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.reads > cli.files {
        eprintln!(
            "rolling: {} reads of {} files: each file is read once at most",
            cli.reads, cli.files
        );
        return ExitCode::from(2);
    }
    match world::run(&cli) {
        Ok(Some(outcome)) => {
            println!("{}", if cli.json { outcome.json() } else { outcome.text() });
            if outcome.is_whole() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Ok(None) if std::env::var_os(REQUIRED).is_some() => {
            eprintln!("rolling: {REQUIRED} is set, and there is {NONE_HERE}");
            ExitCode::FAILURE
        }
        Ok(None) => {
            eprintln!("skipped: {NONE_HERE}");
            if cli.json {
                println!("{{\"skipped\":\"{NONE_HERE}\"}}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rolling: {error}");
            ExitCode::FAILURE
        }
    }
}
