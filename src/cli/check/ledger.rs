//! The ledger: can it be reached and used, and is it this file system's?

use tokio::runtime::Runtime;

use super::Rows;
use crate::action::FileSystem as _;
use crate::config::Settings;
use crate::ledger::{self, LedgerError, LedgerOptions};
use crate::lustre::{Identify, Library, Mount};

/// `settings`: of the file system that it has to be the ledger of; `None`: that is not looked at.
pub(super) fn check(options: &LedgerOptions, settings: Option<&Settings>, runtime: &Runtime, rows: &mut Rows) {
    let file_system = settings.and_then(|settings| {
        let library = Library::open(&settings.library).ok()?;
        let mount = Mount::open(library, &settings.mount, Identify::Find).ok()?;
        // Before the first daemon it has no more than a name.
        Some(mount.name().to_owned()).filter(|name| !name.ends_with(':'))
    });
    match runtime.block_on(ledger::check(options, file_system.as_deref())) {
        Ok(state) => rows.pass(
            "ledger",
            format!("{}, schema {} of '{}'", state.place, state.version, state.file_system),
        ),
        Err(error) => {
            let fix = match &error {
                LedgerError::NoLedger { .. } => "lhsmtool-s3 ledger init",
                LedgerError::Older { .. } => "lhsmtool-s3 ledger migrate, before any mover is upgraded",
                LedgerError::Newer { .. } => "upgrade this mover",
                LedgerError::Refused { .. } | LedgerError::PasswordFile { .. } => {
                    "correct `url` or `password_file` in section [ledger]"
                }
                LedgerError::OtherFileSystem { .. } => "name another database by `url` in section [ledger]",
                _ => "look at PostgreSQL and at `url` in section [ledger]; movers go on without, and take nothing over",
            };
            rows.fail("ledger", error.to_string(), fix);
        }
    }
}
