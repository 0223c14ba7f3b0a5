//! The embedded S3 on this machine's loopback, which the guest reaches.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::bounded::Lines;

/// This machine's loopback, as the guest sees it.
const HOST: &str = "10.0.2.2";
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Store {
    child: Child,
    pub(super) endpoint: String,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) secret: String,
}

impl Store {
    /// On a free port; its bodies lie in `data`.
    pub(super) fn start(binaries: &Path, data: &Path, log: &Path) -> Result<Self, String> {
        let named = |error: std::io::Error| format!("'{}': {error}", log.display());
        std::fs::create_dir_all(data).map_err(|error| format!("'{}': {error}", data.display()))?;
        let file = File::create(log).map_err(named)?;
        let program = binaries.join("sandbox");
        let child = Command::new(&program)
            .arg("s3")
            .arg("--dir")
            .arg(data)
            // It ends when this end of its input is gone, however this process ends.
            .stdin(Stdio::piped())
            .stdout(file.try_clone().map_err(named)?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("can't run '{}': {error}", program.display()))?;
        let mut store = Self {
            child,
            endpoint: String::new(),
            bucket: String::new(),
            key: String::new(),
            secret: String::new(),
        };
        let mut lines = Lines::of(log).map_err(named)?;
        let began = Instant::now();
        while store.secret.is_empty() {
            lines.read(&mut |line| store.learn(line)).map_err(named)?;
            let ended = store.child.try_wait().map_err(named)?.is_some();
            if ended || began.elapsed() > PATIENCE {
                return Err(format!("the store did not start; see '{}'", log.display()));
            }
            std::thread::park_timeout(POLL);
        }
        Ok(store)
    }

    /// From the line that it prints: S3 at URL bucket=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
    fn learn(&mut self, line: &str) {
        for word in line.split(' ') {
            if let Some((_, port)) = word
                .strip_prefix("http://")
                .and_then(|address| address.rsplit_once(':'))
            {
                self.endpoint = format!("http://{HOST}:{port}");
            }
            match word.split_once('=') {
                Some(("bucket", bucket)) => bucket.clone_into(&mut self.bucket),
                Some(("AWS_ACCESS_KEY_ID", key)) => key.clone_into(&mut self.key),
                Some(("AWS_SECRET_ACCESS_KEY", secret)) => secret.clone_into(&mut self.secret),
                _ => {}
            }
        }
    }

    /// As the suite takes it.
    pub(super) fn url(&self) -> String {
        let address = self.endpoint.trim_start_matches("http://");
        format!("http://{}:{}@{address}/{}", self.key, self.secret, self.bucket)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                let _gone = self.child.kill();
                break;
            }
            std::thread::park_timeout(POLL);
        }
        let _reaped = self.child.wait();
    }
}
