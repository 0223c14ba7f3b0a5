//! Why there is no ledger, in words that say what to do.

use std::error::Error as _;
use std::path::PathBuf;

/// What keeps a ledger from being used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Nobody is there.
    #[error("can't reach PostgreSQL at {place}: {what}. Start it, or correct `url` in section [ledger]")]
    Unreachable {
        /// Host, port and database.
        place: String,
        /// What the system or the server says.
        what: String,
    },
    /// It accepts and does not answer.
    #[error("PostgreSQL at {place} did not answer within {seconds} s")]
    Silent {
        /// Host, port and database.
        place: String,
        /// For how long it was waited.
        seconds: u64,
    },
    /// User, password, or what the server lets in.
    #[error("PostgreSQL at {place} lets nobody in: {what}. Correct `url` or `password_file` in section [ledger]")]
    Refused {
        /// Host, port and database.
        place: String,
        /// What the server says.
        what: String,
    },
    /// The password's file.
    #[error("can't read the password file '{}': {source}. Correct `password_file` in section [ledger]", path.display())]
    PasswordFile {
        /// As configured.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Certificates that TLS needs.
    #[error("no TLS with PostgreSQL: {what}. Correct `ca_bundle` in section [ledger]")]
    Certificates {
        /// What is wrong with them.
        what: String,
    },
    /// A database without the tables.
    #[error("the database at {place} is no ledger. Make it one: lhsmtool-s3 ledger init")]
    NoLedger {
        /// Host, port and database.
        place: String,
    },
    /// It is one already.
    #[error("the database at {place} is the ledger of file system '{file_system}' already")]
    IsLedger {
        /// Host, port and database.
        place: String,
        /// Whose it is.
        file_system: String,
    },
    /// A later release made it something that this one does not know.
    #[error(
        "the ledger at {place} has schema {found}, which release {oldest} and later know; this is {}. Upgrade this mover",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Host, port and database.
        place: String,
        /// The schema's version.
        found: i32,
        /// The oldest release that can use it.
        oldest: String,
    },
    /// An earlier release's.
    #[error("the ledger at {place} has schema {found}, and this release needs {needed}: lhsmtool-s3 ledger migrate")]
    Older {
        /// Host, port and database.
        place: String,
        /// The schema's version.
        found: i32,
        /// What this release needs.
        needed: i32,
    },
    /// Actions of two file systems don't go together.
    #[error(
        "the ledger at {place} was made for file system '{found}', and this is '{own}'. Each file system has a ledger \
         of its own: name another database by `url` in section [ledger]"
    )]
    OtherFileSystem {
        /// Host, port and database.
        place: String,
        /// Whose it is.
        found: String,
        /// The one that is mounted.
        own: String,
    },
    /// Two movers by one name.
    #[error(
        "another mover by the name '{name}' lives: its row in the ledger is being renewed. Give one of them another \
         `name` in section [ledger]"
    )]
    NameTaken {
        /// This mover's.
        name: String,
    },
    /// Somebody took the mover's row away while it was connected, or the server forgot it.
    #[error("the row of mover '{name}' in the ledger is another one's by now, or gone; it is claimed anew")]
    RowLost {
        /// This mover's.
        name: String,
    },
    /// A statement that failed.
    #[error("PostgreSQL at {place}: {what}")]
    Statement {
        /// Host, port and database.
        place: String,
        /// What the server says.
        what: String,
    },
    /// A file of the ledger's own, beside the journal.
    #[error("can't use '{}': {source}", path.display())]
    OwnFile {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Rows can't be made equal to what can't be read.
    #[error("the journal can't be read")]
    Journal,
}

/// An error with all that lies behind it, in one line.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    // "db error" and the like say nothing beside their cause.
    let mut cause = error.source();
    let mut words = Vec::new();
    while let Some(behind) = cause {
        words.push(behind.to_string());
        cause = behind.source();
    }
    words.dedup();
    if words.is_empty() {
        return error.to_string();
    }
    words.join(": ")
}
