//! A sandbox, a store and the daemon between them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{self, Daemon, Spawn};
use lhsm_sandbox::protocol::{Action, Fid, FileState, states};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Server};
use tempfile::TempDir;

/// Between two looks at what comes soon.
const LOOK: Duration = Duration::from_millis(2);
/// Ends a test that hangs; no test is timed by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const BUCKET: &str = "lhsm-sandbox";

pub(crate) struct Rig {
    // In the order in which they must end.
    pub(crate) daemon: Option<Daemon>,
    pub(crate) client: Client,
    pub(crate) store: Server,
    /// The store runs on it.
    _runtime: tokio::runtime::Runtime,
    pub(crate) mdt: Mdt,
    pub(crate) dir: TempDir,
    settings: String,
    replaced: Vec<(String, String)>,
}

/// What differs from the usual rig.
pub(crate) struct Setup {
    pub(crate) settings: String,
    pub(crate) archives: String,
    pub(crate) store: Config,
    pub(crate) max_requests: usize,
    pub(crate) mdts: u32,
    pub(crate) archive_bits: bool,
    pub(crate) start_once: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: "[workers]\nthreads = 8\nrestore_threads = 2\n[transfer]\nmultipart_threshold = '5MiB'\npart_size = '5MiB'\n".into(),
            archives: "[[archive]]\nid = 1\nbucket = 'lhsm-sandbox'\n".into(),
            store: Config::default(),
            max_requests: 1000,
            mdts: 1,
            archive_bits: false,
            start_once: false,
        }
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    /// With the daemon registered.
    pub(crate) fn with(setup: Setup) -> Self {
        let mut rig = Self::without_daemon(setup);
        rig.start();
        rig
    }

    pub(crate) fn without_daemon(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("lustre");
        let mdt = Mdt::start(Options {
            max_requests: setup.max_requests,
            mdts: setup.mdts,
            archive_bits: setup.archive_bits,
            start_once: setup.start_once,
            tick: Duration::from_millis(2),
            ..Options::new(&mount)
        })
        .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = runtime
            .block_on(Server::start(Config {
                data_dir: Some(dir.path().to_owned()),
                ..setup.store
            }))
            .unwrap();
        let archives = setup.archives.replace(
            "[[archive]]",
            &format!("[[archive]]\nendpoint_url = '{}'", store.endpoint()),
        );
        let client = Client::new(&mount).unwrap();
        Self {
            daemon: None,
            client,
            store,
            _runtime: runtime,
            mdt,
            dir,
            settings: format!("{}{archives}", setup.settings),
            replaced: Vec::new(),
        }
    }

    pub(crate) fn mount(&self) -> PathBuf {
        self.dir.path().join("lustre")
    }

    /// The name of a second client on this node: no other test's, for the daemons of a node know each other by it.
    pub(crate) fn second_client(&self) -> String {
        format!("{}/second", self.dir.path().display())
    }

    /// How a second daemon would be started, on another node as the coordinator sees it and with a state directory of its own;
    /// its log.
    pub(crate) fn second_mover(&self) -> (Spawn, PathBuf) {
        let mut spawn = self.spawn();
        let config = std::fs::read_to_string(&spawn.config).unwrap();
        let (state, log) = (self.dir.path().join("state"), self.dir.path().join("second.log"));
        let other = self.dir.path().join("state-of-second");
        let config = config.replace(&format!("'{}'", state.display()), &format!("'{}'", other.display()));
        spawn.config = self.dir.path().join("second.toml");
        process::replace(&spawn.config, &config).unwrap();
        spawn.log = Some(log.clone());
        spawn
            .environment
            .push(("LHSM_SANDBOX_CLIENT".into(), self.second_client()));
        (spawn, log)
    }

    /// A mover by that name in the ledger, with a state directory and a log of its own, on the second mount.
    pub(crate) fn mover_called(&self, name: &str) -> Spawn {
        let (mut spawn, _) = self.second_mover();
        let config = std::fs::read_to_string(&spawn.config).unwrap();
        let config = config
            .replace("name = 'mover1'", &format!("name = '{name}'"))
            .replace("state-of-second", &format!("state-of-{name}"));
        spawn.config = self.dir.path().join(format!("{name}.toml"));
        process::replace(&spawn.config, &config).unwrap();
        spawn.log = Some(self.dir.path().join(format!("{name}.log")));
        spawn
    }

    /// Writes the configuration; how the daemon would be started with it.
    pub(crate) fn spawn(&self) -> Spawn {
        let library = process::artifact(process::LIBRARY).unwrap();
        let config = self.dir.path().join("config.toml");
        let lustre = format!(
            "mount = '{}'\nlibrary = '{}'\nstate_dir = '{}'\n",
            self.mount().display(),
            library.display(),
            self.dir.path().join("state").display()
        );
        let settings = if self.settings.contains("[lustre]\n") {
            self.settings.replace("[lustre]\n", &format!("[lustre]\n{lustre}"))
        } else {
            format!("[lustre]\n{lustre}{}", self.settings)
        };
        let settings = self
            .replaced
            .iter()
            .fold(settings, |text, (old, new)| text.replace(old, new));
        process::replace(&config, &settings).unwrap();
        let keys = Config::default();
        Spawn {
            program: process::artifact("lhsmtool-s3").unwrap(),
            library,
            config,
            log: Some(self.log_path()),
            environment: vec![
                ("AWS_ACCESS_KEY_ID".into(), keys.access_key),
                ("AWS_SECRET_ACCESS_KEY".into(), keys.secret_key),
            ],
        }
    }

    /// More sections of the configuration, for the next start.
    pub(crate) fn add_settings(&mut self, more: &str) {
        self.settings.insert_str(0, more);
    }

    /// Another text in the configuration as it is written.
    pub(crate) fn replace_settings(&mut self, old: &str, new: &str) {
        self.replaced = vec![(old.to_owned(), new.to_owned())];
    }

    pub(crate) fn start(&mut self) {
        self.daemon = Some(self.spawn().start().unwrap());
        let registered = self.client.wait_agents(1, PATIENCE).unwrap();
        assert!(registered, "not registered; the log:\n{}", self.log());
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Makes a file and gives its FID.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) -> Fid {
        let path = self.mount().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.client.fid(&path).unwrap()
    }

    /// What objects say that they are copies of files of.
    pub(crate) fn file_system(&mut self) -> String {
        let root = self.client.fid(&self.mount()).unwrap();
        let incarnation = self.client.xattr(root, "trusted.lhsm_s3_fs").unwrap();
        format!("lustre:{}", String::from_utf8(incarnation).unwrap())
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.mount().join(name)).unwrap()
    }

    /// Requests an action for one file and waits for its end.
    pub(crate) fn act(&mut self, action: Action, fid: Fid) -> FileState {
        self.client.request(action, 0, &[fid]).unwrap();
        self.settle(fid)
    }

    pub(crate) fn settle(&mut self, fid: Fid) -> FileState {
        let ended = self.client.wait(&[fid], PATIENCE).unwrap();
        assert!(ended, "{fid} is still pending; the log:\n{}", self.log());
        self.client.state(fid).unwrap()
    }

    /// Archives one file that must be archived then.
    pub(crate) fn archive(&mut self, fid: Fid) {
        let state = self.act(Action::Archive, fid);
        assert_eq!(
            state.states,
            states::EXISTS | states::ARCHIVED,
            "the log:\n{}",
            self.log()
        );
    }

    /// The keys in the bucket.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.store
            .objects(BUCKET)
            .into_iter()
            .map(|object| object.key)
            .collect()
    }

    /// Ends the daemon; its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let daemon = self.daemon.take().unwrap();
        let status = daemon.stop(PATIENCE);
        status
            .unwrap_or_else(|error| panic!("{error}; the log:\n{}", self.log()))
            .code()
    }

    /// Releases a file. A copytool that was told to stop may have it open for a moment still.
    pub(crate) fn release(&mut self, fid: Fid) {
        self.client.release_closed(fid, PATIENCE).unwrap();
    }

    /// Restores by reading where the sandbox can hold a reader, else by name; the content.
    pub(crate) fn restore(&mut self, name: &str, fid: Fid) -> Vec<u8> {
        if !self.mdt.restores_on_read() {
            self.act(Action::Restore, fid);
        }
        let content = self.read(name);
        let state = self.settle(fid);
        assert_eq!(state.states & states::RELEASED, 0, "the log:\n{}", self.log());
        content
    }

    /// Every action that was ever asked for was answered exactly once, and nothing is left in the store.
    pub(crate) fn assert_settled(&mut self) {
        assert_eq!(self.client.pending().unwrap(), 0);
        for action in self.client.actions().unwrap() {
            if action.action != Action::Cancel {
                assert_eq!(action.ends, 1, "{action:?}; the log:\n{}", self.log());
            }
        }
        assert_eq!(self.store.uploads(BUCKET), []);
    }
}

impl Drop for Rig {
    /// Whatever a test does, no key is in the log.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let log = self.log();
            assert!(
                !log.contains(&Config::default().secret_key),
                "the log has a secret:\n{log}"
            );
        }
    }
}

/// Waits for what comes soon.
#[track_caller]
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "it did not come");
        // Whatever it waits for needs the processor more than this does.
        std::thread::park_timeout(LOOK);
    }
}

/// Bytes that repeat nowhere soon.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(len)
    .collect()
}
