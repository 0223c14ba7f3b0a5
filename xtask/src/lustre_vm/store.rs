//! The embedded S3 on this machine's loopback, which the guest reaches.

use std::ffi::OsStr;
use std::path::Path;

use super::beside::{Beside, HOST};

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Store {
    _program: Beside,
    /// As the guest reaches it.
    pub(super) endpoint: String,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) secret: String,
}

impl Store {
    /// On a free port; its bodies lie in `data`.
    pub(super) fn start(binaries: &Path, data: &Path, log: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(data).map_err(|error| format!("'{}': {error}", data.display()))?;
        let arguments = [OsStr::new("s3"), OsStr::new("--dir"), data.as_os_str()];
        let mut said = Said::default();
        let program = Beside::start(binaries, &arguments, log, &mut |line| {
            said.learn(line);
            !said.secret.is_empty()
        })?;
        Ok(Self {
            _program: program,
            endpoint: said.endpoint,
            bucket: said.bucket,
            key: said.key,
            secret: said.secret,
        })
    }

    /// Its port on this machine's loopback.
    pub(super) fn port(&self) -> Option<u16> {
        self.endpoint.rsplit_once(':')?.1.parse().ok()
    }

    /// As the suite takes it.
    pub(super) fn url(&self) -> String {
        let address = self.endpoint.trim_start_matches("http://");
        format!("http://{}:{}@{address}/{}", self.key, self.secret, self.bucket)
    }
}

/// Of the line that it prints: S3 at URL bucket=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
#[derive(Debug, Default)]
struct Said {
    endpoint: String,
    bucket: String,
    key: String,
    secret: String,
}

impl Said {
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
}
