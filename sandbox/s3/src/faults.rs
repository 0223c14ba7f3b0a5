//! The ways in which the server misbehaves on demand. All of them can be switched while it runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use s3s::{S3Error, S3ErrorCode};

use crate::gate::Gate;
use crate::tricks::{Planned, Trick, cut};

/// What is done to one body that is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spoil {
    pub(crate) flip: bool,
    pub(crate) cut_after: Option<u64>,
}

#[derive(Debug)]
struct Failure {
    op: String,
    status: u16,
    code: String,
    times: u32,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    hang: Option<Gate>,
    gates: Vec<Gate>,
    slow: Vec<(String, Duration)>,
    failures: Vec<Failure>,
    cuts: Vec<(u64, u32)>,
    flips: u32,
    pub(crate) tricks: Vec<Planned>,
}

/// The switches of the faults of a server.
///
/// Operations go by their S3 names (`PutObject`, `UploadPart`, …), and `*` stands for each of them. A request is
/// counted first, then held, then slowed, then failed; the faults of bodies come last.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

impl Faults {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While on, connections are accepted and requests are read, and none is answered. Off, those held go on as if
    /// nothing had happened.
    pub fn hang(&self, on: bool) {
        let mut state = self.state();
        if !on {
            if let Some(gate) = state.hang.take() {
                gate.release();
            }
        } else if state.hang.is_none() {
            state.hang = Some(Gate::new("*"));
        }
    }

    /// The gate at which requests hang, to wait for them; `None` when [`hang`](Self::hang) is off.
    #[must_use]
    pub fn hanging(&self) -> Option<Gate> {
        self.state().hang.clone()
    }

    /// The next `times` requests of `op` are answered with this error. Their bodies are read and thrown away, so that
    /// the client gets to see the answer. With a status of 200 the error is only in the body, as S3 answers a
    /// `CompleteMultipartUpload` that it had said yes to before it failed.
    pub fn fail(&self, op: &str, status: u16, code: &str, times: u32) {
        let failure = Failure {
            op: op.to_owned(),
            status,
            code: code.to_owned(),
            times,
        };
        self.state().failures.push(failure);
    }

    /// Requests of `op` are served after this delay; zero takes it away.
    pub fn slow(&self, op: &str, delay: Duration) {
        let mut state = self.state();
        state.slow.retain(|(slow, _)| slow != op);
        if !delay.is_zero() {
            state.slow.push((op.to_owned(), delay));
        }
    }

    /// Requests of `op` wait, unserved, until the gate is released.
    #[must_use]
    pub fn hold(&self, op: &str) -> Gate {
        let gate = Gate::new(op);
        let mut state = self.state();
        state.gates.retain(|gate| !gate.is_open());
        state.gates.push(gate.clone());
        gate
    }

    /// The same, after so many requests that pass.
    pub fn hold_after(&self, op: &str, free: u32) -> Gate {
        let gate = Gate::new(op).after(free);
        self.state().gates.push(gate.clone());
        gate
    }

    /// The bodies of the next `times` answers to `op` end after so many bytes, with the connection: only `GetObject`
    /// (or `*`) has a body to cut, others are ignored.
    pub fn truncate_body(&self, op: &str, after_bytes: u64, times: u32) {
        if matches(op, "GetObject") {
            self.state().cuts.push((after_bytes, times));
        }
    }

    /// One bit is wrong in each of the next `times` bodies that `GetObject` sends; empty ones do not count.
    pub fn corrupt_body(&self, times: u32) {
        self.state().flips += times;
    }

    /// Ends all faults and releases what they held.
    pub fn clear(&self) {
        let state = std::mem::take(&mut *self.state());
        for gate in state.gates.iter().chain(&state.hang) {
            gate.release();
        }
    }

    /// Where a request waits while the server hangs.
    pub(crate) async fn pass_hang(&self) {
        // A second hang may have begun by the time the first is over.
        while let Some(gate) = self.hanging().filter(|gate| !gate.is_open()) {
            gate.pass().await;
        }
    }

    /// What a request of `op` goes through before it is served.
    pub(crate) async fn enter(&self, op: &str) -> Result<(), S3Error> {
        let gates: Vec<Gate> = {
            let mut state = self.state();
            state.gates.retain(|gate| !gate.is_open());
            state
                .gates
                .iter()
                .filter(|gate| matches(gate.op(), op))
                .cloned()
                .collect()
        };
        for gate in gates {
            gate.pass().await;
        }
        let delay = self
            .state()
            .slow
            .iter()
            .filter(|(slow, _)| matches(slow, op))
            .map(|(_, delay)| *delay)
            .sum();
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        self.failure(op).map_or(Ok(()), Err)?;
        if self.plays(Trick::Reset, op) {
            return Err(cut());
        }
        Ok(())
    }

    fn failure(&self, op: &str) -> Option<S3Error> {
        let mut state = self.state();
        state.failures.retain(|failure| failure.times > 0);
        let failure = state.failures.iter_mut().find(|failure| matches(&failure.op, op))?;
        failure.times -= 1;
        let code = S3ErrorCode::from_bytes(failure.code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
        let mut error = S3Error::with_message(code, "A fault of the sandbox");
        error.set_status_code(failure.status.try_into().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        Some(error)
    }

    /// What is to be done to a body of `length` bytes that `GetObject` sends.
    pub(crate) fn spoil(&self, length: u64) -> Spoil {
        let mut state = self.state();
        let flip = length > 0 && state.flips > 0;
        if flip {
            state.flips -= 1;
        }
        state.cuts.retain(|(_, times)| *times > 0);
        let cut_after = state
            .cuts
            .iter_mut()
            .find(|(after, _)| *after < length)
            .map(|(after, times)| {
                *times -= 1;
                *after
            });
        Spoil { flip, cut_after }
    }
}

pub(crate) fn matches(pattern: &str, op: &str) -> bool {
    pattern == "*" || pattern == op
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fails_as_often_as_asked() {
        let faults = Faults::default();
        faults.fail("PutObject", 503, "SlowDown", 2);
        faults.fail("*", 418, "Teapot", 1);
        let error = faults.enter("PutObject").await.unwrap_err();
        assert_eq!(
            (error.code().as_str(), error.status_code().unwrap().as_u16()),
            ("SlowDown", 503)
        );
        let error = faults.enter("GetObject").await.unwrap_err();
        assert_eq!(
            (error.code().as_str(), error.status_code().unwrap().as_u16()),
            ("Teapot", 418)
        );
        assert!(faults.enter("GetObject").await.is_ok());
        assert!(faults.enter("PutObject").await.is_err());
        assert!(faults.enter("PutObject").await.is_ok());
    }

    #[tokio::test]
    async fn clear_releases_and_forgets() {
        let faults = Faults::default();
        faults.hang(true);
        let gate = faults.hold("PutObject");
        faults.fail("*", 500, "InternalError", 9);
        faults.clear();
        assert!(gate.is_open());
        faults.pass_hang().await;
        assert!(faults.enter("PutObject").await.is_ok());
    }

    #[test]
    fn a_cut_waits_for_a_body_that_is_long_enough() {
        let faults = Faults::default();
        faults.truncate_body("GetObject", 10, 1);
        faults.corrupt_body(1);
        assert_eq!(faults.spoil(0).cut_after, None);
        assert_eq!(faults.spoil(10).cut_after, None);
        assert_eq!(faults.spoil(11).cut_after, Some(10));
        assert_eq!(faults.spoil(11).cut_after, None);
    }
}
