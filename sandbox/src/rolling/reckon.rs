//! What became of it all.

use std::io;
use std::time::{Duration, Instant};

use lhsm_sandbox::Client;
use lhsm_sandbox::protocol::{Action, ActionState};
use lhsm_sandbox_s3::Server;

use crate::told::Told;
use crate::tree;
use crate::watch::shown;
use crate::world::BUCKET;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// What a run ends with.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) movers: u32,
    pub(crate) files: u32,
    pub(crate) reads: u32,
    /// Files that are ARCHIVED and whose object has their bytes.
    pub(crate) archived: usize,
    pub(crate) read: usize,
    pub(crate) failed_reads: usize,
    pub(crate) failed_actions: usize,
    pub(crate) longest_stall: Duration,
    /// The release that a mover was upgraded from, or `same`.
    pub(crate) former: String,
    pub(crate) turns: u32,
    pub(crate) seconds: f64,
}

impl Outcome {
    pub(crate) fn json(&self) -> String {
        format!(
            "{{\"movers\":{},\"archived\":{},\"read\":{},\"failed_reads\":{},\"failed_actions\":{},\
             \"longest_stall_ms\":{},\"former\":{}}}",
            self.movers,
            self.archived,
            self.read,
            self.failed_reads,
            self.failed_actions,
            self.longest_stall.as_millis(),
            serde_json::Value::from(self.former.as_str())
        )
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "{} movers, {} times one of them restarted, upgraded (from {}) or drained, in {:.0} s: {} of {} files archived, {} \
             of {} read; {} reads and {} actions failed; nothing ended for {} ms at most while something waited",
            self.movers,
            self.turns,
            self.former,
            self.seconds,
            self.archived,
            self.files,
            self.read,
            self.reads,
            self.failed_reads,
            self.failed_actions,
            self.longest_stall.as_millis()
        )
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.failed_reads == 0
            && self.failed_actions == 0
            && (self.archived, self.read) == (self.files as usize, self.reads as usize)
    }
}

/// Actions that did not end as they were asked for; each is told.
pub(crate) fn failed_actions(client: &mut Client, told: &Told) -> io::Result<usize> {
    let until = Instant::now() + PATIENCE;
    while client.pending()? > 0 && Instant::now() < until {
        std::thread::park_timeout(LOOK);
    }
    let mut failed = 0;
    for action in client.actions()? {
        // An ECANCELED that nobody asked for is SUCCEED in the coordinator's log.
        let is_good = action.state == ActionState::Succeed && action.errval == 0;
        if !is_good && action.action != Action::Cancel {
            failed += 1;
            told.tell(format_args!(
                "{} did not end well: {action:?}",
                shown(client, action.fid)
            ));
        }
    }
    Ok(failed)
}

/// Files whose object has their bytes; each other one is told.
pub(crate) fn whole_copies(store: &Server, files: u32, told: &Told) -> usize {
    let is_whole = |number: &u32| {
        let key = tree::name(*number);
        let wrong = match store.object_body(BUCKET, &key) {
            Some(body) => tree::difference(*number, &body),
            None => Some("there is none".to_owned()),
        };
        if let Some(wrong) = &wrong {
            told.tell(format_args!("the object '{key}': {wrong}"));
        }
        wrong.is_none()
    };
    (0..files).filter(is_whole).count()
}
