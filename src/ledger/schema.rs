//! Which tables a ledger has, by versions: each is a file of SQL, applied in a transaction of its own.
//!
//! Movers of two releases that follow each other share a ledger while a site is upgraded: each version says from which
//! one on a release can read and write it. So a version may add columns and tables; what it takes away, or means otherwise,
//! has been unused for a release.

use tokio_postgres::types::Type;

use super::LedgerError;
use super::link::Link;

/// One version.
struct Version {
    /// The oldest version whose releases can use this one.
    readable_from: i32,
    /// The first of these releases.
    oldest_release: &'static str,
    statements: &'static str,
}

/// From 1 on.
const VERSIONS: &[Version] = &[
    Version {
        readable_from: 1,
        oldest_release: "0.3.0",
        statements: include_str!("schema/001.sql"),
    },
    Version {
        readable_from: 1,
        oldest_release: "0.3.0",
        statements: include_str!("schema/002.sql"),
    },
    Version {
        readable_from: 1,
        oldest_release: "0.3.0",
        statements: include_str!("schema/003.sql"),
    },
    Version {
        readable_from: 1,
        oldest_release: "0.3.0",
        statements: include_str!("schema/004.sql"),
    },
    Version {
        readable_from: 1,
        oldest_release: "0.3.0",
        statements: include_str!("schema/005.sql"),
    },
    Version {
        readable_from: 1,
        oldest_release: "0.3.0",
        statements: include_str!("schema/006.sql"),
    },
];

/// What the versions are in.
const MAKE_SCHEMA: &str = "CREATE SCHEMA lhsmtool_s3";
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What a ledger says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerState {
    /// Host, port and database.
    pub place: String,
    /// The schema's version.
    pub version: i32,
    /// The oldest release that can use it.
    pub oldest_release: String,
    /// Whose it is.
    pub file_system: String,
    readable_from: i32,
}

/// The version that this release makes.
pub(super) fn newest() -> i32 {
    i32::try_from(VERSIONS.len()).unwrap_or(i32::MAX)
}

impl LedgerState {
    /// # Errors
    /// There is none, or it can't be asked.
    pub(super) async fn read(link: &Link) -> Result<Self, LedgerError> {
        let none = || LedgerError::NoLedger {
            place: link.place().to_owned(),
        };
        let there = link
            .query("SELECT to_regclass('lhsmtool_s3.schema_version') IS NOT NULL", &[])
            .await?;
        let is_there = match there.first() {
            Some(row) => link.get::<bool>(row, 0)?,
            None => false,
        };
        if !is_there {
            return Err(none());
        }
        let rows = link
            .query(
                "SELECT v.version, v.readable_from, v.oldest_release, l.file_system
                 FROM lhsmtool_s3.schema_version v, lhsmtool_s3.ledger l ORDER BY v.version DESC LIMIT 1",
                &[],
            )
            .await?;
        let row = rows.first().ok_or_else(none)?;
        Ok(Self {
            place: link.place().to_owned(),
            version: link.get(row, 0)?,
            readable_from: link.get(row, 1)?,
            oldest_release: link.get(row, 2)?,
            file_system: link.get(row, 3)?,
        })
    }

    /// # Errors
    /// It is another file system's. `None`: that does not matter.
    pub(super) fn must_be_of(&self, file_system: Option<&str>) -> Result<(), LedgerError> {
        match file_system {
            Some(own) if own != self.file_system => Err(LedgerError::OtherFileSystem {
                place: self.place.clone(),
                found: self.file_system.clone(),
                own: own.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// This release knows less than it takes, or needs more than it has.
    pub(super) fn must_be_usable(&self) -> Result<(), LedgerError> {
        self.must_be_usable_by(newest())
    }

    fn must_be_usable_by(&self, newest: i32) -> Result<(), LedgerError> {
        let place = self.place.clone();
        if self.version < newest {
            return Err(LedgerError::Older {
                place,
                found: self.version,
                needed: newest,
            });
        }
        if self.readable_from > newest {
            return Err(LedgerError::Newer {
                place,
                found: self.version,
                oldest: self.oldest_release.clone(),
            });
        }
        Ok(())
    }
}

/// Makes a database a ledger.
///
/// # Errors
/// It is one already, or PostgreSQL refuses.
pub(super) async fn init(link: &Link, file_system: &str) -> Result<(), LedgerError> {
    match LedgerState::read(link).await {
        Err(LedgerError::NoLedger { .. }) => {}
        Err(error) => return Err(error),
        Ok(state) => {
            return Err(LedgerError::IsLedger {
                place: state.place,
                file_system: state.file_system,
            });
        }
    }
    // All of it or nothing: half a ledger would be none, and not empty either.
    link.batch("BEGIN").await?;
    link.batch(MAKE_SCHEMA).await?;
    for (number, version) in (1..).zip(VERSIONS) {
        add(link, number, version).await?;
    }
    link.execute(
        "INSERT INTO lhsmtool_s3.ledger (file_system) VALUES ($1)",
        &[(&file_system, Type::TEXT)],
    )
    .await?;
    link.batch("COMMIT").await
}

/// Brings a ledger to this release's version; the version that it had.
///
/// # Errors
/// It is newer than this release knows, or PostgreSQL refuses.
pub(super) async fn migrate(link: &Link, state: &LedgerState) -> Result<i32, LedgerError> {
    if state.version > newest() {
        state.must_be_usable()?;
        return Ok(state.version);
    }
    for (number, version) in (1..).zip(VERSIONS) {
        if number <= state.version {
            continue;
        }
        // Two that migrate at the same time: the second one's row is there already, and it changes nothing.
        link.batch("BEGIN").await?;
        add(link, number, version).await?;
        link.batch("COMMIT").await?;
    }
    Ok(state.version)
}

async fn add(link: &Link, number: i32, version: &Version) -> Result<(), LedgerError> {
    link.batch(version.statements).await?;
    link.execute(
        "INSERT INTO lhsmtool_s3.schema_version (version, readable_from, oldest_release, made_by)
         VALUES ($1, $2, $3, $4)",
        &[
            (&number, Type::INT4),
            (&version.readable_from, Type::INT4),
            (&version.oldest_release, Type::TEXT),
            (&RELEASE, Type::TEXT),
        ],
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(version: i32, readable_from: i32) -> LedgerState {
        LedgerState {
            place: "db1:5432/lhsm".into(),
            version,
            oldest_release: "9.1.0".into(),
            file_system: "lustre:abc".into(),
            readable_from,
        }
    }

    #[test]
    fn a_newer_schema_is_used_by_the_release_before_it_and_refused_by_one_that_it_does_not_reach() {
        assert!(state(3, 3).must_be_usable_by(3).is_ok());
        assert!(state(4, 3).must_be_usable_by(3).is_ok());
        let refused = state(5, 4).must_be_usable_by(3).unwrap_err().to_string();
        assert!(refused.contains("9.1.0") && refused.contains("Upgrade"), "{refused}");
        let old = state(2, 1).must_be_usable_by(3).unwrap_err().to_string();
        assert!(old.contains("ledger migrate"), "{old}");
    }

    #[test]
    fn a_ledger_is_one_file_systems() {
        let ledger = state(1, 1);
        assert!(ledger.must_be_of(Some("lustre:abc")).is_ok() && ledger.must_be_of(None).is_ok());
        let refused = ledger.must_be_of(Some("lustre:def")).unwrap_err().to_string();
        assert!(
            refused.contains("lustre:abc") && refused.contains("lustre:def"),
            "{refused}"
        );
    }

    #[test]
    fn each_version_can_be_read_by_the_one_before_it() {
        for (number, version) in (1..).zip(VERSIONS) {
            assert!(version.readable_from <= number);
            assert!(
                number == 1 || version.readable_from < number,
                "{number}: no rolling upgrade to it"
            );
        }
    }
}
