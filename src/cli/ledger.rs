//! `lhsmtool-s3 ledger`: makes the shared ledger, looks at it, brings it to this release.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::session::runtime;
use crate::action::FileSystem as _;
use crate::config::Settings;
use crate::ledger::{self, LedgerState};
use crate::lustre::{Identify, Library, Mount};

/// Of which mount.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Lustre mount point (default: the configuration's)
    #[arg(long, value_name = "MOUNT", global = true)]
    pub mount: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: LedgerCommand,
}

/// What to do with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Subcommand)]
pub enum LedgerCommand {
    /// Make the database of `url` in section [ledger] the ledger of the mounted file system
    Init,
    /// Tell whether this release and this file system can use it
    Check,
    /// Bring its tables to this release, before any mover is upgraded; movers of the release before go on with it
    Migrate,
}

impl LedgerArgs {
    /// Does it.
    ///
    /// # Errors
    /// There is none configured, it can't be reached, or not be used.
    pub fn run(&self, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
        let Some(options) = &settings.ledger else {
            return Err("the configuration has no ledger: set `url` in section [ledger]".into());
        };
        let identify = match self.command {
            LedgerCommand::Init => Identify::Make,
            LedgerCommand::Check | LedgerCommand::Migrate => Identify::Find,
        };
        let mount = Mount::open(Library::open(&settings.library)?, &settings.mount, identify)?;
        let file_system = mount.name();
        let runtime = runtime()?;
        match self.command {
            LedgerCommand::Init => {
                let state = runtime.block_on(ledger::init(options, file_system))?;
                outln!("{}", words(&state));
            }
            LedgerCommand::Check => {
                let state = runtime.block_on(ledger::check(options, Some(file_system)))?;
                outln!("{}", words(&state));
            }
            LedgerCommand::Migrate => {
                let (before, state) = runtime.block_on(ledger::migrate(options, file_system))?;
                if before == state.version {
                    outln!("{}; nothing was to be done", words(&state));
                } else {
                    outln!("{}; it was schema {before}", words(&state));
                }
            }
        }
        Ok(())
    }
}

fn words(state: &LedgerState) -> String {
    format!(
        "{} is the ledger of '{}', with schema {}, which release {} and later know",
        state.place, state.file_system, state.version, state.oldest_release
    )
}
