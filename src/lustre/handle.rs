//! An action that must be answered: [`ActionHandle`] over liblustreapi's handles, and over a restore of our own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::handles::CopyAction;
use super::layout::{RestoreLayout, for_restore, is_portable_composite, plain_stripes};
use super::restoring::{EndError, Restoring};
use super::{Agent, Mount, ioctl};
use crate::action::{ActionHandle, EndFailure, HsmError, Item, Kind, Verb, Verdict};
use crate::types::{ErrorClass, Extent, HsmErrno};

/// `O_LOV_DELAY_CREATE` (lustre_user.h): opens a new file without objects, so that a layout can be set.
const O_LOV_DELAY_CREATE: i32 = libc::O_NOCTTY | libc::O_ASYNC;

/// Between two tries to be heard, doubled each time: three seconds in all. An MDT that was restarted needs longer to send
/// its restores again, and that is then no longer the action that was answered.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A restore that was complete so often, and nobody heard it, has failed.
const MOST_UNHEARD: u32 = 20;

/// One action of one agent.
#[derive(Debug)]
pub(super) struct AgentAction {
    item: Item,
    handle: Handle,
    /// Of what was begun before the coordinator sent the action again. To end one tells the MDT about the action, by
    /// its cookie: only once that is over. A restore has none: what was begun of it is let go of, which tells nobody.
    stale: Vec<CopyAction>,
    /// Ends that nobody heard, of a restore that was complete each time.
    unheard: u32,
    /// Dropped behind the handles, which hold its registration: where it is the last one it unregisters.
    agent: Arc<Agent>,
}

#[derive(Debug)]
enum Handle {
    /// Not begun, or begin failed: only an error can be reported.
    None,
    Begun(CopyAction),
    Restoring(Restoring),
    Ended,
}

/// What was said of an action.
struct Answer {
    /// 0, or the errno of a failure.
    errval: i32,
    result: Result<(), HsmError>,
    /// Else the coordinator may still wait.
    is_heard: bool,
}

impl Answer {
    fn of(errval: i32, result: Result<(), HsmError>) -> Self {
        let is_heard = !matches!(&result, Err(error) if is_unheard(error.errno));
        Self {
            errval,
            result,
            is_heard,
        }
    }
}

impl Agent {
    /// An action that is owed by this mount, whichever process took it in: it belongs to its cookie.
    #[must_use]
    pub fn owe(self: &Arc<Self>, item: Item) -> Box<dyn ActionHandle> {
        Box::new(AgentAction::new(Arc::clone(self), item))
    }
}

impl AgentAction {
    pub(super) const fn new(agent: Arc<Agent>, item: Item) -> Self {
        Self {
            item,
            handle: Handle::None,
            stale: Vec::new(),
            unheard: 0,
            agent,
        }
    }

    fn start(&self, is_error: bool) -> Result<CopyAction, HsmError> {
        CopyAction::begin(self.agent.copytool()?, &self.item, is_error)
    }

    fn start_restore(&self, open_flags: i32) -> Result<Restoring, HsmError> {
        let mount = self.agent.mount();
        // A volatile file must be on the MDT of its file, or their layouts can't be swapped.
        let mdt_index = mount.mdt_index(self.item.fid);
        Restoring::begin(mount, &self.item, mdt_index, open_flags).map_err(said_of_none)
    }

    fn file(&self) -> Result<File, HsmError> {
        let fd = match &self.handle {
            Handle::Restoring(restoring) => return restoring.file(),
            Handle::Begun(handle) => handle.file()?,
            Handle::None | Handle::Ended => return Err(HsmError::new("llapi_hsm_action_get_fd", libc::EINVAL)),
        };
        // The library opens the source O_NONBLOCK: a read under somebody's lock would be EAGAIN (vvp_io.c).
        // And no child (credential_process) may keep it open.
        prepare(&fd).map_err(|error| HsmError::new("fcntl", error as i32))?;
        Ok(fd.into())
    }

    /// Has an action end whose handle is gone with an answer that was not heard: somebody may wait for it. That it failed
    /// is all that can be said then.
    fn insist(&self) {
        let mut pause = FIRST_PAUSE;
        // Where the one before was not heard either nobody waits for each of a thousand.
        while self.agent.is_heard() && pause <= LONGEST_PAUSE {
            std::thread::park_timeout(pause);
            pause *= 2;
            let ended = self
                .start(true)
                .and_then(|handle| handle.end(Extent::EMPTY, false, libc::EIO));
            match ended {
                Err(error) if is_unheard(error.errno) => tracing::debug!(%error, "nor did this one"),
                _ => return,
            }
        }
        self.agent.set_heard(false);
        tracing::error!(
            fid = %self.item.fid, cookie = %self.item.cookie,
            "the coordinator can't be told how the action ended; it waits for its own time-out"
        );
    }

    /// Whether the coordinator says that it does not know the action. Whatever else it says, somebody may wait for it.
    fn is_unknown(&self) -> bool {
        let asked = ioctl::progress(
            self.agent.mount().descriptor(),
            self.item.fid,
            self.item.cookie,
            Extent::EMPTY,
        );
        asked.is_err_and(|error| error.is_not_found())
    }

    fn end(&mut self, verdict: Verdict, copied: u64) -> Result<(), HsmError> {
        // A restore that the coordinator forgot is sent again under its cookie: that one is not to be ended by this answer.
        if matches!(self.handle, Handle::None)
            && self.item.kind == Kind::Do(Verb::Restore)
            && verdict == Verdict::failed(HsmErrno::ENOENT)
            && self.is_unknown()
        {
            self.handle = Handle::Ended;
            return Ok(());
        }
        let Answer {
            errval,
            result,
            is_heard,
        } = match self.answer(verdict, copied) {
            Ok(answer) => answer,
            // The answer could not be begun: what is left of earlier runs is the one way to say that it failed.
            Err(error) => {
                self.free_stale();
                return Err(error);
            }
        };
        match &result {
            Err(error) if !is_heard => {
                tracing::warn!(fid = %self.item.fid, cookie = %self.item.cookie, %error, "the answer did not reach the coordinator");
                self.insist();
            }
            _ => self.agent.set_heard(true),
        }
        self.free_stale();
        match result {
            // Whoever closed it before us (a failed COPY_START, a time-out) has said what there was to say.
            Err(error) if error.is_not_found() && errval != 0 => {
                tracing::debug!("the coordinator had already closed the action");
                Ok(())
            }
            other => other,
        }
    }

    /// Whether the coordinator still has the action after some seconds, in which another mover's end of it, which it may have
    /// been busy with, was done.
    fn stays(&self) -> bool {
        let mut pause = FIRST_PAUSE;
        while pause <= LONGEST_PAUSE {
            if self.is_unknown() {
                return false;
            }
            std::thread::park_timeout(pause);
            pause *= 2;
        }
        !self.is_unknown()
    }

    /// Gives the answer, and with it the handle; what came of it.
    fn answer(&mut self, verdict: Verdict, copied: u64) -> Result<Answer, HsmError> {
        let (begun, handle) = match std::mem::replace(&mut self.handle, Handle::Ended) {
            Handle::Begun(handle) => (true, handle),
            Handle::Restoring(restoring) => return Ok(answer_restore(restoring, verdict, copied)),
            Handle::Ended => return Ok(Answer::of(0, Ok(()))),
            // A begin that fails has not closed the action; this pair does (facts of 2.17).
            Handle::None => (false, self.start(true)?),
        };
        let (errval, retry) = match verdict {
            Verdict::Done if begun => (0, false),
            Verdict::Done => (HsmErrno::EIO.get(), false),
            Verdict::Cancelled => (libc::ECANCELED, false),
            Verdict::Failed { errno, retry } => (errno.get(), retry),
        };
        let moved = Extent {
            offset: 0,
            length: copied,
        };
        Ok(Answer::of(errval, handle.end(moved, retry, errval)))
    }

    fn free_stale(&mut self) {
        for stale in self.stale.drain(..) {
            // ENOENT, of an action that is over; the handle and its file go.
            if let Err(error) = stale.end(Extent::EMPTY, false, libc::EIO) {
                tracing::debug!(%error, "an earlier run's handle is freed");
            }
        }
    }
}

impl ActionHandle for AgentAction {
    fn item(&self) -> &Item {
        &self.item
    }

    fn begin(&mut self, layout: Option<&[u8]>) -> Result<Option<File>, HsmError> {
        if matches!(
            (&self.handle, self.item.kind),
            (Handle::Begun(_), Kind::Do(Verb::Archive)) | (Handle::Restoring(_), _)
        ) {
            return self.file().map(Some);
        }
        let Handle::None = self.handle else {
            return Err(HsmError::new("llapi_hsm_action_begin", libc::EALREADY));
        };
        match self.item.kind {
            Kind::Do(Verb::Archive) => {
                self.handle = Handle::Begun(self.start(false).map_err(said_of_none)?);
                self.file().map(Some)
            }
            Kind::Do(Verb::Restore) => {
                let own = self.agent.mount().restore_layout(self.item.fid)?;
                let flags = match &own {
                    RestoreLayout::Kept(_) | RestoreLayout::Plain(_) => O_LOV_DELAY_CREATE,
                    RestoreLayout::Default(reason) => {
                        tracing::debug!(reason, "restoring with the default layout");
                        0
                    }
                };
                self.handle = Handle::Restoring(self.start_restore(flags)?);
                let file = self.file()?;
                if let RestoreLayout::Kept(own) | RestoreLayout::Plain(own) = own
                    && !layout.is_some_and(|wanted| set_imported(&file, wanted, &own))
                {
                    // Going on without one would lose the data: the file would read as zeros (2.17). Nor is it gone on with
                    // when the restore is begun again.
                    Mount::set_layout(&file, &own).inspect_err(|_| self.renew())?;
                }
                Ok(Some(file))
            }
            Kind::Do(Verb::Remove) => {
                let begun = match self.start(false) {
                    // The library opens the file, and may find none.
                    Err(error) if is_of_none(&error) => self.start(true),
                    begun => begun,
                };
                self.handle = Handle::Begun(begun?);
                Ok(None)
            }
            Kind::Cancel | Kind::Unknown(_) => Err(HsmError::new("llapi_hsm_action_begin", libc::EINVAL)),
        }
    }

    fn finish(mut self: Box<Self>, verdict: Verdict, copied: u64) -> Result<(), HsmError> {
        self.end(verdict, copied)
    }

    fn complete(mut self: Box<Self>, copied: u64) -> Result<(), EndFailure> {
        let can_begin_anew = matches!(self.handle, Handle::Restoring(_)) && self.unheard < MOST_UNHEARD;
        if !can_begin_anew {
            return self.end(Verdict::Done, copied).map_err(EndFailure::Said);
        }
        let answer = self.answer(Verdict::Done, copied);
        match answer.unwrap_or_else(|error| Answer::of(0, Err(error))) {
            // EINVAL is the MDT's: it knows another data FID of this restore, and takes nothing but a failure.
            Answer {
                result: Err(error),
                is_heard: false,
                ..
            } if error.errno != libc::EINVAL => {
                self.unheard += 1;
                self.handle = Handle::None;
                Err(EndFailure::Unheard(self, error))
            }
            Answer {
                result: Err(error),
                is_heard: false,
                ..
            } if self.stays() => {
                self.insist();
                Err(EndFailure::Said(error))
            }
            Answer { result, .. } => {
                self.agent.set_heard(true);
                // That data FID was another mover's, whose end the coordinator took.
                let result = result.map_err(|error| match error.class() {
                    ErrorClass::Invalid => HsmError::of(error.call, ErrorClass::Gone),
                    _ => error,
                });
                result.map_err(EndFailure::Said)
            }
        }
    }

    fn renew(&mut self) {
        match std::mem::replace(&mut self.handle, Handle::None) {
            Handle::Begun(handle) => self.stale.push(handle),
            Handle::Restoring(restoring) => restoring.let_go(),
            Handle::None | Handle::Ended => {}
        }
    }

    fn disown(mut self: Box<Self>) {
        // An end would be an answer, and might not come back.
        match std::mem::replace(&mut self.handle, Handle::Ended) {
            Handle::Begun(handle) => handle.leave(),
            Handle::Restoring(restoring) => restoring.leave(),
            Handle::None | Handle::Ended => {}
        }
        self.stale.drain(..).for_each(CopyAction::leave);
    }

    fn forgotten(mut self: Box<Self>) {
        // Its MDT has answered just now: what was restored of the file need not be kept.
        if matches!(self.handle, Handle::Restoring(_)) {
            self.renew();
        }
        self.disown();
    }
}

impl Drop for AgentAction {
    fn drop(&mut self) {
        if matches!(self.handle, Handle::Ended) {
            return;
        }
        tracing::error!(
            fid = %self.item.fid,
            cookie = %self.item.cookie,
            "an action was dropped without an answer; answering EIO. This is a defect: please report it"
        );
        if let Err(error) = self.end(Verdict::failed(HsmErrno::EIO), 0) {
            tracing::error!(%error, "and the coordinator did not take it");
        }
    }
}

/// What is said of a restore that was begun. It is never to be retried by the coordinator: one that is sent again after its
/// volatile file became known to the MDT can't begin any more, and never recovers by itself.
fn answer_restore(restoring: Restoring, verdict: Verdict, copied: u64) -> Answer {
    let errval = match verdict {
        Verdict::Done => {
            return match restoring.end(copied) {
                Ok(()) => Answer::of(0, Ok(())),
                Err(EndError::Told(error)) => Answer::of(0, Err(error)),
                // Whatever it is: the coordinator has heard nothing.
                Err(EndError::Untold(error)) => Answer {
                    errval: 0,
                    result: Err(error),
                    is_heard: false,
                },
            };
        }
        Verdict::Cancelled => libc::ECANCELED,
        Verdict::Failed { errno, .. } => errno.get(),
    };
    Answer::of(errval, restoring.fail(copied, errval))
}

/// As a begin's error is told.
fn said_of_none(error: HsmError) -> HsmError {
    if is_of_none(&error) {
        HsmError::new(error.call, libc::ENOENT)
    } else {
        error
    }
}

/// Whether a begin failed for its file is gone, which is ENOENT, unless the file was on another MDT than `.lustre/fid`: an open by
/// FID is EFAULT then (2.17: mdt_cross_open).
const fn is_of_none(error: &HsmError) -> bool {
    error.errno == libc::EFAULT
}

/// Whether the coordinator may still wait after an end that failed so. What else there is are its own words: it forgot
/// the action or was cancelled, the file changed, layouts can't be swapped, it is off (and sends restores again).
const fn is_unheard(errno: i32) -> bool {
    !matches!(
        ErrorClass::of(errno),
        ErrorClass::Gone | ErrorClass::Cancelled | ErrorClass::Busy | ErrorClass::Unsupported | ErrorClass::Stopped
    )
}

/// The composite layout that an imported file had where it was archived. Its bytes come from a bucket, and this file
/// system may not have what they ask for: then the import's own will do.
fn set_imported(file: &File, wanted: &[u8], own: &[u8]) -> bool {
    if plain_stripes(own).is_none() || !is_portable_composite(wanted) {
        return false;
    }
    let RestoreLayout::Kept(wanted) = for_restore(wanted.to_vec()) else {
        return false;
    };
    Mount::set_layout(file, &wanted)
        .inspect_err(
            |error| tracing::warn!(%error, "the layout that the file had can't be had here; it gets a plain one"),
        )
        .is_ok()
}

fn prepare(fd: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}
