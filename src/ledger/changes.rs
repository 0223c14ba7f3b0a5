//! What is to be written to the ledger: of each action and each file the last word alone.

use std::collections::HashMap;

use crate::action::{ActionKey, Item};
use crate::journal::UploadRecord;
use crate::types::Fid;

/// The last word on something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Word<T> {
    /// Nothing new.
    #[default]
    Unsaid,
    /// It is this.
    Is(T),
    /// It is no more.
    Gone,
}

/// News of one action.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ActionNews {
    /// In hand, or answered.
    pub(super) item: Word<Box<Item>>,
    /// What its archive writes.
    pub(super) upload: Word<Box<UploadRecord>>,
}

/// News of a file's copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CopyNews {
    /// Milliseconds of this node's clock.
    pub(super) stamp: i64,
    /// `None`: there is none any more.
    pub(super) record: Option<Vec<u8>>,
}

/// All news.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Changes {
    pub(super) actions: HashMap<ActionKey, ActionNews>,
    pub(super) copies: HashMap<Fid, CopyNews>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.copies.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.actions.len() + self.copies.len()
    }

    pub(super) fn admitted(&mut self, item: &Item) {
        self.actions.entry(item.key()).or_default().item = Word::Is(Box::new(item.clone()));
    }

    /// Whether it ever had a row nobody remembers here: to take away what is not there costs a look at an index.
    pub(super) fn ended(&mut self, key: ActionKey) {
        self.actions.entry(key).or_default().item = Word::Gone;
    }

    pub(super) fn uploading(&mut self, key: ActionKey, upload: &UploadRecord) {
        self.actions.entry(key).or_default().upload = Word::Is(Box::new(upload.clone()));
    }

    pub(super) fn settled(&mut self, key: ActionKey) {
        self.actions.entry(key).or_default().upload = Word::Gone;
    }
}
