//! One dialect's world: a sandbox, a store that speaks the dialect, the daemon between them, and files that have copies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{self, Daemon, Spawn};
use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox::{Client, Mdt, Options};
use lhsm_sandbox_s3::{Config, Dialect, Server};
use tempfile::TempDir;

use crate::judge::Outcome;
use crate::table::expected;
use crate::verbs::Verb;

pub(crate) const BUCKET: &str = "lhsm-sandbox";
/// Three parts.
pub(crate) const LARGE: usize = 11 << 20;
/// What others have under a key.
pub(crate) const STRANGERS: &[u8] = b"somebody else's";
const RECORD: &str = "trusted.lhsm_s3";
/// Whatever takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at an action, and at a command.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_COMMAND: Duration = Duration::from_millis(5);
/// Keys of its own where the store says that the usual ones have expired.
const NEW_KEYS: (&str, &str) = ("renewed-access", "renewed-secret");

/// A store that is away is given up soon; pages are small, so that each listing has several.
const SETTINGS: &str = "keepalive = '1s'\nheartbeat = '500ms'\nprogress = '500ms'\n\
                        [workers]\nthreads = 12\nrestore_threads = 4\ndrain_timeout = '2s'\n\
                        on_stop = 'answer'\n\
                        [transfer]\nmultipart_threshold = '5MiB'\npart_size = '5MiB'\ngive_up_after = '1s'\n\
                        stall_timeout = '20s'\nthaw_poll = '100ms'\n";
const PAGE: usize = 2;

/// Files that have a copy before any verb is tried.
pub(crate) const AGAIN: (&str, usize) = ("r/again", 300_000);
pub(crate) const TAKEN: (&str, usize) = ("r/taken", 5_000);
pub(crate) const BACK: [(&str, usize); 2] = [("b/small", 300_000), ("b/large", LARGE)];
pub(crate) const GONE: (&str, usize) = ("g/gone", 10_000);
pub(crate) const KEPT: [(&str, usize); 6] = [
    ("keep/v", 10),
    ("keep/w", 0),
    ("keep/x", 10_000),
    ("keep/y", 300_000),
    ("keep/z/1", 10),
    ("keep/z+", 10),
];
pub(crate) const LOST: (&str, usize) = ("lost/one", 1000);

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(crate) struct World {
    // In the order in which they must end.
    daemon: Option<Daemon>,
    pub(crate) client: Client,
    pub(crate) store: Server,
    /// The store runs on it.
    _runtime: tokio::runtime::Runtime,
    _mdt: Mdt,
    pub(crate) mount: PathBuf,
    pub(crate) dialect: Dialect,
    spawn: Spawn,
    /// What the daemon said when it did not start.
    pub(crate) refusal: Option<String>,
    /// Keys that can be read once a thaw was asked for.
    frozen: Vec<String>,
    dir: TempDir,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None`: it did not end, or a signal ended it.
    code: Option<i32>,
    pub(crate) stdout: String,
    words: String,
}

impl Ran {
    pub(crate) fn is_done(&self) -> bool {
        self.code == Some(0)
    }

    /// A counter of the line of JSON at the end.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        let line: serde_json::Value = serde_json::from_str(self.stdout.lines().last()?).ok()?;
        line.get(name)?.as_u64()
    }

    /// What a refusal is worth.
    pub(crate) fn refused(&self) -> Outcome {
        match self.code {
            None => Outcome::Broken("it does not end, or was ended by a signal".into()),
            Some(101) => Outcome::Broken(format!("it panics: {}", self.words)),
            Some(code) if self.words.is_empty() => Outcome::Broken(format!("exit code {code} without a word")),
            Some(_) => Outcome::Told(self.words.clone()),
        }
    }
}

impl World {
    /// With the dialect on, the daemon at work (or why not), and all files that need a copy having one.
    pub(crate) fn new(dialect: Dialect) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lhsm-dialects-").tempdir()?;
        let mount = dir.path().join("lustre");
        let mdt = Mdt::start(Options {
            tick: Duration::from_millis(2),
            // Restored by name: what a read would say of a refusal is not looked at.
            restore_on_read: Some(false),
            ..Options::new(&mount)
        })?;
        let runtime = tokio::runtime::Runtime::new()?;
        let store = runtime.block_on(Server::start(Config {
            data_dir: Some(dir.path().to_owned()),
            list_page: PAGE,
            ..Config::default()
        }))?;
        let client = Client::new(&mount)?;
        let mut spawn = Spawn::between(dir.path(), &mount, &store, BUCKET, SETTINGS)?;
        let text = fs::read_to_string(&spawn.config)?;
        process::replace(&spawn.config, &format!("{text}{}", expected(dialect).settings))?;
        if dialect == Dialect::TokenExpired400 {
            let usual = Config::default();
            write_keys(dir.path(), (&usual.access_key, &usual.secret_key))?;
            let file = keys_file(dir.path()).display().to_string();
            spawn.environment = vec![("AWS_SHARED_CREDENTIALS_FILE".into(), file)];
        }
        let mut world = Self {
            daemon: None,
            client,
            store,
            _runtime: runtime,
            _mdt: mdt,
            mount,
            dialect,
            spawn,
            refusal: None,
            frozen: Vec::new(),
            dir,
        };
        world.prepare()?;
        Ok(world)
    }

    /// Under the dialect itself where archives work there; else by a store that speaks S3 for so long.
    fn prepare(&mut self) -> Result<()> {
        let mut fids = Vec::new();
        for (name, size) in [AGAIN, TAKEN, GONE, LOST].iter().chain(&BACK).chain(&KEPT) {
            fids.push(self.create(name, *size)?);
        }
        self.store.dialects().set(&[self.dialect]);
        let serves = self.start()?;
        if serves && !expected(self.dialect).told.contains(&Verb::Archive) {
            self.archive(&fids)?;
        } else {
            self.store.dialects().clear();
            if !serves {
                self.refusal = Some(self.last_words());
                if !self.start()? {
                    return Err(format!("the daemon does not register: {}", self.last_words()).into());
                }
            }
            self.archive(&fids)?;
            if !serves {
                self.stop()?;
            }
            self.store.dialects().set(&[self.dialect]);
        }
        if self.dialect == Dialect::TokenExpired400 {
            self.store.expire_token(&Config::default().access_key);
            self.store.set_keys(NEW_KEYS.0, NEW_KEYS.1);
            write_keys(self.dir.path(), NEW_KEYS)?;
        }
        Ok(())
    }

    fn archive(&mut self, fids: &[Fid]) -> Result<()> {
        let told = self.act(Action::Archive, fids)?;
        match told.iter().find(|told| **told != Some(0)) {
            None => Ok(()),
            Some(errno) => Err(format!(
                "files can't be archived to begin with ({errno:?}): {}",
                self.last_words()
            )
            .into()),
        }
    }

    /// `false`: it has ended by itself.
    fn start(&mut self) -> Result<bool> {
        let mut daemon = self.spawn.start()?;
        let until = Instant::now() + LIMIT;
        while daemon.is_running() {
            if self.client.wait_agents(1, LOOK)? {
                self.daemon = Some(daemon);
                return Ok(true);
            }
            if Instant::now() >= until {
                return Err("the daemon neither registers nor ends".into());
            }
        }
        Ok(false)
    }

    /// Ends the daemon, if there is one.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(LIMIT)?;
        }
        Ok(())
    }

    /// Of the daemon's log.
    fn last_words(&self) -> String {
        let log = self.spawn.log.as_deref().unwrap_or(Path::new(""));
        last_line(&fs::read_to_string(log).unwrap_or_default())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Makes a file with the content of that name.
    pub(crate) fn create(&mut self, name: &str, size: usize) -> io::Result<Fid> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content(name, size))?;
        self.client.fid(&path)
    }

    pub(crate) fn fid(&mut self, name: &str) -> io::Result<Fid> {
        self.client.fid(&self.path(name))
    }

    /// Its copytool may have it open for a moment still.
    pub(crate) fn release(&mut self, fid: Fid) -> io::Result<()> {
        self.client.release_closed(fid, LIMIT)
    }

    pub(crate) fn is_released(&mut self, fid: Fid) -> io::Result<bool> {
        Ok(self.client.state(fid)?.states & states::RELEASED != 0)
    }

    /// Puts an object of others there, by the back door.
    pub(crate) fn put_strangers(&self, key: &str) {
        self.store.put(BUCKET, key, STRANGERS, BTreeMap::new());
    }

    /// Makes an object unreadable until its thaw was asked for, where the dialect has such a thing.
    pub(crate) fn freeze(&mut self, key: &str) {
        let frozen = match self.dialect {
            Dialect::Cold => self.store.set_class(BUCKET, key, "GLACIER"),
            Dialect::TieringNoDays => self.store.set_archive_status(BUCKET, key, "ARCHIVE_ACCESS"),
            _ => false,
        };
        if frozen {
            self.frozen.push(key.to_owned());
        }
    }

    /// Requests an action for files and waits; the errno that the coordinator was told of each, `None` for one that hangs.
    pub(crate) fn act(&mut self, action: Action, fids: &[Fid]) -> io::Result<Vec<Option<i32>>> {
        let thaws = self.store.stats().count("RestoreObject");
        self.client.request(action, 1, fids)?;
        let until = Instant::now() + LIMIT;
        while !self.client.wait(fids, LOOK)? && Instant::now() < until {
            if self.store.stats().count("RestoreObject") > thaws {
                for key in self.frozen.drain(..) {
                    self.store.thaw(BUCKET, &key);
                }
            }
        }
        let actions = self.client.actions()?;
        let told = |fid: &Fid| {
            let mut latest = actions.iter().rev();
            let action = latest.find(|one| one.fid == *fid && one.action == action)?;
            (action.ends > 0).then_some(action.errval)
        };
        Ok(fids.iter().map(told).collect())
    }

    /// The bytes of the object that a file's record names.
    pub(crate) fn copy(&mut self, fid: Fid) -> Option<Vec<u8>> {
        let record = self.client.xattr(fid, RECORD).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        self.store.object_body(BUCKET, record.get("key")?.as_str()?)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let objects = self.store.objects(BUCKET);
        objects.into_iter().map(|object| object.key).collect()
    }

    /// One of our commands, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let (out, err) = (self.dir.path().join("stdout"), self.dir.path().join("stderr"));
        let mut command = self.spawn.command(arguments);
        command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child = command.spawn()?;
        let until = Instant::now() + LIMIT;
        let code = loop {
            if let Some(status) = child.try_wait()? {
                break status.code();
            }
            if Instant::now() >= until {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::park_timeout(LOOK_COMMAND);
        };
        let stdout = fs::read_to_string(&out)?;
        let mut words = last_line(&fs::read_to_string(&err)?);
        if words.is_empty() {
            words = last_line(&stdout);
        }
        Ok(Ran { code, stdout, words })
    }
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().to_owned()
}

fn keys_file(dir: &Path) -> PathBuf {
    dir.join("credentials")
}

fn write_keys(dir: &Path, (access, secret): (&str, &str)) -> io::Result<()> {
    let text = format!("[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n");
    process::replace(&keys_file(dir), &text)
}

/// Bytes that a name stands for, and that repeat nowhere soon.
pub(crate) fn content(name: &str, size: usize) -> Vec<u8> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut state = seed | 1;
    let mut bytes = vec![0; size];
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(state.to_le_bytes().get(..word.len()).unwrap_or_default());
    }
    bytes
}
