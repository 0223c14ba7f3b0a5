//! The store under test.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _, stderr};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use lhsm_sandbox_s3::{Config, Server};
use tempfile::TempDir;

use crate::world::PATIENCE;

/// Tests may share a store.
static NEXT: AtomicU64 = AtomicU64::new(0);

enum Runs {
    Embedded(#[expect(dead_code, reason = "dropping it ends it")] Server),
    Minio(Child, #[expect(dead_code, reason = "dropping it removes it")] TempDir),
    Elsewhere,
}

pub(crate) struct Store {
    runs: Runs,
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    /// Before every key of this test.
    pub(crate) prefix: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

fn minio() -> Option<PathBuf> {
    std::env::var_os("LHSM_MINIO").map(PathBuf::from)
}

impl Store {
    pub(crate) fn start() -> Self {
        Self::with(None, false)
    }

    /// `certificates`: a directory with `public.crt` and `private.key`; only MinIO serves TLS here.
    pub(crate) fn with(certificates: Option<&Path>, versions: bool) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let bucket = "lhsm-sandbox".to_owned();
        let (runs, endpoint, bucket, key, secret) = if let Ok(url) = std::env::var("LHSM_STORE") {
            let (endpoint, bucket, key, secret) = parse(&url);
            (Runs::Elsewhere, endpoint, bucket, key, secret)
        } else if let Some(program) = minio() {
            let (key, secret) = ("minio-access".to_owned(), "minio-secret".to_owned());
            let (child, data, endpoint) = start_minio(&program, &key, &secret, certificates);
            (Runs::Minio(child, data), endpoint, bucket, key, secret)
        } else {
            let config = Config {
                versioning: versions,
                ..Config::default()
            };
            let (key, secret) = (config.access_key.clone(), config.secret_key.clone());
            let server = runtime.block_on(Server::start(config)).unwrap();
            let endpoint = server.endpoint();
            (Runs::Embedded(server), endpoint, bucket, key, secret)
        };
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(key.clone(), secret.clone(), None, None, "test"))
            .endpoint_url(&endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .force_path_style(true)
            .build();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let store = Self {
            runs,
            endpoint,
            bucket,
            prefix: format!("t{}-{number}/", std::process::id()),
            key,
            secret,
            client: Client::from_conf(config),
            runtime,
        };
        if let (Runs::Minio(..), None) = (&store.runs, certificates) {
            let made = store.client.create_bucket().bucket(&store.bucket);
            store.runtime.block_on(made.send()).unwrap();
        }
        if versions {
            store.keep_versions();
        }
        store
    }

    /// Told by `LHSM_STORE_NAME`: stores that were built from source don't know their version.
    pub(crate) fn name(&self) -> String {
        let kind = match &self.runs {
            Runs::Embedded(_) => "embedded",
            Runs::Minio(..) => "MinIO",
            Runs::Elsewhere => &self.endpoint,
        };
        std::env::var("LHSM_STORE_NAME").unwrap_or_else(|_| kind.to_owned())
    }

    /// Objects below this test's prefix: key without it, and size.
    pub(crate) fn objects(&self) -> BTreeMap<String, i64> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(&self.prefix)
            .into_paginator()
            .send();
        let mut found = BTreeMap::new();
        self.runtime.block_on(async {
            while let Some(page) = pages.next().await {
                for object in page.unwrap().contents() {
                    let key = object.key().unwrap().strip_prefix(&self.prefix).unwrap();
                    found.insert(key.to_owned(), object.size().unwrap());
                }
            }
        });
        found
    }

    pub(crate) fn put(&self, key: &str, body: &[u8]) {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(format!("{}{key}", self.prefix))
            .body(ByteStream::from(body.to_vec()));
        self.runtime.block_on(request.send()).unwrap();
    }

    /// Uploads that nobody has completed or aborted.
    pub(crate) fn uploads(&self) -> usize {
        let request = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(&self.prefix);
        self.runtime.block_on(request.send()).unwrap().uploads().len()
    }

    /// Has the bucket keep versions.
    fn keep_versions(&self) {
        if let Runs::Embedded(_) = self.runs {
            return;
        }
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
        let request = self
            .client
            .put_bucket_versioning()
            .bucket(&self.bucket)
            .versioning_configuration(enabled.build());
        self.runtime.block_on(request.send()).unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Runs::Minio(child, _) = &mut self.runs {
            // It may have ended by itself.
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

fn parse(url: &str) -> (String, String, String, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (keys, rest) = rest.split_once('@').unwrap();
    let (key, secret) = keys.split_once(':').unwrap();
    let (host, bucket) = rest.split_once('/').unwrap();
    (
        format!("http://{host}"),
        bucket.to_owned(),
        key.to_owned(),
        secret.to_owned(),
    )
}

/// Which release it is, once, past the test harness: that shows what a test prints only where it fails.
fn tell_version(program: &Path) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        let output = Command::new(program).arg("--version").output();
        let error = format!("can't run MinIO '{}' (LHSM_MINIO)", program.display());
        let text = String::from_utf8_lossy(&output.expect(&error).stdout).into_owned();
        let version = text.lines().next().unwrap_or("of an unknown version");
        stderr().write_all(format!("MinIO: {version}\n").as_bytes()).unwrap();
    });
}

fn start_minio(program: &Path, key: &str, secret: &str, certificates: Option<&Path>) -> (Child, TempDir, String) {
    tell_version(program);
    let data = tempfile::tempdir().unwrap();
    // A port that is free now; another program may be quicker.
    for _ in 0..5 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut command = Command::new(program);
        command
            .arg("server")
            .arg(data.path().join("data"))
            .args(["--address", &address.to_string(), "--quiet"])
            .env("MINIO_ROOT_USER", key)
            .env("MINIO_ROOT_PASSWORD", secret)
            .env("MINIO_BROWSER", "off")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(certificates) = certificates {
            command.arg("--certs-dir").arg(certificates);
        }
        let error = format!("can't start MinIO '{}' (LHSM_MINIO)", program.display());
        let mut child = command.spawn().expect(&error);
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE {
            if is_ready(&address.to_string(), certificates.is_some()) {
                let scheme = if certificates.is_some() { "https" } else { "http" };
                return (child, data, format!("{scheme}://{address}"));
            }
            std::thread::yield_now();
        }
        let _gone = child.kill();
        let _gone = child.wait();
    }
    panic!("MinIO does not start");
}

fn is_ready(address: &str, tls: bool) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    if tls {
        return true;
    }
    let request = format!("GET /minio/health/ready HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains(" 200 ")
}
