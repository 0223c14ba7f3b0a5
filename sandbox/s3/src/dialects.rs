//! The switches of the dialects. They can be turned while the server runs, and are kept apart from the faults.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dialect::Dialect;

/// Each dialect has its bit.
const _: () = assert!(Dialect::ALL.len() <= 64);

/// The dialects that a server speaks now. At first none: it speaks S3.
#[derive(Debug, Default)]
pub struct Dialects {
    on: AtomicU64,
}

impl Dialects {
    /// From now on it speaks these and no others.
    pub fn set(&self, dialects: &[Dialect]) {
        let on = dialects.iter().fold(0, |on, &dialect| on | bit(dialect));
        self.on.store(on, Ordering::SeqCst);
    }

    /// From now on it speaks this one too.
    pub fn add(&self, dialect: Dialect) {
        self.on.fetch_or(bit(dialect), Ordering::SeqCst);
    }

    /// From now on it speaks S3.
    pub fn clear(&self) {
        self.set(&[]);
    }

    /// Whether it speaks this one.
    #[must_use]
    pub fn has(&self, dialect: Dialect) -> bool {
        self.any(&[dialect])
    }

    /// Whether it speaks one of these.
    pub(crate) fn any(&self, dialects: &[Dialect]) -> bool {
        let on = self.on.load(Ordering::SeqCst);
        dialects.iter().any(|&dialect| on & bit(dialect) != 0)
    }
}

const fn bit(dialect: Dialect) -> u64 {
    1 << (dialect as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_switched_by_itself() {
        let dialects = Dialects::default();
        for &one in Dialect::ALL {
            dialects.set(&[one]);
            assert!(Dialect::ALL.iter().all(|&other| dialects.has(other) == (other == one)));
        }
        dialects.set(Dialect::ALL);
        assert!(Dialect::ALL.iter().all(|&dialect| dialects.has(dialect)));
        dialects.clear();
        dialects.add(Dialect::Cold);
        dialects.add(Dialect::ETagBare);
        assert!(dialects.has(Dialect::Cold) && dialects.has(Dialect::ETagBare) && !dialects.has(Dialect::Expires));
    }
}
