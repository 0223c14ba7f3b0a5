//! What goes wrong when a test asks for it.

use serde::{Deserialize, Serialize};

use crate::Fid;

/// What a copytool does on the way to an action's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// `LL_IOC_HSM_COPY_START`
    Begin,
    /// It sets an attribute of the file.
    Map,
    /// It removes one, or changes the file's states.
    Unmap,
    /// `LL_IOC_FUTIMES_3` on a restore's file, the last before the end
    Times,
    /// `LL_IOC_HSM_COPY_END`
    End,
}

/// What goes wrong when asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The next messages are written in pieces of so many bytes; 0 ends it.
    Fragment(usize),
    /// The next `n` messages are sent twice.
    Duplicate(u32),
    /// Garbage is written to each agent's pipe.
    Garbage(Vec<u8>),
    /// Each agent's pipe is closed by the kernel's side.
    ClosePipes,
    /// The next `n` ends of any action answer this errno without being taken.
    EndErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` begins fail with this errno before anything was done.
    BeginErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` fsyncs of a restore's file fail with this errno.
    SyncErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` times that a restore's file gets its times fail with this errno.
    TimesErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` changes of a `trusted.*` attribute are refused with this errno.
    XattrErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// A write of another client's comes late: when the next action of the file has ended, and before anybody hears of that
    /// end, it changes the attribute.
    LateXattr {
        /// The file.
        fid: Fid,
        /// The attribute.
        name: String,
        /// What it is then; `None`: it is gone.
        value: Option<Vec<u8>>,
    },
    /// The next `n` reads of an archive's file fail with this errno, as on a client that was evicted.
    ReadErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The next `n` writes to a restore's file fail with this errno.
    WriteErrno {
        /// What the call answers.
        errno: i32,
        /// How many times in a row.
        times: u32,
    },
    /// The copytool that next does this is killed (SIGKILL), before it is done or right after.
    Kill {
        /// The step at which it dies.
        step: Step,
        /// It dies before the step is done, else right after it.
        before: bool,
    },
    /// The node of the copytool that next does this is cut off, just before the call arrives.
    Cut(Step),
    /// A cancel for an action that nobody has.
    StrayCancel,
    /// All actions out at copytools are forgotten and restores sent again, as after an MDT's restart.
    Restart,
    /// The same of one MDT.
    RestartOf(u32),
    /// The same of the MDT of the next restore that ends, behind its copytool's last look at what it has written: it has been
    /// sent again when the end comes.
    RestartAtEnd,
    /// So many archives of files that do not exist, as fast as the pipes take them and without a record.
    Flood(u64),
    /// An action with a number that no verb has, for the file.
    UnknownAction(Fid),
    /// The records of all changelogs are gone before they were read.
    ForgetChanges,
    /// The next `n` reads of an MDT's changelog fail with this errno; those of the others don't.
    ChangelogErrno {
        /// Whose.
        mdt: u32,
        /// Answer.
        errno: i32,
        /// How many.
        times: u32,
    },
    /// An MDT drops a reader of its changelog, as one that was idle for too long; what others need stays.
    DropReader(u32, String),
    /// Each call of a copytool or a command takes so many milliseconds from now on; 0 ends it. The process that the
    /// sandbox is part of is answered at once.
    Slow(u64),
    /// These MDTs answer no copytool and no command from now on, all others do: who asks one about its files, or all of
    /// them by registering, waits until it answers again. The process that the sandbox is part of is answered.
    Silent(Vec<u32>),
    /// These MDTs have no room for new files from now on (ENOSPC), all others do.
    Full(Vec<u32>),
    /// Whether the MDTs answer no copytool and no command: whoever asks waits, as in the kernel, until it is over. The
    /// process that the sandbox is part of is answered.
    Silence(bool),
}
