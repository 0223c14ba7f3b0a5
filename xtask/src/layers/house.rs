//! The rooms of `src/`, from the ground to the roof: the one place that says their order.

/// A module at the top of the crate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
}

/// Each room may stand on those before it.
pub(super) type Wing = &'static [Room];

/// Each wing may stand on all floors below, and knows nothing of the others beside it.
pub(super) type Floor = &'static [Wing];

const fn room(name: &'static str, what: &'static str) -> Room {
    Room { name, what }
}

pub(super) const HOUSE: &[Floor] = &[
    &[&[
        room("sync", "what threads share, wait with and read the time by"),
        room("measure", "what is counted while work goes on"),
        room("thread", "the one kind of thread, and what guards its work"),
        room("types", "the words of the trade: FIDs, archive ids, errnos, MDTs"),
        room(
            "action",
            "what all say about an action, and the two traits that the border to Lustre implements",
        ),
        room("fleet", "what movers tell of themselves, and asking them"),
        room("database", "an embedded database in a file"),
    ]],
    &[
        &[room("lustre", "the border to the kernel, the only place with `unsafe`")],
        &[room("store", "the border to S3, the only place with the SDK")],
    ],
    &[&[
        room(
            "transfer",
            "one file's bytes between an open file and an object, and the one retry loop",
        ),
        room(
            "mislaid",
            "which object is a file's copy where the file's record does not name it",
        ),
        room(
            "mapped",
            "which object is a file's copy: by its record, or by its FID's key",
        ),
    ]],
    &[
        &[
            room("journal", "what outlives files and daemons"),
            room("ledger", "the copy of it that other movers read"),
            room("queue", "who runs next, in the one table of live actions"),
            room("worker", "one action from begin to verdict"),
            room(
                "intake",
                "what arrives becomes a job, a cancel or a refusal; heartbeats",
            ),
            room("telemetry", "what the daemon tells: log, metrics, status"),
            room(
                "config",
                "text becomes settings, which are made of the rooms' own options",
            ),
            room("daemon", "wires all of these, and unwires them"),
        ],
        &[
            room("disk", "files that commands write: reports, and what they go on from"),
            room("walk", "a tree, read directory by directory"),
            room(
                "ranges",
                "what is being listed of a bucket: ranges of keys, each with how far it is done",
            ),
            room("nodes", "directories and symlinks as objects"),
            room(
                "import",
                "import and prune: a bucket becomes a namespace of released files",
            ),
            room("jobs", "bulk jobs"),
            room("scrub", "files against the bucket, objects against files"),
            room("rebind", "records of objects that other tools copied"),
            room("follow", "a bucket that follows the changelogs"),
        ],
    ],
    &[&[room("cli", "one file a command")]],
];
