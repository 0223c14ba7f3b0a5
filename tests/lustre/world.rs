//! One case's directory, prefix and daemon.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{Daemon, LIBRARY, Spawn, artifact, replace};
use lhsm_sandbox::{Mdt, Options};
use lhsm_sandbox_s3::{Config, Server};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Cli;

/// An action of a few bytes on a slow virtual machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Why a case is not run here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skip(pub(crate) &'static str);

struct Stand {
    _mdt: Mdt,
    _store: Server,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) struct World {
    daemon: Option<Daemon>,
    /// One that was started with `--daemon`.
    background: Option<Pid>,
    stand: Option<Stand>,
    /// State, logs and, on the stand-in, the mount.
    local: TempDir,
    pub(crate) mount: PathBuf,
    /// Of this case, on the mount.
    pub(crate) dir: PathBuf,
    library: PathBuf,
    endpoint: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) keys: (String, String),
    /// Unmounts an MDT and mounts it again.
    pub(crate) restart_mdt: Option<String>,
    /// Whether a case may change what all users of the file system have.
    pub(crate) whole_file_system: bool,
    /// Tunables of the MDTs, to be put back.
    pub(crate) before: Vec<(String, String)>,
    /// Devices and readers of their changelogs, to be taken away.
    pub(crate) readers: Vec<(String, String)>,
    /// Of the configuration: what it has of section `[lustre]` beside places, more of `[workers]`, section `[transfer]`,
    /// other sections, more of the archive's.
    pub(crate) pace: String,
    pub(crate) workers: String,
    pub(crate) transfer: String,
    pub(crate) sections: String,
    pub(crate) archive: String,
    pub(crate) on_stop: &'static str,
    /// How long one thing may take.
    pub(crate) patience: Duration,
    scale: u64,
}

impl World {
    pub(crate) fn new(cli: &Cli, case: &str) -> Result<Self> {
        let local = tempfile::tempdir()?;
        let name = format!("lhsmtool-s3-suite-{}-{case}", std::process::id());
        let stand;
        let (mount, library, endpoint, bucket, keys);
        if cli.sandbox {
            mount = local.path().join("lustre");
            let mdt = Mdt::start(Options {
                mdts: 2,
                tick: Duration::from_millis(2),
                ..Options::new(&mount)
            })?;
            let runtime = tokio::runtime::Runtime::new()?;
            let config = Config::default();
            keys = (config.access_key.clone(), config.secret_key.clone());
            bucket = config.buckets.first().cloned().unwrap_or_default();
            let store = runtime.block_on(Server::start(config))?;
            endpoint = store.endpoint();
            library = artifact(LIBRARY)?;
            stand = Some(Stand {
                _mdt: mdt,
                _store: store,
                _runtime: runtime,
            });
        } else {
            mount = cli.mount.clone().unwrap_or_default().canonicalize()?;
            if !mount.join(".lustre/fid").is_dir() {
                return Err(format!("'{}' is not the mount point of a Lustre", mount.display()).into());
            }
            let url = cli.s3.as_deref().unwrap_or_default();
            (endpoint, bucket, keys) = parse(url).ok_or("--s3 must be http://KEY:SECRET@HOST:PORT/BUCKET")?;
            library = cli.library.clone();
            stand = None;
        }
        let dir = mount.join(&name);
        std::fs::create_dir(&dir)?;
        Ok(Self {
            daemon: None,
            background: None,
            stand,
            local,
            mount,
            dir,
            library,
            endpoint,
            bucket,
            prefix: format!("{name}/"),
            keys,
            restart_mdt: cli.restart_mdt.clone(),
            whole_file_system: cli.whole_file_system,
            before: Vec::new(),
            readers: Vec::new(),
            pace: "keepalive = '2s'\nheartbeat = '1s'\nprogress = '1s'\n".into(),
            workers: String::new(),
            transfer: "[transfer]\nmultipart_threshold = '8MiB'\npart_size = '8MiB'\n".into(),
            sections: String::new(),
            archive: String::new(),
            on_stop: "answer",
            patience: PATIENCE,
            scale: cli.scale,
        })
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A number of files, as `--scale` has it.
    pub(crate) fn scaled(&self, files: u64) -> u64 {
        (files * self.scale / 100).max(1)
    }

    /// For what a case has beside the file system.
    pub(crate) fn local(&self) -> &Path {
        self.local.path()
    }

    /// To be preloaded where programs shall see the stand-in's attributes.
    pub(crate) fn preloaded(&self) -> Option<&Path> {
        self.is_sandbox().then_some(self.library.as_path())
    }

    /// How many MDTs there are.
    pub(crate) fn mdts(&self) -> Result<usize> {
        let mount = self.mount.display().to_string();
        Ok(self.lfs(&["mdts", &mount])?.matches("-MDT").count())
    }

    /// Makes one of the case's directories on an MDT.
    pub(crate) fn directory(&self, name: &str, mdt: u32) -> Result<()> {
        let shown = self.dir.join(name).display().to_string();
        self.lfs(&["mkdir", "-i", &mdt.to_string(), &shown]).map(drop)
    }

    /// The number of the MDT that a file is on.
    pub(crate) fn mdt_of(&self, path: &Path) -> Result<u32> {
        let said = self.lfs(&["getstripe", "-m", &path.display().to_string()])?;
        let number = said.trim().parse::<u32>();
        number.map_err(|_| format!("lfs getstripe -m says '{said}'").into())
    }

    pub(crate) const fn is_sandbox(&self) -> bool {
        self.stand.is_some()
    }

    fn spawn(&self) -> Result<Spawn> {
        let config = self.local.path().join("config.toml");
        replace(
            &config,
            &format!(
                "[lustre]\nmount = '{}'\nlibrary = '{}'\nstate_dir = '{}'\n{}[workers]\nthreads = 16\non_stop = '{}'\n{}{}{}\
                 [[archive]]\nid = 1\nbucket = '{}'\nprefix = '{}'\nendpoint_url = '{}'\nregion = 'us-east-1'\n{}",
                self.mount.display(),
                self.library.display(),
                self.local.path().join("state").display(),
                self.pace,
                self.on_stop,
                self.workers,
                self.transfer,
                self.sections,
                self.bucket,
                self.prefix,
                self.endpoint,
                self.archive,
            ),
        )?;
        Ok(Spawn {
            program: artifact("lhsmtool-s3")?,
            library: if self.is_sandbox() {
                self.library.clone()
            } else {
                PathBuf::new()
            },
            config,
            log: Some(self.local.path().join("daemon.log")),
            environment: vec![
                ("AWS_ACCESS_KEY_ID".into(), self.keys.0.clone()),
                ("AWS_SECRET_ACCESS_KEY".into(), self.keys.1.clone()),
            ],
        })
    }

    /// Starts the copytool and waits until it is registered.
    pub(crate) fn start(&mut self) -> Result<()> {
        let before = self.log().matches("registered; serving").count();
        let mut daemon = self.spawn()?.start()?;
        self.until("the copytool registers", |world| {
            must(daemon.is_running(), "the copytool ended before it was registered")?;
            Ok(world.log().matches("registered; serving").count() > before)
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Starts it with `--daemon`, which comes back when it is registered; its number, by the pid file.
    pub(crate) fn start_in_background(&mut self) -> Result<Pid> {
        let pid_file = self.local.path().join("daemon.pid").display().to_string();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.local.path().join("daemon.log"))?;
        let status = self
            .under_timeout(&[], &["--daemon", "--pid-file", &pid_file])?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        must(status.success(), &format!("--daemon: {status}"))?;
        let number = std::fs::read_to_string(&pid_file)
            .map_err(|error| format!("it came back without its pid file '{pid_file}': {error}"))?;
        let pid = Pid::from_raw(number.trim().parse::<i32>()?);
        self.background = Some(pid);
        Ok(pid)
    }

    /// Ends the one in the background by a signal.
    pub(crate) fn end_background(&mut self, signal: Signal) -> Result<()> {
        let Some(pid) = self.background.take() else {
            return Ok(());
        };
        nix::sys::signal::kill(pid, signal)?;
        let stat = format!("/proc/{pid}/stat");
        self.until("the copytool in the background ends", |_| {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            // Gone, or with whoever takes orphans.
            Ok(stat.is_empty() || stat.contains(") Z "))
        })
    }

    fn under_timeout(&self, by: &[&str], arguments: &[&str]) -> Result<Command> {
        let direct = self.spawn()?.command(arguments);
        let mut command = Command::new("timeout");
        command
            .arg(self.patience.as_secs().to_string())
            .args(by)
            .arg(direct.get_program())
            .args(direct.get_args())
            .envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(command)
    }

    /// Runs the copytool by way of the command `by`, for as long as it is patient; what it said if it refused to serve.
    pub(crate) fn refusal(&self, by: &[&str], arguments: &[&str]) -> Result<String> {
        let output = self.under_timeout(by, arguments)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        must(
            output.status.code() == Some(1),
            &format!("{}; it said: {said}", output.status),
        )?;
        Ok(said)
    }

    /// As by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }

    /// As by systemd.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.daemon
            .as_ref()
            .ok_or("no copytool runs")?
            .signal(Signal::SIGTERM)?;
        self.until_ended()
    }

    /// Waits for an end that comes by itself.
    pub(crate) fn until_ended(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().ok_or("no copytool runs")?;
        Ok(daemon.wait(self.patience).map(drop)?)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.local.path().join("daemon.log")).unwrap_or_default()
    }

    /// A command of ours.
    pub(crate) fn ours(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.spawn()?.command(arguments).output()?)
    }

    /// Runs a bulk command, which says now and then how far it is; how many files it did.
    pub(crate) fn bulk(&self, verb: &str, dir: &str) -> Result<u64> {
        let mut command = self.spawn()?.command(&[verb, dir]);
        let output = command.stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        must(
            output.status.success(),
            &format!("{verb}: {}; it printed '{text}'", output.status),
        )?;
        let before = text.rsplit_once(" done (").map(|(before, _)| before);
        let number = before.and_then(|before| before.rsplit(' ').next()?.parse::<u64>().ok());
        number.ok_or_else(|| format!("{verb} printed '{text}'").into())
    }

    /// A number of the line of JSON that a command of ours prints.
    pub(crate) fn count(&self, arguments: &[&str], of: &str) -> Result<u64> {
        let output = self.ours(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().last().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(line).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("{arguments:?} printed '{text}' and '{said}'")
        })?;
        value[of]
            .as_u64()
            .ok_or_else(|| format!("no number '{of}' in {line}").into())
    }

    /// `lfs`, of Lustre or the stand-in's.
    pub(crate) fn lfs(&self, arguments: &[&str]) -> Result<String> {
        let mut command = if self.is_sandbox() {
            let mut command = Command::new(artifact("sandbox")?);
            command.arg("lfs");
            command
        } else {
            Command::new("lfs")
        };
        let output = command.args(arguments).env("LC_ALL", "C").output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("lfs {arguments:?}: {said}").into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `lfs hsm_state` says of a file, without its path: that may hold any word.
    pub(crate) fn state(&self, path: &Path) -> Result<String> {
        self.said_of(path, "hsm_state")
    }

    /// What `lfs hsm_action` says of a file, like "archive running" or "noop".
    pub(crate) fn action(&self, path: &Path) -> Result<String> {
        self.said_of(path, "hsm_action")
    }

    fn said_of(&self, path: &Path, verb: &str) -> Result<String> {
        let shown = path.display().to_string();
        let said = self.lfs(&[verb, &shown])?;
        Ok(said.strip_prefix(&shown).unwrap_or(&said).to_lowercase())
    }

    pub(crate) fn until(&self, what: &str, is_so: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        self.until_within(self.patience, what, is_so)
    }

    pub(crate) fn until_within(
        &self,
        limit: Duration,
        what: &str,
        mut is_so: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        while !is_so(self)? {
            if began.elapsed() > limit {
                return Err(format!("waited in vain: {what}").into());
            }
            std::thread::park_timeout(POLL);
        }
        Ok(())
    }

    /// Waits until a file's state has that word, or has it no more.
    pub(crate) fn until_state(&self, path: &Path, word: &str, has: bool) -> Result<()> {
        let what = format!("'{}' is {}{word}", path.display(), if has { "" } else { "not " });
        self.until(&what, |world| Ok(world.state(path)?.contains(word) == has))
    }

    /// Waits until what goes on with a file is that, or is it no more.
    pub(crate) fn until_action(&self, path: &Path, what: &str, is_so: bool) -> Result<()> {
        let wanted = format!("'{}': {}{what}", path.display(), if is_so { "" } else { "no " });
        self.until(&wanted, |world| Ok(world.action(path)?.contains(what) == is_so))
    }

    pub(crate) fn hsm(&self, verb: &str, path: &Path) -> Result<()> {
        self.lfs(&[verb, &path.display().to_string()]).map(drop)
    }

    /// Asks for an archive or a restore and waits until a copytool is at it.
    pub(crate) fn hsm_running(&self, verb: &str, path: &Path) -> Result<()> {
        self.hsm(verb, path)?;
        let action = verb.strip_prefix("hsm_").unwrap_or(verb);
        self.until_action(path, &format!("{action} running"), true)
    }

    /// Until the file's state has the word, or has it no more; asks again when nothing is under way.
    pub(crate) fn until_done(&self, path: &Path, verb: &str, word: &str, has: bool) -> Result<()> {
        self.until(&format!("{verb} of '{}'", path.display()), |world| {
            let is_idle = world.action(path)?.contains("noop");
            let is_done = world.state(path)?.contains(word) == has;
            if is_idle && !is_done {
                world.hsm(verb, path)?;
            }
            Ok(is_done)
        })
    }

    pub(crate) fn file(&self, name: &str, size: usize) -> Result<(PathBuf, Vec<u8>)> {
        let path = self.dir.join(name);
        let mut seed = 0x1234_5678_9abc_def1u64 ^ size as u64;
        let mut content = vec![0; size];
        for chunk in content.chunks_mut(8) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let word = seed.to_le_bytes();
            chunk.copy_from_slice(word.get(..chunk.len()).unwrap_or_default());
        }
        std::fs::write(&path, &content)?;
        Ok((path, content))
    }

    /// Objects in the bucket whose keys fit a glob, below this case's prefix.
    pub(crate) fn objects(&self, glob: &str) -> Result<u64> {
        let url = format!("s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'));
        let target = self.dir.join(".listing");
        std::fs::create_dir_all(&target)?;
        let target = target.display().to_string();
        self.count(
            &["import", &url, &target, "--dry-run", "--json", "--include", glob],
            "imported",
        )
    }

    /// Takes away what the case made, all that can be; the first thing that could not is told.
    pub(crate) fn clean_up(&mut self) -> Result<()> {
        let mut done = Ok(());
        if (self.daemon.is_some() || self.background.is_some()) && !self.is_sandbox() {
            // The copies first, while the tunables are still the case's.
            for verb in ["restore", "remove"] {
                done = done.and(self.bounded(verb));
            }
        }
        if let Some(daemon) = self.daemon.take() {
            done = done.and(daemon.stop(PATIENCE).map(drop).map_err(Into::into));
        }
        done = done.and(self.end_background(Signal::SIGTERM));
        done = done.and(self.put_back());
        if !self.is_sandbox() {
            done = done.and(std::fs::remove_dir_all(&self.dir).map_err(Into::into));
        }
        done
    }

    /// A command over all files of the case, which may wait for one that nobody does any more.
    fn bounded(&self, verb: &str) -> Result<()> {
        let dir = self.dir.display().to_string();
        let output = self.under_timeout(&[], &[verb, &dir, "--json"])?.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        must(
            output.status.success(),
            &format!("{verb} of '{dir}': {}; {said}", output.status),
        )
    }
}

impl Drop for World {
    /// Of a case that panicked.
    fn drop(&mut self) {
        if let Err(error) = self.end_background(Signal::SIGKILL) {
            eprintln!("# {error}");
        }
        if let Err(error) = self.put_back() {
            eprintln!("# {error}");
        }
    }
}

fn parse(url: &str) -> Option<(String, String, (String, String))> {
    let (scheme, rest) = url.split_once("://")?;
    let (keys, rest) = rest.split_once('@')?;
    let (key, secret) = keys.split_once(':')?;
    let (host, bucket) = rest.split_once('/')?;
    Some((
        format!("{scheme}://{host}"),
        bucket.trim_end_matches('/').to_owned(),
        (key.to_owned(), secret.to_owned()),
    ))
}

/// The case fails with this unless it is so.
pub(crate) fn must(is_so: bool, what: &str) -> Result<()> {
    if is_so { Ok(()) } else { Err(what.into()) }
}
