//! Actions that are counted: each must be answered or let go of, once.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lhsm_schedules::action::{ActionHandle, HsmError, Item, Kind, Verb, Verdict};
use lhsm_schedules::types::{ArchiveId, Cookie, Extent, Fid};

/// What became of the actions of one schedule. Of `std`, so that the count itself moves nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    made: AtomicUsize,
    ended: AtomicUsize,
}

impl Ledger {
    /// An action of file `oid`.
    pub(crate) fn handle(&self, verb: Verb, cookie: u64, oid: u32) -> Box<dyn ActionHandle> {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        let fid = Fid {
            seq: 0x2_0000_0401,
            oid,
            ver: 0,
        };
        let item = Item {
            kind: Kind::Do(verb),
            fid,
            dfid: fid,
            cookie: Cookie(cookie),
            archive_id: ArchiveId::new(1),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        };
        Box::new(Owed {
            item,
            ledger: self.clone(),
        })
    }

    /// Nobody has one any more, and each was answered or let go of.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.made.load(Ordering::SeqCst) == self.0.ended.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Owed {
    item: Item,
    ledger: Ledger,
}

impl Owed {
    fn end(&self) {
        self.ledger.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl ActionHandle for Owed {
    fn item(&self) -> &Item {
        &self.item
    }

    fn begin(&mut self, _: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        Ok(None)
    }

    fn finish(self: Box<Self>, _: Verdict, _: u64) -> Result<(), HsmError> {
        self.end();
        Ok(())
    }

    fn renew(&mut self) {}

    fn disown(self: Box<Self>) {
        self.end();
    }
}
