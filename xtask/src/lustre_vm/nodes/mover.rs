//! A mover on one of the nodes: its settings, its start, what it says of itself.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::beside::HOST;
use super::super::guest::Guest;
use super::super::store::Store;
use super::load;

const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);
const SETTINGS: &str = "/share/lhsm/two-nodes.toml";
/// It must outlive the node, and be read while nobody can ask the node: hence on the share.
const LOG: &str = "mover.log";
const SERVES: &str = "registered; serving";

/// One, on the node of that number.
#[derive(Debug)]
pub(super) struct Mover<'a> {
    guest: &'a Guest,
    node: u32,
}

impl<'a> Mover<'a> {
    /// Puts its settings there, and those of the commands; nothing of a former run is left of it. The ports are its ways to
    /// the store and to the ledger.
    pub(super) fn new(guest: &'a Guest, node: u32, store: &Store, ports: (u16, u16)) -> Result<Self, String> {
        let share = guest.share().join("lhsm");
        std::fs::create_dir_all(&share).map_err(|error| format!("'{}': {error}", share.display()))?;
        let keys = format!(
            "export AWS_ACCESS_KEY_ID='{}' AWS_SECRET_ACCESS_KEY='{}' AWS_EC2_METADATA_DISABLED=true\n",
            store.key, store.secret
        );
        let files = [
            ("two-nodes.toml", settings(node, &store.bucket, ports)),
            ("two-nodes.env", keys),
            ("load.py", load::PROGRAM.to_owned()),
            (LOG, String::new()),
        ];
        for (name, text) in files {
            let path = share.join(name);
            let file = std::fs::File::options()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|error| format!("'{}': {error}", path.display()))?;
        }
        let mover = Self { guest, node };
        // What was installed, too: it must be there after a power failure.
        mover.guest.ask(
            "clean",
            "pkill -x lhsmtool-s3; for n in $(seq 100); do pgrep -x lhsmtool-s3 >/dev/null || break; sleep 0.3; done\n\
             rm -rf /var/lib/lhsm-two-nodes; sync",
        )?;
        Ok(mover)
    }

    /// Runs one of our commands there.
    pub(super) fn ours(&self, name: &str, arguments: &str) -> Result<String, String> {
        let script = format!(". /share/lhsm/two-nodes.env\nlhsmtool-s3 --config {SETTINGS} {arguments}");
        self.guest.ask(name, &script)
    }

    /// Started, if it does not run, and registered.
    pub(super) fn serve(&self) -> Result<(), String> {
        // The number may be another process's: of a machine that had no time to forget it.
        let runs = "kill -0 $(cat /run/lhsm-two-nodes.pid 2>/dev/null) 2>/dev/null && echo runs; true";
        if self.guest.ask("mover-runs", runs)?.contains("runs") {
            return Ok(());
        }
        let before = self.log().matches(SERVES).count();
        let start = format!(
            ". /share/lhsm/two-nodes.env\n\
             setsid -f bash -c 'echo $$ >/run/lhsm-two-nodes.pid; exec lhsmtool-s3 --config {SETTINGS}' \
             </dev/null >>/share/lhsm/{LOG} 2>&1"
        );
        self.guest.ask("mover-start", &start)?;
        let began = Instant::now();
        while self.log().matches(SERVES).count() == before {
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "the mover of node {} does not register in {} s; its log ends with\n{}",
                    self.node,
                    PATIENCE.as_secs(),
                    self.last_lines()
                ));
            }
            std::thread::park_timeout(POLL);
        }
        Ok(())
    }

    /// Ends it in order, if it runs.
    pub(super) fn end(&self) -> Result<(), String> {
        let script = "pkill -TERM -x lhsmtool-s3; for n in $(seq 200); do pgrep -x lhsmtool-s3 >/dev/null || exit 0; \
                      sleep 0.3; done; pkill -KILL -x lhsmtool-s3; echo it does not end; exit 1";
        self.guest.ask("mover-end", script).map(drop)
    }

    /// Where others ask it, on Lustre's network.
    pub(super) fn address(&self) -> String {
        address(self.node)
    }

    /// All that its daemons have said.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.guest.share().join("lhsm").join(LOG)
    }

    pub(super) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n")
    }
}

fn address(node: u32) -> String {
    format!("192.168.77.{node}:9818")
}

/// So slow that something is under way when it shall be; archives are taken over before a node is back that was away for
/// two minutes.
fn settings(node: u32, bucket: &str, (store, ledger): (u16, u16)) -> String {
    format!(
        "[lustre]\nmount = '/mnt/lustre'\nstate_dir = '/var/lib/lhsm-two-nodes'\n\
         keepalive = '5s'\nheartbeat = '5s'\nprogress = '5s'\n\
         [workers]\nthreads = 16\n\
         [transfer]\nmultipart_threshold = '8MiB'\npart_size = '5MiB'\n\
         [metrics]\nlisten = '{}'\n\
         [ledger]\nurl = 'postgresql://lhsm@{HOST}:{ledger}/ledger?sslmode=disable'\nname = 'node{node}'\n\
         lease = '20s'\ntakeover_archives = '30s'\n\
         [[archive]]\nid = 1\nbucket = '{bucket}'\nprefix = 'two-nodes/'\nendpoint_url = 'http://{HOST}:{store}'\n\
         region = 'us-east-1'\nupload_bandwidth = '1MiB'\ndownload_bandwidth = '1MiB'\n",
        address(node)
    )
}
