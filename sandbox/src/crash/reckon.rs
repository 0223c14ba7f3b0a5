//! The reckoning: once all is quiet, each file's bytes are what was written last, and the store has nothing that is no
//! file's copy.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use lhsm_sandbox::protocol::{Action, ActionState, Fid, states};
use lhsm_sandbox_s3::ObjectInfo;
use nix::sys::signal::Signal;

use crate::world::{BUCKET, LOOK, PATIENCE, Result, World, refused};

/// In the keys of what a daemon makes to try the store.
const PROBES: &str = ".lhsm-s3-metadata/0x0:0x0:0x0.";
/// Of an object: the file that it was written for.
const FID: &str = "lhsm-fid";

/// Files that are gone, each with the number of purges before.
#[derive(Debug, Default)]
pub(crate) struct Dead(HashMap<Fid, u64>);

impl Dead {
    pub(crate) fn add(&mut self, fid: Fid, purges: u64) {
        self.0.insert(fid, purges);
    }

    /// Whether the coordinator may have dropped the REMOVE of a file that is gone, with all else: then nobody asks for
    /// the removal of its copy any more, as an administrator wanted it.
    fn was_purged(&self, object: &ObjectInfo, purges: u64) -> bool {
        let fid = object.metadata.get(FID).and_then(|fid| fid.parse().ok());
        fid.and_then(|fid: Fid| self.0.get(&fid))
            .is_some_and(|before| *before < purges)
    }
}

impl World {
    pub(crate) fn reckon(&mut self) -> Result<()> {
        self.end_scrub()?;
        self.idle()?;
        self.end_readers(PATIENCE)?;
        // What the last successors take away by themselves, and archives that they ask for again.
        let until = Instant::now() + PATIENCE;
        while (!self.unmapped()?.0.is_empty() || self.client.pending()? > 0) && Instant::now() < until {
            self.pause(LOOK)?;
            self.idle()?;
        }
        self.outcome.hung += self.hung()?;
        self.outcome.files = self.files.len();
        // Uploads whose number nobody got to know may belong to somebody until they are old; a daemon looks when it starts.
        let until = Instant::now() + PATIENCE;
        while !self.store.uploads(BUCKET).is_empty() && Instant::now() < until {
            self.pause(Duration::from_millis(1100))?;
            self.successors()?;
            self.idle()?;
        }
        self.scrub_purged()?;
        self.orphans()?;
        for at in 0..self.files.len() {
            for _ in 0..5 {
                let file = &self.files[at];
                if !file.is_released(&mut self.client)? {
                    break;
                }
                let fid = file.fid;
                self.start_dead()?;
                self.client.request(Action::Restore, 1, &[fid]).or_else(refused)?;
                self.client.wait(&[fid], PATIENCE)?;
            }
            let file = &self.files[at];
            if file.is_released(&mut self.client)? {
                let fid = file.fid;
                self.tell("lost", fid);
                self.outcome.lost += 1;
            } else if std::fs::read(&file.path)? != file.content() {
                let fid = file.fid;
                self.tell("corrupt", fid);
                self.outcome.corrupt += 1;
            }
        }
        for mover in &mut self.movers {
            if mover.daemon.is_running() {
                mover.daemon.signal(Signal::SIGTERM)?;
            }
            mover.daemon.wait(PATIENCE)?;
        }
        Ok(())
    }

    /// Actions that nobody ends.
    fn hung(&mut self) -> Result<u64> {
        let pending = self.client.pending()?;
        if pending > 0 {
            let is_pending = |state| matches!(state, ActionState::Waiting | ActionState::Started);
            let actions = self.client.actions()?.into_iter();
            let of: BTreeSet<_> = actions
                .filter(|action| action.action != Action::Cancel && is_pending(action.state))
                .map(|action| action.fid)
                .collect();
            for fid in of {
                self.tell("hangs", fid);
            }
        }
        Ok(pending)
    }

    /// What a purge left is taken away by a scrub, as the manual says.
    fn scrub_purged(&mut self) -> Result<()> {
        self.outcome.purged = self.unmapped()?.1.len();
        if self.outcome.purged > 0 {
            self.start_scrub(Some("0s"))?;
            self.end_scrub()?;
            self.dead = Dead::default();
        }
        Ok(())
    }

    /// Objects that no file is mapped to, and those of them that a purge left.
    fn unmapped(&mut self) -> Result<(Vec<ObjectInfo>, Vec<ObjectInfo>)> {
        let mut mapped = HashSet::new();
        for file in &self.files {
            if let Ok(record) = self.client.xattr(file.fid, "trusted.lhsm_s3") {
                let record: serde_json::Value = serde_json::from_slice(&record)?;
                let named = ["key", "sidecar"].map(|field| record[field].as_str().unwrap_or_default().to_owned());
                mapped.extend(named);
            }
        }
        let objects = self.store.objects(BUCKET).into_iter();
        // What a daemon was killed over while it tried the store is of no file, and goes when its time is over.
        let unmapped = objects.filter(|object| !mapped.contains(&object.key) && !object.key.contains(PROBES));
        let purges = self.outcome.purges;
        Ok(unmapped.partition(|object| !self.dead.was_purged(object, purges)))
    }

    /// Uploads, and objects that are no file's copy.
    fn orphans(&mut self) -> Result<()> {
        let uploads = self.store.uploads(BUCKET).into_iter();
        for (key, id) in uploads.filter(|(key, _)| !key.contains(PROBES)) {
            eprintln!("orphan upload: {key} {id}");
            self.outcome.uploads += 1;
        }
        for object in self.unmapped()?.0 {
            let said = |name: &str| object.metadata.get(name).map_or("-", String::as_str);
            let (fid, cookie, writer) = (said(FID), said("lhsm-cookie"), said("lhsm-writer"));
            eprintln!(
                "no file is mapped to: {} ({} bytes of {fid}, cookie {cookie}, writer {writer})",
                object.key, object.size
            );
            if let Ok(fid) = fid.parse() {
                self.tell("an object of its is nobody's", fid);
            }
            self.outcome.unmapped += 1;
        }
        let fids: Vec<_> = self.files.iter().map(|file| file.fid).collect();
        for fid in fids {
            let has_record = self.client.xattr(fid, "trusted.lhsm_s3").is_ok();
            if !has_record && self.client.state(fid)?.states & states::ARCHIVED != 0 {
                self.tell("archived and without a record", fid);
                self.outcome.lost += 1;
            }
        }
        Ok(())
    }
}
