//! Trouble that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use lhsm_sandbox_protocol::{Action, ActionState, Fault, Fid, IO_FAULTS, Request, Step};

use super::changelog::Changelog;
use super::namespace;
use super::state::{Record, State, mdt_of};

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) fragment: usize,
    pub(super) duplicate: u32,
    pub(super) end_errno: (i32, u32),
    pub(super) begin_errno: (i32, u32),
    pub(super) sync_errno: (i32, u32),
    pub(super) times_errno: (i32, u32),
    pub(super) xattr_errno: (i32, u32),
    /// A file, an attribute of it, and what that is once the file's next action has ended.
    pub(super) late_xattr: Option<(Fid, String, Option<Vec<u8>>)>,
    pub(super) read_errno: (i32, u32),
    pub(super) write_errno: (i32, u32),
    pub(super) kill: Option<(Step, bool)>,
    /// At which step of a copytool its node is cut off.
    pub(super) cut: Option<Step>,
    pub(super) silent: bool,
    pub(super) restart_at_end: bool,
    /// How long each call of another process takes.
    pub(super) slow: Duration,
    /// Calls that take their time just now.
    pub(super) under_way: BTreeMap<&'static str, u64>,
    /// Bytes to be written to every pipe as they are.
    pub(super) raw: Vec<Vec<u8>>,
}

impl State {
    pub(super) fn inject(&mut self, fault: Fault) -> Result<(), i32> {
        match fault {
            Fault::Fragment(bytes) => self.faults.fragment = bytes,
            Fault::Duplicate(times) => self.faults.duplicate = times,
            Fault::Garbage(bytes) => self.faults.raw.push(bytes),
            Fault::ClosePipes => self.agents.clear(),
            Fault::EndErrno { errno, times } => self.faults.end_errno = (errno, times),
            Fault::BeginErrno { errno, times } => self.faults.begin_errno = (errno, times),
            Fault::SyncErrno { errno, times } => self.faults.sync_errno = (errno, times),
            Fault::TimesErrno { errno, times } => self.faults.times_errno = (errno, times),
            Fault::XattrErrno { errno, times } => self.faults.xattr_errno = (errno, times),
            Fault::LateXattr { fid, name, value } => self.faults.late_xattr = Some((fid, name, value)),
            Fault::ReadErrno { errno, times } => {
                self.faults.read_errno = (errno, times);
                mark_io(&self.mount, true)?;
            }
            Fault::WriteErrno { errno, times } => {
                self.faults.write_errno = (errno, times);
                mark_io(&self.mount, true)?;
            }
            Fault::Kill { step, before } => self.faults.kill = Some((step, before)),
            Fault::Cut(step) => self.faults.cut = Some(step),
            Fault::StrayCancel => {
                let fid = self.new_fid();
                let cookie = self.new_cookie(fid);
                let message = super::wire::message(
                    &self.fsname,
                    1,
                    0,
                    &[super::wire::WireItem {
                        action: Action::Cancel,
                        fid,
                        dfid: fid,
                        cookie,
                        data: &[],
                    }],
                );
                self.faults.raw.push(message);
            }
            Fault::ForgetChanges => self.changelogs.values_mut().for_each(Changelog::forget),
            Fault::ChangelogErrno { mdt, errno, times } => self.changelog(mdt)?.read_errno = (errno, times),
            Fault::DropReader(mdt, name) => self.changelog(mdt)?.drop_reader(&name)?,
            Fault::Slow(ms) => self.faults.slow = Duration::from_millis(ms),
            Fault::Silence(silent) => self.faults.silent = silent,
            Fault::Restart => {
                for mdt in self.mdts() {
                    self.restart(mdt);
                }
            }
            Fault::RestartOf(mdt) => self.restart(mdt),
            Fault::RestartAtEnd => self.faults.restart_at_end = true,
            Fault::Silent(mdts) => self.fall_silent(mdts.into_iter().collect()),
            Fault::Full(mdts) => self.full = mdts.into_iter().collect(),
            Fault::Flood(count) => self.counters.flood_left = count,
            Fault::UnknownAction(fid) => {
                self.log(Action::Other(77), fid, 1, 0, Vec::new());
            }
        }
        Ok(())
    }

    /// What another client's write, which waited for this end, makes of the file.
    pub(super) fn write_late(&mut self, ended: Fid) {
        let late = self.faults.late_xattr.take_if(|(fid, ..)| *fid == ended);
        let Some((fid, name, value)) = late else {
            return;
        };
        let written = match value {
            Some(value) => self.set_xattr(fid, name, value),
            None => self.remove_xattr(fid, &name),
        };
        // A file that is gone takes none.
        written.unwrap_or_default();
    }

    /// The clocks of those that answer again stood still.
    fn fall_silent(&mut self, mdts: BTreeSet<u32>) {
        for record in self.actions.values_mut() {
            if self.silent.contains(&mdt_of(record.fid)) {
                record.last_progress = Instant::now();
            }
        }
        self.silent = mdts;
    }

    /// Whether a change of this attribute is refused now.
    pub(super) fn refuse_xattr(&mut self, name: &str) -> Result<(), i32> {
        // A restore's note of itself comes some time after its end, and would take a fault that is meant for a record; so
        // does what is said of a deletion.
        let is_note = name.ends_with("_restored") || name.contains("_delet");
        if !name.starts_with("trusted.") || is_note {
            return Ok(());
        }
        strike(&mut self.faults.xattr_errno).map_or(Ok(()), Err)
    }

    pub(super) fn restart(&mut self, mdt: u32) {
        self.lost_volatiles.insert(mdt, self.next_oid);
        self.forget_started(mdt);
    }

    /// As after an MDT's restart: restores go back to WAITING and are sent again with their cookies;
    /// archives and removes stay STARTED in the log, unknown to the coordinator's memory.
    pub(super) fn forget_started(&mut self, mdt: u32) {
        // What it was sending just now, too.
        self.held.remove(&mdt);
        let is_out = |record: &Record| record.in_memory || record.state == ActionState::Started;
        let is_its = |record: &Record| mdt_of(record.fid) == mdt && record.action != Action::Cancel && is_out(record);
        let records = self.actions.iter().filter(|(_, record)| is_its(record));
        let numbers: Vec<u64> = records.map(|(number, _)| *number).collect();
        for number in numbers {
            // One that is STARTED in the log only was forgotten before.
            self.free(number);
            if let Some(record) = self.actions.get_mut(&number)
                && record.action == Action::Restore
                && record.state == ActionState::Started
            {
                record.state = ActionState::Waiting;
                record.data_fid = None;
                record.agent = None;
                self.waiting.push_back(number);
            }
        }
    }
}

/// A copytool asks about reads and writes only while this byte is not 0. It is in their memory: the file must stay.
pub(super) fn mark_io(mount: &Path, ask: bool) -> Result<(), i32> {
    let opened = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(mount.join(IO_FAULTS));
    opened
        .and_then(|mark| mark.write_all_at(&[u8::from(ask)], 0))
        .map_err(|error| namespace::errno(&error))
}

/// Which step of a copytool's a request is.
pub(super) fn step(request: &Request) -> Option<Step> {
    match request {
        Request::CopyStart(_) => Some(Step::Begin),
        Request::SetXattr(..) => Some(Step::Map),
        Request::RemoveXattr(..) | Request::SetState { .. } => Some(Step::Unmap),
        Request::VolatileTimes(_) => Some(Step::Times),
        Request::CopyEnd { .. } => Some(Step::End),
        _ => None,
    }
}

/// Counts a fault down; its errno while it lasts.
pub(super) fn strike(fault: &mut (i32, u32)) -> Option<i32> {
    let (errno, times) = fault;
    *times = times.checked_sub(1)?;
    Some(*errno)
}
