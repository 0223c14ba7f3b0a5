//! The life of an action: asked for, sent, reported on, ended. Rules as in Lustre's coordinator
//! (`mdt_hsm_cdt_*.c`), results as seen on a live 2.17.

use std::collections::HashSet;
use std::time::Instant;

use lhsm_sandbox_protocol::{Action, ActionState, Fid, Item, RequestInfo, flags, states};

use super::changelog::kind;
use super::faults::strike;
use super::nodes::Road;
use super::state::{Control, Record, State, mdt_of};
use super::wire::{WireItem, message};

/// MDS_MAXREQSIZE / 3
const LARGEST_REQUEST: usize = 1706;

/// An end that passed the checks.
#[derive(Debug)]
pub(super) struct Ending {
    number: u64,
    pub(super) fid: Fid,
    pub(super) action: Action,
}

impl State {
    /// Of the MDT that a file is on.
    pub(super) fn new_cookie(&mut self, fid: Fid) -> u64 {
        // The wall clock's seconds on a real MDT; any number will do.
        let cookie = self.next_cookies.entry(mdt_of(fid)).or_insert(0x6b00_0000);
        *cookie += 1;
        *cookie
    }

    /// Adds a record to the log.
    pub(super) fn log(&mut self, action: Action, fid: Fid, archive_id: u32, flags: u64, data: Vec<u8>) {
        let cookie = self.new_cookie(fid);
        self.log_as(cookie, action, fid, archive_id, flags, data);
    }

    fn log_as(&mut self, cookie: u64, action: Action, fid: Fid, archive_id: u32, flags: u64, data: Vec<u8>) {
        let number = self.actions.last_key_value().map_or(1, |(number, _)| number + 1);
        let record = Record::new(cookie, action, fid, archive_id, flags, data);
        if action != Action::Cancel {
            self.by_cookie.insert((mdt_of(fid), cookie), number);
            self.pending.entry(fid).or_default().push(number);
        }
        self.actions.insert(number, record);
        self.waiting.push_back(number);
    }

    /// `llapi_hsm_request`: stops at the first file that can't be done; those before it stay accepted.
    pub(super) fn request(
        &mut self,
        action: Action,
        archive_id: u32,
        flags: u64,
        fids: &[Fid],
        data: &[u8],
    ) -> Result<(), i32> {
        if fids.iter().any(|fid| self.control_of(*fid) == Control::Stopped) {
            return Err(libc::EAGAIN);
        }
        if 24 + 32 * fids.len() + data.len() > LARGEST_REQUEST {
            return Err(libc::E2BIG);
        }
        for fid in fids {
            self.request_one(action, archive_id, flags, *fid, data)?;
        }
        Ok(())
    }

    fn request_one(&mut self, action: Action, archive_id: u32, flags: u64, fid: Fid, data: &[u8]) -> Result<(), i32> {
        if action == Action::Cancel {
            if let Some(target) = self.pending_of(fid) {
                let (cookie, archive_id) = (target.cookie, target.archive_id);
                self.log_as(cookie, Action::Cancel, fid, archive_id, 0, Vec::new());
            }
            return Ok(());
        }
        let file = self.state(fid)?;
        let has = |state: u32| file.states & state != 0;
        let id = match (archive_id, file.archive_id) {
            (0, 0) => 1,
            (0, id) | (id, _) => id,
        };
        let needed = match action {
            Action::Archive => {
                if has(states::NOARCHIVE) || (has(states::EXISTS) && file.archive_id != 0 && file.archive_id != id) {
                    return Err(libc::EPERM);
                }
                has(states::DIRTY) || !has(states::ARCHIVED)
            }
            Action::Restore => {
                if has(states::LOST) || !has(states::ARCHIVED) || has(states::DIRTY) {
                    return Err(libc::EPERM);
                }
                has(states::RELEASED) && !self.restore_pending(fid)
            }
            Action::Remove => {
                if has(states::RELEASED) {
                    return Err(libc::EPERM);
                }
                has(states::ARCHIVED | states::EXISTS)
            }
            Action::Cancel | Action::Other(_) => true,
        };
        if needed || flags & flags::FORCE_ACTION != 0 {
            self.log(action, fid, id, flags, data.to_vec());
        }
        Ok(())
    }

    /// A reader waits: a restore that nobody asked for by name. `false`: there is no copy to be had.
    pub(super) fn implicit_restore(&mut self, fid: Fid) -> bool {
        if self.restore_pending(fid) {
            return true;
        }
        let id = self.files.get(&fid).map_or(1, |file| file.archive_id);
        self.request_one(Action::Restore, id, flags::REQ_BLOCKING, fid, &[])
            .is_ok()
    }

    fn started(&mut self, fid: Fid, cookie: u64) -> Result<(u64, &mut Record), i32> {
        if self.control_of(fid) == Control::Stopped {
            return Err(libc::EAGAIN);
        }
        let number = *self.by_cookie.get(&(mdt_of(fid), cookie)).ok_or(libc::ENOENT)?;
        let record = self.actions.get_mut(&number).ok_or(libc::ENOENT)?;
        if record.state != ActionState::Started || !record.in_memory {
            return Err(libc::ENOENT);
        }
        Ok((number, record))
    }

    /// Whether an action is at a copytool.
    pub(super) fn is_out(&mut self, item: &Item) -> bool {
        self.started(item.fid, item.cookie).is_ok()
    }

    /// `LL_IOC_HSM_PROGRESS`
    pub(super) fn progress(&mut self, fid: Fid, cookie: u64) -> Result<(), i32> {
        self.counters.progress += 1;
        if self.control_of(fid) != Control::Stopped && !self.by_cookie.contains_key(&(mdt_of(fid), cookie)) {
            self.counters.unknown_cookies += 1;
        }
        let (_, record) = self.started(fid, cookie)?;
        record.check_fid(fid)?;
        record.last_progress = Instant::now();
        record.progress += 1;
        if record.cancelled {
            return Err(libc::ECANCELED);
        }
        Ok(())
    }

    /// `LL_IOC_HSM_COPY_START`: samples the data version and reports no progress, by the file's own FID.
    pub(super) fn copy_start(&mut self, item: &Item) -> Result<u64, i32> {
        if let Some(errno) = strike(&mut self.faults.begin_errno) {
            return Err(errno);
        }
        let version = match item.action {
            Action::Archive => self.data_version(item.fid)?,
            _ => 0,
        };
        self.progress(item.fid, item.cookie)?;
        Ok(version)
    }

    /// The first half of `LL_IOC_HSM_COPY_END`: may this end it?
    pub(super) fn ending(&mut self, item: &Item) -> Result<Ending, i32> {
        if let Some(errno) = strike(&mut self.faults.end_errno) {
            return Err(errno);
        }
        self.answered_late(item.fid, item.cookie);
        let (number, record) = self.started(item.fid, item.cookie)?;
        let fid = match record.action {
            Action::Restore => item.dfid,
            _ => item.fid,
        };
        record.check_fid(fid)?;
        Ok(Ending {
            number,
            fid: record.fid,
            action: record.action,
        })
    }

    /// One that was purged while its copytool was silent has kept its slot until now.
    fn answered_late(&mut self, fid: Fid, cookie: u64) {
        let number = self.by_cookie.get(&(mdt_of(fid), cookie)).copied();
        let is_purged = |number: &u64| self.actions.get(number).is_some_and(|record| !record.is_pending());
        if let Some(number) = number.filter(is_purged) {
            self.free(number);
        }
    }

    /// What it hands over is gone, and its copytool could not know.
    pub(super) fn spoil(&mut self, ending: &Ending) {
        if let Some(record) = self.actions.get_mut(&ending.number) {
            record.spoiled = true;
        }
    }

    /// The second half. `swapped`: how handing over a restore's data went.
    pub(super) fn end(
        &mut self,
        ending: &Ending,
        errval: i32,
        flags: u16,
        data_version: u64,
        swapped: Result<Option<Vec<u8>>, i32>,
    ) -> Result<(), i32> {
        let fid = ending.fid;
        let mut answer = Ok(());
        let mut errval = errval;
        if errval == 0 {
            let applied = match ending.action {
                Action::Archive => self.archived(ending.number, fid, data_version),
                Action::Restore => swapped.and_then(|layout| self.restored(fid, layout)),
                Action::Remove => {
                    if let Some(file) = self.files.get_mut(&fid) {
                        file.states &= !(states::ARCHIVED | states::EXISTS | states::LOST | states::DIRTY);
                        file.archive_id = 0;
                    }
                    Ok(())
                }
                Action::Cancel | Action::Other(_) => Ok(()),
            };
            if let Err(errno) = applied {
                errval = errno;
                // A data version that moved and a swap that is refused are the caller's to know.
                if matches!(ending.action, Action::Archive | Action::Restore) {
                    answer = Err(errno);
                }
            }
        }
        let event = match ending.action {
            Action::Restore => 0x80,
            Action::Remove => 0x200,
            Action::Archive | Action::Cancel | Action::Other(_) => 0,
        };
        self.note(kind::HSM, event | u16::try_from(errval & 0x7f).unwrap_or(0x7f), fid);
        let retry = flags & flags::HP_RETRY != 0 && self.retry_action && errval != 0;
        self.conclude(ending.number, errval, retry);
        answer
    }

    fn archived(&mut self, number: u64, fid: Fid, data_version: u64) -> Result<(), i32> {
        let id = self.actions.get(&number).map_or(1, |record| record.archive_id);
        if data_version == 0 {
            return Err(libc::EBUSY);
        }
        let now = match self.data_version(fid) {
            Ok(now) => now,
            // Unlinked: the open source file keeps it, and the MDT is content.
            Err(_) => return Ok(()),
        };
        if now != data_version {
            return Err(libc::EBUSY);
        }
        if let Some(file) = self.files.get_mut(&fid) {
            // EXISTS was set when it was sent, and may have been taken away since.
            file.states = (file.states | states::ARCHIVED) & !(states::DIRTY | states::LOST);
            file.archive_id = id;
            file.archived_version = now;
            file.clean_version = now;
        }
        Ok(())
    }

    fn conclude(&mut self, number: u64, errval: i32, retry: bool) {
        let Some(record) = self.actions.get_mut(&number) else {
            return;
        };
        record.ends += 1;
        record.errval = errval;
        let (cookie, fid, action, cancelled) = (record.cookie, record.fid, record.action, record.cancelled);
        let again = retry && !cancelled;
        if again {
            record.state = ActionState::Waiting;
        }
        self.free(number);
        if again {
            self.waiting.push_back(number);
            return;
        }
        let state = match errval {
            _ if cancelled => ActionState::Canceled,
            // Sent unasked it is taken for a cancel that was obeyed.
            0 | libc::ECANCELED => ActionState::Succeed,
            _ => ActionState::Failed,
        };
        self.close(number, state);
        if cancelled {
            let obeyed = if errval == libc::ECANCELED {
                ActionState::Succeed
            } else {
                ActionState::Failed
            };
            let cancels: Vec<u64> = self
                .actions
                .iter()
                .filter(|(_, other)| (mdt_of(other.fid), other.cookie) == (mdt_of(fid), cookie))
                .filter(|(_, other)| other.action == Action::Cancel && other.is_pending())
                .map(|(number, _)| *number)
                .collect();
            for cancel in cancels {
                self.close(cancel, obeyed);
            }
        }
        if action == Action::Restore {
            self.wake_readers(fid, errval == 0);
        }
    }

    /// A record is over.
    pub(super) fn close(&mut self, number: u64, state: ActionState) {
        let Some(record) = self.actions.get_mut(&number) else {
            return;
        };
        record.state = state;
        *self
            .counters
            .ended
            .entry(format!("{} {}", record.action, format!("{state:?}").to_uppercase()))
            .or_default() += 1;
        if let Some(pending) = self.pending.get_mut(&record.fid) {
            pending.retain(|other| *other != number);
            if pending.is_empty() {
                self.pending.remove(&record.fid);
            }
        }
    }

    pub(super) fn wake_readers(&mut self, fid: Fid, restored: bool) {
        if let Some(readers) = &mut self.readers {
            readers.wake(fid, restored);
        }
    }

    /// What showed no progress for too long is cancelled; its copytool is not told.
    pub(super) fn time_out(&mut self) {
        let timeout = self.timeout;
        let late: Vec<(u64, Fid, Action)> = self
            .actions
            .iter()
            .filter(|(_, record)| {
                record.state == ActionState::Started
                    && record.action != Action::Cancel
                    && !self.silent.contains(&mdt_of(record.fid))
                    // The thread that would do it waits in a send.
                    && !self.held.contains_key(&mdt_of(record.fid))
                    && record.last_progress.elapsed() > timeout
            })
            .map(|(number, record)| (*number, record.fid, record.action))
            .collect();
        for (number, fid, action) in late {
            self.counters.timed_out += 1;
            self.drop_started(number);
            if action == Action::Restore {
                self.wake_readers(fid, false);
            }
        }
    }

    fn drop_started(&mut self, number: u64) {
        self.free(number);
        self.close(number, ActionState::Canceled);
    }

    /// `hsm_control=purge` of one MDT: everything of its is cancelled, with one message for each action that is out.
    pub(super) fn purge(&mut self, mdt: u32) {
        let pending: Vec<u64> = self
            .actions
            .iter()
            .filter(|(_, record)| record.is_pending() && mdt_of(record.fid) == mdt)
            .map(|(number, _)| *number)
            .collect();
        let actions = &self.actions;
        self.waiting
            .retain(|number| actions.get(number).is_some_and(|record| mdt_of(record.fid) != mdt));
        for number in pending {
            let Some(record) = self.actions.get(&number) else {
                continue;
            };
            if let (Some(client), true) = (record.agent.clone(), record.in_memory) {
                let item = WireItem {
                    action: Action::Cancel,
                    fid: record.fid,
                    dfid: record.fid,
                    cookie: record.cookie,
                    data: &[],
                };
                let bytes = message(&self.fsname, record.archive_id, 0, &[item]);
                self.outbox.push((client, mdt, bytes));
            }
            let (fid, action) = (record.fid, record.action);
            // Its slot is free when its copytool has answered, which one on a silent node does not.
            let is_silent = record
                .agent
                .as_ref()
                .is_some_and(|client| self.nodes.road(client) != Road::Open);
            if is_silent {
                self.close(number, ActionState::Canceled);
            } else {
                self.drop_started(number);
            }
            if action == Action::Restore {
                self.wake_readers(fid, false);
            }
        }
    }

    /// `hsm_control=shutdown` of one MDT: it forgets agents and what they run of its files; readers get an error.
    pub(super) fn shutdown(&mut self, mdt: u32) {
        for agent in &mut self.agents {
            agent.known_by.remove(&mdt);
        }
        self.forget_started(mdt);
        let fids: Vec<Fid> = self.pending.keys().copied().filter(|fid| mdt_of(*fid) == mdt).collect();
        for fid in fids {
            self.wake_readers(fid, false);
        }
    }

    pub(super) fn has_ended(&self, action: Action, fid: Fid) -> bool {
        self.actions
            .values()
            .any(|record| record.action == action && record.fid == fid && !record.is_pending())
    }

    pub(super) fn infos(&self) -> Vec<RequestInfo> {
        // In the coordinator's memory already, in its log not yet.
        let letters = self.held.values().flatten();
        let unsent: HashSet<u64> = letters.flat_map(|letter| letter.records.iter().copied()).collect();
        self.actions
            .iter()
            .map(|(number, record)| RequestInfo {
                action: record.action,
                fid: record.fid,
                cookie: record.cookie,
                archive_id: record.archive_id,
                state: match record.state {
                    ActionState::Started if unsent.contains(number) => ActionState::Waiting,
                    state => state,
                },
                agent: record.agent.clone(),
                errval: record.errval,
                ends: record.ends,
                sends: record.sends,
                delivered_ms: record.delivered.map(ms_since),
                progress: record.progress,
                spoiled: record.spoiled,
            })
            .collect()
    }
}

fn ms_since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Record {
    /// A restore's first data FID is final; every other must be the file's own.
    fn check_fid(&mut self, fid: Fid) -> Result<(), i32> {
        if fid == self.fid {
            return Ok(());
        }
        if self.action != Action::Restore {
            return Err(libc::EINVAL);
        }
        match self.data_fid {
            None => {
                self.data_fid = Some(fid);
                Ok(())
            }
            Some(known) if known == fid => Ok(()),
            Some(_) => Err(libc::EINVAL),
        }
    }
}
