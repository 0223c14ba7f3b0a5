//! A sandbox and a daemon on the store under test.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use lhsm_sandbox::process::{self, Daemon, Spawn};
use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox::{Client, Mdt, Options};
use tempfile::TempDir;

use crate::store::Store;

/// Ends a test that hangs; no test is timed by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Small parts, so that there are several, and news of them often.
const BRISK: &str = "progress = '200ms'\n[workers]\nthreads = 8\n[transfer]\nmultipart_threshold = '5MiB'\n\
                     part_size = '5MiB'\n";

pub(crate) struct World {
    daemon: Option<Daemon>,
    pub(crate) client: Client,
    _mdt: Mdt,
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
    endpoint: String,
    /// What stands between what `[lustre]` must have and the archive.
    settings: &'static str,
    more: String,
}

impl World {
    pub(crate) fn new(store: Store) -> Self {
        let endpoint = store.endpoint.clone();
        Self::at(store, &endpoint, "")
    }

    /// With nothing set that has a default.
    pub(crate) fn with_defaults(store: Store) -> Self {
        let endpoint = store.endpoint.clone();
        let mut world = Self::without_daemon(store, &endpoint, "");
        world.settings = "";
        world.start();
        world
    }

    /// `more`: of the `[[archive]]` section.
    pub(crate) fn at(store: Store, endpoint: &str, more: &str) -> Self {
        let mut world = Self::without_daemon(store, endpoint, more);
        world.start();
        world
    }

    pub(crate) fn without_daemon(store: Store, endpoint: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("lustre");
        let mdt = Mdt::start(Options {
            tick: Duration::from_millis(2),
            ..Options::new(&mount)
        })
        .unwrap();
        Self {
            daemon: None,
            client: Client::new(&mount).unwrap(),
            _mdt: mdt,
            store,
            dir,
            endpoint: endpoint.to_owned(),
            settings: BRISK,
            more: more.to_owned(),
        }
    }

    pub(crate) fn mount(&self) -> PathBuf {
        self.dir.path().join("lustre")
    }

    fn spawn(&self) -> Spawn {
        let library = process::artifact(process::LIBRARY).unwrap();
        let config = self.dir.path().join("config.toml");
        let text = format!(
            "[lustre]\nmount = '{}'\nlibrary = '{}'\nstate_dir = '{}'\n{}[[archive]]\nid = 1\nbucket = '{}'\n\
             prefix = '{}'\nendpoint_url = '{}'\nregion = 'us-east-1'\n{}\n",
            self.mount().display(),
            library.display(),
            self.dir.path().join("state").display(),
            self.settings,
            self.store.bucket,
            self.store.prefix,
            self.endpoint,
            self.more
        );
        process::replace(&config, &text).unwrap();
        Spawn {
            program: process::artifact("lhsmtool-s3").unwrap(),
            library,
            config,
            log: Some(self.dir.path().join("daemon.log")),
            environment: vec![
                ("AWS_ACCESS_KEY_ID".into(), self.store.key.clone()),
                ("AWS_SECRET_ACCESS_KEY".into(), self.store.secret.clone()),
            ],
        }
    }

    pub(crate) fn start(&mut self) {
        self.daemon = Some(self.spawn().start().unwrap());
        let registered = self.client.wait_agents(1, PATIENCE).unwrap();
        assert!(registered, "not registered; the log:\n{}", self.log());
    }

    /// As by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.spawn().command(arguments).output().unwrap()
    }

    pub(crate) fn file(&mut self, name: &str, content: &[u8]) -> Fid {
        let path = self.mount().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.client.fid(&path).unwrap()
    }

    pub(crate) fn act(&mut self, action: Action, fid: Fid) -> u32 {
        self.act_on(action, &[fid]);
        self.client.state(fid).unwrap().states
    }

    /// The same for many at a time.
    pub(crate) fn act_on(&mut self, action: Action, fids: &[Fid]) {
        self.client.request(action, 0, fids).unwrap();
        let ended = self.client.wait(fids, PATIENCE).unwrap();
        assert!(ended, "{fids:?} are not all ended; the log:\n{}", self.log());
    }

    #[track_caller]
    pub(crate) fn archive(&mut self, fid: Fid) {
        let state = self.act(Action::Archive, fid);
        assert_eq!(state, states::EXISTS | states::ARCHIVED, "the log:\n{}", self.log());
    }

    /// Gives the data up and gets it back.
    #[track_caller]
    pub(crate) fn assert_comes_back(&mut self, name: &str, fid: Fid, content: &[u8]) {
        self.client.release_closed(fid, PATIENCE).unwrap();
        let state = self.act(Action::Restore, fid);
        assert_eq!(state & states::RELEASED, 0, "the log:\n{}", self.log());
        assert!(
            std::fs::read(self.mount().join(name)).unwrap() == content,
            "'{name}' differs"
        );
    }
}

/// Bytes that repeat nowhere soon.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut noise = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    noise
}
