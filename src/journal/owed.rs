//! A debt that the journal knows until it is paid.

use std::fs::File;
use std::sync::Arc;

use super::Journal;
use crate::action::{ActionKey, Debt, HsmError, Item, Verdict};

/// The debt, and its entry.
#[derive(Debug)]
pub struct Recorded {
    /// Taken by whatever ends it.
    debt: Option<Box<dyn Debt>>,
    item: Item,
    journal: Arc<Journal>,
}

impl Recorded {
    /// Writes `debt` down; its entry goes with its end, whichever that is.
    #[must_use]
    pub fn new(debt: Box<dyn Debt>, journal: Arc<Journal>) -> Self {
        let item = debt.item().clone();
        journal.admitted(&item);
        Self {
            debt: Some(debt),
            item,
            journal,
        }
    }

    fn key(&self) -> ActionKey {
        self.item.key()
    }
}

impl Debt for Recorded {
    fn item(&self) -> &Item {
        &self.item
    }

    fn begin(&mut self, layout: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        match &mut self.debt {
            Some(debt) => debt.begin(layout),
            None => Err(HsmError::new("begin", libc::EINVAL)),
        }
    }

    fn renew(&mut self) {
        if let Some(debt) = &mut self.debt {
            debt.renew();
        }
    }

    fn finish(mut self: Box<Self>, verdict: Verdict, copied: u64) -> Result<(), HsmError> {
        let Some(debt) = self.debt.take() else {
            return Ok(());
        };
        let result = debt.finish(verdict, copied);
        self.journal.ended(self.key());
        result
    }

    /// The first copy's entry stays.
    fn disown(mut self: Box<Self>) {
        if let Some(debt) = self.debt.take() {
            self.journal.known(self.key());
            debt.disown();
        }
    }

    fn forgotten(mut self: Box<Self>) {
        if let Some(debt) = self.debt.take() {
            debt.forgotten();
            self.journal.ended(self.key());
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(debt) = self.debt.take() {
            drop(debt);
            self.journal.ended(self.key());
        }
    }
}
