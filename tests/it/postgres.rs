//! The PostgreSQL of one test.

use std::ops::{Deref, DerefMut};

pub(crate) use lhsm_sandbox::postgres::section;

/// Set where a missing one is a failure.
const REQUIRED: &str = "LHSM_REQUIRE_POSTGRES";

pub(crate) struct Postgres(lhsm_sandbox::postgres::Postgres);

impl Postgres {
    /// Running, with a database. `None`, said: there is none on this node, and nobody demands it.
    pub(crate) fn start() -> Option<Self> {
        let started = lhsm_sandbox::postgres::Postgres::start().unwrap();
        if started.is_none() {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "{REQUIRED} is set, and there is no PostgreSQL: install the package postgresql"
            );
            eprintln!("skipped: no PostgreSQL on this node (package postgresql)");
        }
        started.map(Self)
    }

    pub(crate) fn resume(&mut self) {
        self.0.resume().unwrap();
    }

    pub(crate) fn stop(&mut self) {
        self.0.stop().unwrap();
    }

    /// A statement's rows, columns with `|` between them.
    pub(crate) fn rows(&self, statement: &str) -> Vec<String> {
        self.0.rows(statement).unwrap()
    }

    /// The only number of a statement.
    pub(crate) fn number(&self, statement: &str) -> i64 {
        self.rows(statement)[0].parse().unwrap()
    }
}

impl Deref for Postgres {
    type Target = lhsm_sandbox::postgres::Postgres;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Postgres {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
