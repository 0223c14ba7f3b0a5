//! What it costs to move a file: user and system time of whole processes, and their peak of resident
//! memory, against a store on loopback that swallows and serves bytes (`sink`). Ours is the daemon's queue,
//! worker threads, transfer and store over files on tmpfs; beside it, in the same run and against the same
//! store, curl, aws-c-s3 (PyPI awscrt), boto3 and rclone, where they are installed.
//!
//! "floor" is a loop of read and send, or receive and write, with no HTTP library, no checksum and no second
//! connection: what the kernel takes for the bytes on this machine. The large cases are run in rounds, one
//! after the other, and the median of each is told: a virtual machine's time is noisy.
//!
//! `cargo bench --bench transfer -- --json`; `--only NAME` runs the cases whose name contains NAME.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod floor;
mod ours;
mod rivals;
mod sink;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lhsmtool_s3::action::Verb;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// As the daemon's binary has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 5;
const SMALL_FILES: usize = 20_000;
const CROWD: usize = 200;
const CROWD_SECONDS: u64 = 10;
const BUDGET_MIB: f64 = 96.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    match value("--role").as_deref() {
        Some("sink") => return sink_process(value("--cert").map(PathBuf::from)),
        Some("floor-archive") => return floor::archive(&value("--address").unwrap(), &value("--file").unwrap()),
        Some("floor-restore") => {
            return floor::restore(&value("--address").unwrap(), &value("--file").unwrap(), GIB);
        }
        Some(role) => {
            let seconds = value("--at-most").map(|text| Duration::from_secs(text.parse().unwrap()));
            return ours::run(&ours::Task {
                verb: if role == "archive" {
                    Verb::Archive
                } else {
                    Verb::Restore
                },
                files: value("--files").unwrap().parse().unwrap(),
                size: value("--size").unwrap().parse().unwrap(),
                at_most: seconds.unwrap_or(ours::FOREVER),
                settings: value("--settings").unwrap().into(),
                dir: value("--dir").unwrap().into(),
            });
        }
        None => {}
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    Bench::new(value("--only")).run(json);
}

/// Serves on a port of its own, which it prints.
fn sink_process(cert: Option<PathBuf>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    let tls = cert.map(|dir| {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain = CertificateDer::pem_file_iter(dir.join("server.pem")).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    });
    sink::serve(&listener, tls);
}

/// A sink that ends with this value.
struct Sink {
    child: Child,
    url: String,
}

impl Sink {
    fn start(cert: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--role", "sink"]).stdout(Stdio::piped());
        if let Some(dir) = cert {
            command.arg("--cert").arg(dir);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let scheme = if cert.is_some() { "https" } else { "http" };
        Self {
            child,
            url: format!("{scheme}://localhost:{}", line.trim()),
        }
    }
}

impl Sink {
    fn floor(&self, role: &str, file: &Path) -> Option<Cost> {
        let address = self.url.strip_prefix("http://")?;
        measure(
            Command::new(std::env::current_exe().unwrap())
                .args(["--role", role, "--address", address, "--file"])
                .arg(file),
        )
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        // Collects it; its time is not looked at.
        let _status = self.child.wait();
    }
}

/// What one process took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    cpu: f64,
    wall: f64,
    rss: u64,
}

/// Runs a command to its end; its children's time is its own.
pub(crate) fn measure(command: &mut Command) -> Option<Cost> {
    let before = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().ok()?;
    let wall = start.elapsed().as_secs_f64();
    let after = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    if !output.status.success() {
        eprintln!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        return None;
    }
    let micros = |usage: nix::sys::resource::Usage| {
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = said.split_whitespace();
    let inner: Option<f64> = words.next().and_then(|word| word.parse().ok());
    Some(Cost {
        cpu: Duration::from_micros(u64::try_from(micros(after) - micros(before)).unwrap()).as_secs_f64(),
        wall: inner.unwrap_or(wall),
        rss: words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0),
    })
}

struct Bench {
    only: Option<String>,
    dir: tempfile::TempDir,
    results: BTreeMap<String, Cost>,
    runs: AtomicUsize,
}

impl Bench {
    fn new(only: Option<String>) -> Self {
        // tmpfs: the page cache, and no disk behind it.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            tempfile::tempdir_in(shm)
        } else {
            tempfile::tempdir()
        };
        Self {
            only,
            dir: dir.unwrap(),
            results: BTreeMap::new(),
            runs: AtomicUsize::new(0),
        }
    }

    fn wanted(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn note(&mut self, name: &str, cost: Option<Cost>, per: &str, units: f64) {
        let Some(cost) = cost else {
            return;
        };
        println!(
            "{name:<34} {:>9.3} CPU-s/{per:<5} {:>8.2} s {:>10}",
            cost.cpu / units,
            cost.wall,
            if cost.rss > 0 {
                format!("{} MiB", cost.rss >> 20)
            } else {
                String::new()
            }
        );
        self.results.insert(name.to_owned(), cost);
    }

    fn run(mut self, json: bool) {
        let plain = Sink::start(None);
        if self.wanted("large") {
            self.large("large", &plain, None);
        }
        for size in [4 << 10, 110 << 10] {
            let name = format!("small {}k", size >> 10);
            if self.wanted(&name) {
                self.small(&name, &plain, size);
            }
        }
        if self.wanted("crowd") {
            self.crowd(&plain);
        }
        if self.wanted("tls") {
            let cert = certificate(self.dir.path());
            let secure = Sink::start(Some(&cert));
            self.large("tls", &secure, Some(&cert.join("ca.pem")));
        }
        if json {
            self.print_json();
        }
    }

    fn large(&mut self, name: &str, sink: &Sink, ca: Option<&Path>) {
        let dir = self.dir.path().join("source");
        std::fs::create_dir_all(&dir).unwrap();
        let source = dir.join(ours::name(0));
        fill(&source, GIB);
        let mut rounds = Rounds::default();
        for round in 0..ROUNDS {
            rounds.add("ours", self.ours("archive", 1, GIB, &dir, sink, ca, None));
            if ca.is_none() {
                rounds.add("floor", sink.floor("floor-archive", &source));
            }
            for (rival, cost) in rivals::put(&source, sink.url.as_str(), ca, round == 0) {
                rounds.add(rival, cost);
            }
        }
        self.tell(&format!("{name} archive"), rounds);
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        let mut rounds = Rounds::default();
        for round in 0..ROUNDS {
            rounds.add("ours", self.ours("restore", 1, GIB, &dir, sink, ca, None));
            std::fs::remove_dir_all(&dir).unwrap();
            std::fs::create_dir_all(&dir).unwrap();
            if ca.is_none() {
                rounds.add("floor", sink.floor("floor-restore", &source));
                std::fs::remove_file(&source).unwrap();
            }
            for (rival, cost) in rivals::get(&dir, GIB, sink.url.as_str(), ca, round == 0) {
                rounds.add(rival, cost);
            }
        }
        self.tell(&format!("{name} restore"), rounds);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    fn tell(&mut self, name: &str, rounds: Rounds) {
        for (who, costs) in rounds.0 {
            self.note(&format!("{name} {who}"), median(costs), "GiB", 1.0);
        }
    }

    fn small(&mut self, name: &str, sink: &Sink, size: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let units = SMALL_FILES as f64 / 1e6;
        let dir = self.dir.path().join("small");
        std::fs::create_dir_all(&dir).unwrap();
        let bytes = sink::pattern();
        for n in 0..SMALL_FILES {
            std::fs::write(dir.join(ours::name(n)), &bytes[..usize::try_from(size).unwrap()]).unwrap();
        }
        let cost = self.ours("archive", SMALL_FILES, size, &dir, sink, None, None);
        self.note(&format!("{name} archive ours"), cost, "1M", units);
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        let cost = self.ours("restore", SMALL_FILES, size, &dir, sink, None, None);
        self.note(&format!("{name} restore ours"), cost, "1M", units);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Many large files at once: only the memory is looked at, after some seconds it is ended.
    fn crowd(&mut self, sink: &Sink) {
        let dir = self.dir.path().join("crowd");
        std::fs::create_dir_all(&dir).unwrap();
        for n in 0..CROWD {
            // Holes cost no memory here; they are sent all the same.
            File::create(dir.join(ours::name(n))).unwrap().set_len(GIB).unwrap();
        }
        let cost = self.ours("archive", CROWD, GIB, &dir, sink, None, Some(CROWD_SECONDS));
        self.note("crowd archive ours", cost, "run", 1.0);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[expect(clippy::too_many_arguments, reason = "one case")]
    fn ours(
        &self,
        role: &str,
        files: usize,
        size: u64,
        dir: &Path,
        sink: &Sink,
        ca: Option<&Path>,
        seconds: Option<u64>,
    ) -> Option<Cost> {
        let settings = self.dir.path().join("settings.toml");
        let ca = ca
            .map(|ca| format!("ca_bundle = '{}'\n", ca.display()))
            .unwrap_or_default();
        std::fs::write(
            &settings,
            format!(
                "[lustre]\nmount = '/'\n[[archive]]\nid = 1\nbucket = 'bench'\nprefix = '{}/'\nendpoint_url = '{}'\n{ca}",
                // No key is taken.
                self.runs.fetch_add(1, Ordering::Relaxed),
                sink.url
            ),
        )
        .unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--role",
                role,
                "--files",
                &files.to_string(),
                "--size",
                &size.to_string(),
            ])
            .arg("--settings")
            .arg(&settings)
            .arg("--dir")
            .arg(dir);
        if let Some(seconds) = seconds {
            command.args(["--at-most", &seconds.to_string()]);
        }
        if role == "restore" {
            command.env("BENCH_SUM", ours::sum_of(size));
        }
        measure(rivals::credentials(&mut command))
    }

    fn print_json(&self) {
        // What was not run is null.
        let told = |value: Option<f64>, digits: usize| value.map_or("null".into(), |value| format!("{value:.digits$}"));
        let cpu = |name: &str| self.results.get(name).map(|cost| cost.cpu);
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let per_file = |name: &str| told(cpu(name).map(|cpu| cpu * 1e6 / SMALL_FILES as f64), 1);
        let per_gib = |name: &str| told(cpu(name), 3);
        #[expect(clippy::cast_precision_loss, reason = "MiB")]
        let rss = self.results.values().map(|cost| cost.rss).max().unwrap_or(0) as f64 / f64::from(1 << 20);
        let rivals: BTreeMap<_, _> = self
            .results
            .iter()
            .filter(|(name, _)| !name.ends_with("ours"))
            .map(|(name, cost)| (name.as_str(), (cost.cpu * 1000.0).round() / 1000.0))
            .collect();
        println!(
            "{{\"archive_cpu_s_per_gib\":{},\"curl_put_cpu_s_per_gib\":{},\"restore_cpu_s_per_gib\":{},\
             \"curl_get_cpu_s_per_gib\":{},\"small_archive_us\":{},\"small_restore_us\":{},\
             \"peak_rss_mib\":{rss:.1},\"budget_mib\":{BUDGET_MIB},\"rivals\":{}}}",
            per_gib("large archive ours"),
            per_gib("large archive curl"),
            per_gib("large restore ours"),
            per_gib("large restore curl"),
            per_file("small 4k archive ours"),
            per_file("small 4k restore ours"),
            serde_json::to_string(&rivals).unwrap()
        );
    }
}

/// The costs of each, in the order in which they first came.
#[derive(Default)]
struct Rounds(Vec<(&'static str, Vec<Cost>)>);

impl Rounds {
    fn add(&mut self, who: &'static str, cost: Option<Cost>) {
        let Some(cost) = cost else {
            return;
        };
        match self.0.iter_mut().find(|(name, _)| *name == who) {
            Some((_, costs)) => costs.push(cost),
            None => self.0.push((who, vec![cost])),
        }
    }
}

/// By processor time.
fn median(mut costs: Vec<Cost>) -> Option<Cost> {
    costs.sort_by(|one, other| one.cpu.total_cmp(&other.cpu));
    costs.get(costs.len() / 2).copied()
}

fn fill(path: &Path, size: u64) {
    let file = File::create(path).unwrap();
    let bytes = sink::pattern();
    let mut at = 0;
    while at < size {
        file.write_all_at(&bytes, at).unwrap();
        at += bytes.len() as u64;
    }
}

/// A CA of our own and a server's certificate by it.
fn certificate(dir: &Path) -> PathBuf {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let dir = dir.join("tls");
    std::fs::create_dir_all(&dir).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "a CA of the bench");
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("ca.pem"), ca_cert.pem()).unwrap();
    std::fs::write(dir.join("server.pem"), server.pem()).unwrap();
    std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
    dir
}
