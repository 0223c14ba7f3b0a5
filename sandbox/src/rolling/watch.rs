//! Looks whether anything gets on, and ends a run in which nothing does.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lhsm_sandbox::Client;
use lhsm_sandbox::protocol::{ActionState, Fid, Reply, Request};

use crate::pace::Pace;
use crate::told::Told;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Nothing comes after so long. A lane of the load gives up before.
const HANGS: Duration = Duration::from_secs(180);

/// The longest time in which nothing ended while something waited. A run that hangs is ended by ending the coordinator:
/// whoever waits gets an error then.
pub(crate) fn longest_stall(mount: &Path, pace: &Pace, told: &Told, over: &AtomicBool) -> io::Result<Duration> {
    let mut client = Client::new(mount)?;
    let mut longest = Duration::ZERO;
    let (mut ended, mut since) = (0, Instant::now());
    while !over.load(Ordering::Relaxed) {
        let now: u64 = client.counters()?.ended.values().sum();
        if now != ended || client.pending()? == 0 {
            (ended, since) = (now, Instant::now());
        } else {
            longest = longest.max(since.elapsed());
        }
        if since.elapsed() > HANGS {
            let error = format!("nothing ended for {} s", HANGS.as_secs());
            told.tell(&error);
            tell_waiting(&mut client, told)?;
            pace.stop();
            client.ask(&Request::Stop)?;
            return Err(io::Error::other(error));
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(longest)
}

fn tell_waiting(client: &mut Client, told: &Told) -> io::Result<()> {
    for action in client.actions()? {
        if matches!(action.state, ActionState::Waiting | ActionState::Started) {
            told.tell(format_args!("{} hangs: {action:?}", shown(client, action.fid)));
        }
    }
    Ok(())
}

/// A FID with its path, if it has one.
pub(crate) fn shown(client: &mut Client, fid: Fid) -> String {
    match client.ask(&Request::PathOf(fid, 0)) {
        Ok(Reply::Path(path, _)) => {
            format!("{fid} '{}'", String::from_utf8_lossy(&path))
        }
        _ => fid.to_string(),
    }
}
