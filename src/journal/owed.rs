//! An action that the journal knows until it is answered.

use std::fs::File;
use std::sync::Arc;

use super::Journal;
use crate::action::{ActionHandle, ActionKey, EndFailure, HsmError, Item, Verdict};
use crate::types::ErrorClass;

/// The action handle, and its entry.
#[derive(Debug)]
pub struct JournaledAction {
    /// Taken by whatever ends it.
    handle: Option<Box<dyn ActionHandle>>,
    item: Item,
    journal: Arc<Journal>,
}

impl JournaledAction {
    /// Writes `handle` down; its entry goes with its end, whichever that is.
    #[must_use]
    pub fn new(handle: Box<dyn ActionHandle>, journal: Arc<Journal>) -> Self {
        let item = handle.item().clone();
        journal.admitted(&item);
        Self {
            handle: Some(handle),
            item,
            journal,
        }
    }

    /// The same for what this daemon did not hear of from the coordinator: it is written down already.
    ///
    /// # Errors
    /// It is another mover's by now.
    pub fn inherited(handle: Box<dyn ActionHandle>, journal: Arc<Journal>) -> Result<Self, Box<dyn ActionHandle>> {
        let item = handle.item().clone();
        if !journal.inherited(&item) {
            return Err(handle);
        }
        Ok(Self {
            handle: Some(handle),
            item,
            journal,
        })
    }

    fn key(&self) -> ActionKey {
        self.item.key()
    }
}

impl ActionHandle for JournaledAction {
    fn item(&self) -> &Item {
        &self.item
    }

    fn begin(&mut self, layout: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        match &mut self.handle {
            Some(handle) => handle.begin(layout),
            None => Err(HsmError::of("begin", ErrorClass::Invalid)),
        }
    }

    /// The answer of an earlier run may have taken the entry away.
    fn renew(&mut self) {
        if let Some(handle) = &mut self.handle {
            handle.renew();
            self.journal.admitted(&self.item);
            self.journal.known(self.item.key());
        }
    }

    fn complete(mut self: Box<Self>, copied: u64) -> Result<(), EndFailure> {
        let Some(handle) = self.handle.take() else {
            return Ok(());
        };
        match handle.complete(copied) {
            Err(EndFailure::Unheard(handle, error)) => {
                self.handle = Some(handle);
                Err(EndFailure::Unheard(self, error))
            }
            result => {
                self.journal.ended(self.key());
                result
            }
        }
    }

    fn finish(mut self: Box<Self>, verdict: Verdict, copied: u64) -> Result<(), HsmError> {
        let Some(handle) = self.handle.take() else {
            return Ok(());
        };
        let result = handle.finish(verdict, copied);
        self.journal.ended(self.key());
        result
    }

    /// The first copy's entry stays.
    fn disown(mut self: Box<Self>) {
        if let Some(handle) = self.handle.take() {
            self.journal.known(self.key());
            handle.disown();
        }
    }

    fn forgotten(mut self: Box<Self>) {
        if let Some(handle) = self.handle.take() {
            handle.forgotten();
            self.journal.ended(self.key());
        }
    }
}

impl Drop for JournaledAction {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            drop(handle);
            self.journal.ended(self.key());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::action::{Kind, Verb};
    use crate::thread::Supervisor;
    use crate::types::{ArchiveId, Cookie, Extent, Fid};

    #[derive(Debug)]
    struct FakeAction(Item);

    impl ActionHandle for FakeAction {
        fn item(&self) -> &Item {
            &self.0
        }
        fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
            Ok(None)
        }
        fn finish(self: Box<Self>, _: Verdict, _: u64) -> Result<(), HsmError> {
            Ok(())
        }
        fn renew(&mut self) {}
        fn disown(self: Box<Self>) {}
    }

    fn written(journal: &Journal) -> usize {
        let start = Instant::now();
        while journal.unwritten() > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "it was not written");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        journal.unfinished().len()
    }

    #[test]
    fn an_action_sent_again_while_it_was_answered_is_there_for_a_successor() {
        let fid = Fid {
            seq: 0x2_0000_0401,
            oid: 7,
            ver: 0,
        };
        let item = Item {
            kind: Kind::Do(Verb::Restore),
            fid,
            dfid: fid,
            cookie: Cookie(7),
            archive_id: ArchiveId::new(1),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: true,
            data: Box::default(),
        };
        let supervisor = Supervisor::default();
        for was_written in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let journal = Arc::new(Journal::open(
                &supervisor,
                dir.path(),
                "lustre",
                Path::new("/mnt/lustre"),
            ));
            let owe = || {
                Box::new(JournaledAction::new(
                    Box::new(FakeAction(item.clone())),
                    Arc::clone(&journal),
                ))
            };
            let first = owe();
            if was_written {
                assert_eq!(written(&journal), 1);
            }
            let mut second = owe();
            first.finish(Verdict::Done, 0).unwrap();
            // As the queue takes it in again.
            second.renew();
            assert_eq!(written(&journal), 1, "written before: {was_written}");
            second.finish(Verdict::Done, 0).unwrap();
            assert_eq!(written(&journal), 0, "written before: {was_written}");
        }
    }
}
