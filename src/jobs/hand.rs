//! The calls of a job that take a while, in threads of their own.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{JobSpec, NextStep, need};
use crate::action::HsmError;
use crate::lustre::{HsmStates, Mount, UserAction};
use crate::transfer::Control;
use crate::types::{ErrorClass, Fid};
use crate::walk::Named;

/// For a file that somebody has open to be closed, and between two looks.
const BUSY: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);

/// A file of the source, before it is looked at.
pub(super) struct SourceFile {
    pub(super) file: Named,
    pub(super) size: u64,
    /// A former run asked for it and did not see its end.
    pub(super) asked: bool,
}

pub(super) enum Task {
    /// A file of the source.
    Look(SourceFile),
    /// One that was asked for; and whether to ask the coordinator.
    Check(u64, Fid, bool),
    Release(u64, Fid),
}

pub(super) enum Answer {
    /// And whether anything goes on with it, where that was asked for.
    Looked(SourceFile, Result<(Fid, HsmStates, bool), HsmError>),
    /// `false`: nothing goes on with it.
    Checked(u64, Result<(HsmStates, bool), HsmError>),
    Released(u64, Result<(), HsmError>),
}

pub(super) fn hand(
    mount: &Mount,
    spec: &JobSpec,
    control: &Control,
    tasks: &Mutex<Receiver<Task>>,
    answers: &Sender<Answer>,
) {
    loop {
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        if control.stopped().is_some() {
            return;
        }
        let answer = match task {
            Err(_) => return,
            Ok(Task::Look(known)) => {
                let looked = look(mount, spec, &known);
                Answer::Looked(known, looked)
            }
            Ok(Task::Check(id, fid, deep)) => Answer::Checked(id, check(mount, spec, fid, deep)),
            Ok(Task::Release(id, fid)) => Answer::Released(id, release(mount, control, fid)),
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// A copytool closes the file right behind the end of its archive: what is busy may not be so in a moment.
fn release(mount: &Mount, control: &Control, fid: Fid) -> Result<(), HsmError> {
    let until = Instant::now() + BUSY;
    loop {
        let released = mount.request(UserAction::Release, None, &[fid]);
        let is_busy = released.as_ref().is_err_and(|error| error.class() == ErrorClass::Busy);
        if !is_busy || Instant::now() >= until || control.stopped().is_some() {
            return released;
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn look(mount: &Mount, spec: &JobSpec, known: &SourceFile) -> Result<(Fid, HsmStates, bool), HsmError> {
    let (fid, states) = mount.look(known.file.at())?;
    if known.asked || spec.action == UserAction::Cancel {
        return Ok((fid, states, mount.has_action(fid)?));
    }
    // A release is over when it was asked for.
    let may_be_asked = spec.taken_over && spec.action != UserAction::Release;
    if !may_be_asked || need(spec.action, states) != NextStep::Ask {
        return Ok((fid, states, false));
    }
    match mount.has_action(fid) {
        Ok(acting) => Ok((fid, states, acting)),
        // An old library. Whoever gets it joins or declines a second request.
        Err(error) if error.class() == ErrorClass::Unsupported => Ok((fid, states, false)),
        Err(error) => Err(error),
    }
}

fn check(mount: &Mount, spec: &JobSpec, fid: Fid, deep: bool) -> Result<(HsmStates, bool), HsmError> {
    let states = mount.states_of(fid)?;
    let deep = deep || spec.action == UserAction::Cancel;
    if !deep || (spec.action != UserAction::Cancel && need(spec.action, states) == NextStep::Nothing) {
        return Ok((states, true));
    }
    match mount.has_action(fid) {
        // It may have ended between the two calls.
        Ok(false) => Ok((mount.states_of(fid)?, false)),
        Ok(true) => Ok((states, true)),
        // An old library: only the states tell.
        Err(error) if error.class() == ErrorClass::Unsupported => Ok((states, true)),
        Err(error) => Err(error),
    }
}
