//! The daemon under load, killed again and again: at random moments, at each step on the way to an action's end,
//! and while a request of each kind is under way. Meanwhile actions are cancelled and purged, and the files scrubbed. At
//! the end every file's bytes must be what was written last, and the store must have nothing that is no file's copy.

mod files;
mod reckon;
mod soak;
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
    /// Daemons, each on a client mount of its own and with its own journal
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    movers: u16,
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
    match world::run(&cli) {
        Ok(outcome) => {
            println!("{}", if cli.json { outcome.json() } else { outcome.text() });
            if outcome.is_whole() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}
