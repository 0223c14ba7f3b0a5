//! How fast a bucket becomes a namespace, and in how much memory: the real command against a listing on loopback that
//! is computed, into the sandbox on tmpfs; 10 thousand, 100 thousand and a million objects (`--objects N`: up to N).
//!
//! Beside it in the same run: the listing alone (the same command with `--dry-run`), and what making the same files
//! costs without us. There are two such floors. "create" is mknod, chown and utimes in as many threads, on tmpfs, with
//! no coordinator; "stand-in" is the calls that an import needs of it (`llapi_hsm_import` and one attribute) in as
//! many threads: the stand-in answers each by a message to its coordinator, as Lustre does by an RPC.
//!
//! `cargo bench --bench import -- --json`

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::cast_precision_loss, reason = "counts")]

mod floor;
mod listing;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lhsm_sandbox::process::{LIBRARY, artifact};
use lhsm_sandbox::{Mdt, Options};

/// As many as the command's own.
const THREADS: u64 = 8;
const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const SAMPLE: Duration = Duration::from_millis(5);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str| value(name).map(|text| text.parse::<u64>().unwrap());
    match value("--role").as_deref() {
        Some("stand-in") => {
            return floor::stand_in(Path::new(&value("--dir").unwrap()), number("--files").unwrap(), THREADS);
        }
        Some(role) => panic!("no role '{role}'"),
        None => {}
    }
    let most = number("--objects").unwrap_or(u64::MAX);
    let mut sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size <= most).collect();
    if most < u64::MAX && !sizes.contains(&most) {
        sizes.push(most);
    }
    let runs: Vec<Run> = sizes.into_iter().map(run).collect();
    if arguments.iter().any(|argument| argument == "--json") {
        let (first, last) = (runs.first().unwrap(), runs.last().unwrap());
        println!(
            "{{\"objects\":{},\"import_per_s\":{:.0},\"list_per_s\":{:.0},\"create_floor_per_s\":{:.0},\
             \"stand_in_floor_per_s\":{:.0},\"rss_mib_10k\":{:.1},\"rss_mib_1m\":{:.1}}}",
            last.objects, last.import, last.list, last.create, last.stand_in, first.rss, last.rss
        );
    }
}

struct Run {
    objects: u64,
    import: f64,
    list: f64,
    create: f64,
    stand_in: f64,
    rss: f64,
}

fn run(objects: u64) -> Run {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() {
        tempfile::tempdir_in(shm)
    } else {
        tempfile::tempdir()
    }
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listing::serve(&listener, objects));

    let per_second = |took: Duration| objects as f64 / took.as_secs_f64();
    let place = |name: &str| {
        let place = dir.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        place
    };
    let create = per_second(floor::create(&place("plain"), objects, THREADS));
    std::fs::remove_dir_all(dir.path().join("plain")).unwrap();

    let site = |name: &str| {
        let mount = place(name).join("lustre");
        let mdt = Mdt::start(Options::new(&mount)).unwrap();
        (mdt, mount)
    };
    let (mdt, mount) = site("stand-in");
    let target = mount.join("data");
    std::fs::create_dir(&target).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--role", "stand-in", "--files", &objects.to_string(), "--dir"]);
    command.arg(&target).env("LD_PRELOAD", artifact(LIBRARY).unwrap());
    let stand_in = per_second(watch(&mut command).0);
    drop(mdt);
    std::fs::remove_dir_all(dir.path().join("stand-in")).unwrap();

    let (mdt, mount) = site("import");
    let target = mount.join("data");
    std::fs::create_dir(&target).unwrap();
    let config = dir.path().join("config.toml");
    let library = artifact(LIBRARY).unwrap();
    let text = format!(
        "[lustre]\nmount = '{}'\nlibrary = '{}'\nstate_dir = '{}'\n[[archive]]\nid = 1\nbucket = 'b'\n\
         endpoint_url = 'http://{address}'\npath_style = true\nregion = 'us-east-1'\n",
        mount.display(),
        library.display(),
        dir.path().join("state").display()
    );
    std::fs::write(&config, text).unwrap();
    let import = |more: &[&str]| {
        let mut command = Command::new(artifact("lhsmtool-s3").unwrap());
        command
            .arg("--config")
            .arg(&config)
            .args(["import", "s3://b"])
            .arg(&target);
        command.args(["--json", "--threads", &THREADS.to_string()]).args(more);
        command
            .env("LD_PRELOAD", &library)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench");
        watch(&mut command)
    };
    let list = per_second(import(&["--dry-run"]).0);
    let (took, rss) = import(&[]);
    assert!(
        target.join(listing::key(objects - 1)).is_file(),
        "the last object is no file"
    );
    drop(mdt);
    let run = Run {
        objects,
        import: per_second(took),
        list,
        create,
        stand_in,
        rss,
    };
    println!(
        "{objects:>8} objects: import {:>8.0}/s, list {:>8.0}/s, create {:>8.0}/s, stand-in {:>8.0}/s; {:.1} MiB",
        run.import, run.list, run.create, run.stand_in, run.rss
    );
    run
}

/// Runs a command; its time, and its peak of resident memory in MiB.
fn watch(command: &mut Command) -> (Duration, f64) {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0.0f64;
    let status = loop {
        peak = peak.max(high_water(&child));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::park_timeout(SAMPLE);
    };
    assert!(status.success(), "{command:?}: {status}");
    (start.elapsed(), peak)
}

fn high_water(child: &Child) -> f64 {
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
