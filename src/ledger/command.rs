//! The site's own command that fences a dead mover's node: evicts it from the servers, or powers it off.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::fence::MoverNode;

/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// For a command that was killed.
const KILLED: Duration = Duration::from_secs(2);
/// Of what it says on stderr, its end.
const MOST_SAID: u64 = 2048;
const MOST_LINES: usize = 5;
/// For a node's answer.
const REFUSAL: Duration = Duration::from_secs(2);

/// How dead movers' nodes are fenced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FenceOptions {
    /// For `sh -c`.
    pub command: String,
    /// One that takes longer is killed, and has failed.
    pub timeout: Duration,
}

/// Whose node it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FenceTarget {
    /// What the ledger calls the mover.
    pub(super) mover: String,
    /// The file system's name, without its incarnation.
    pub(super) file_system: String,
    pub(super) node: MoverNode,
}

/// Runs the command and waits for its end. `is_over`: nobody wants to know any more.
///
/// # Errors
/// In words: how it ended, with the last of what it said.
pub(super) fn run(options: &FenceOptions, target: &FenceTarget, is_over: &dyn Fn() -> bool) -> Result<(), String> {
    let words = |error: io::Error| format!("can't run it: {error}");
    // A file, no pipe: what it leaves running can hold nobody up.
    let mut errors = tempfile::tempfile().map_err(words)?;
    let said = errors.try_clone().map_err(words)?;
    let FenceTarget {
        mover,
        file_system,
        node,
    } = target;
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(&options.command)
        .env("FENCE_MOVER", mover)
        .env("FENCE_HOST", &node.host)
        .env("FENCE_NIDS", node.nids.join(" "))
        .env("FENCE_CLIENT_UUID", node.client_uuid.as_deref().unwrap_or_default())
        .env("FENCE_FILE_SYSTEM", file_system)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        // With all that it starts, so that all of it can be killed.
        .process_group(0)
        .spawn()
        .map_err(words)?;
    let until = Instant::now() + options.timeout;
    let end = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => break status.to_string(),
            Ok(None) => {}
            Err(error) => break error.to_string(),
        }
        let is_over = is_over();
        if is_over || Instant::now() >= until {
            kill(&mut child);
            break match is_over {
                true => "killed: this mover ends".to_owned(),
                false => format!("killed: it did not end within {} s", options.timeout.as_secs_f64()),
            };
        }
        std::thread::park_timeout(LOOK);
    };
    let said = last_lines(&mut errors).unwrap_or_default();
    Err(match said.is_empty() {
        true => end,
        false => format!("{end}: {said}"),
    })
}

/// Whether a node's kernel refuses connections to the mover's address: then the node lives, and only its daemon does not. An
/// address of loopback tells nothing of another node.
pub(super) fn node_refuses(address: &str) -> bool {
    let found = address.to_socket_addrs().into_iter().flatten();
    let others: Vec<_> = found.filter(|address| !address.ip().is_loopback()).collect();
    refuses(&others)
}

fn refuses(addresses: &[SocketAddr]) -> bool {
    let refused = |address| {
        let connected = TcpStream::connect_timeout(address, REFUSAL);
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    addresses.iter().any(refused)
}

fn kill(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended this moment.
        let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let until = Instant::now() + KILLED;
    // One that the kernel holds is left behind.
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        std::thread::park_timeout(LOOK);
    }
}

fn last_lines(file: &mut File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST_SAID)))?;
    let mut said = Vec::new();
    file.take(MOST_SAID).read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.len().saturating_sub(MOST_LINES);
    Ok(lines.get(last..).unwrap_or_default().join("; "))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn target() -> FenceTarget {
        FenceTarget {
            mover: "mover2".into(),
            file_system: "lustre".into(),
            node: MoverNode {
                host: "node2".into(),
                nids: vec!["10.0.0.2@tcp".into(), "10.1.0.2@o2ib".into()],
                client_uuid: Some("uuid-2".into()),
            },
        }
    }

    fn run_for(command: &str, timeout: Duration) -> Result<(), String> {
        let options = FenceOptions {
            command: command.to_owned(),
            timeout,
        };
        run(&options, &target(), &|| false)
    }

    fn run_this(command: &str) -> Result<(), String> {
        run_for(command, Duration::from_secs(60))
    }

    #[test]
    fn a_command_is_given_whom_to_fence_and_its_exit_status_counts() {
        let given = r#"test "$FENCE_MOVER,$FENCE_HOST,$FENCE_NIDS,$FENCE_CLIENT_UUID,$FENCE_FILE_SYSTEM" = \
            "mover2,node2,10.0.0.2@tcp 10.1.0.2@o2ib,uuid-2,lustre""#;
        assert_eq!(run_this(given), Ok(()));
        let failed = run_this("exit 3").unwrap_err();
        assert!(failed.contains("exit status: 3"), "{failed}");
    }

    #[test]
    fn of_what_it_says_the_last_lines_are_told() {
        let failed = run_this("for n in 1 2 3 4 5 6 7; do echo line$n >&2; done; echo out; exit 1").unwrap_err();
        assert!(failed.ends_with(": line3; line4; line5; line6; line7"), "{failed}");
        let much = run_this("yes 0123456789 | head -n 9000 >&2; echo the end >&2; exit 1").unwrap_err();
        assert!(much.ends_with("; the end") && much.len() < 200, "{much}");
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_what_it_started_and_what_it_leaves_running_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let start = Instant::now();
        let slow = format!("sleep 600 & echo $! >'{}'; echo waits >&2; wait", pid.display());
        let failed = run_for(&slow, Duration::from_secs(3)).unwrap_err();
        assert!(failed.contains("did not end within 3 s: waits"), "{failed}");
        let sleeper = std::fs::read_to_string(&pid).unwrap();
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", sleeper.trim())).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        };
        // Who inherits it may take its time to reap it.
        while !matches!(state(), None | Some('Z')) {
            assert!(start.elapsed() < Duration::from_secs(60), "it runs");
            std::thread::park_timeout(LOOK);
        }
        let start = Instant::now();
        assert_eq!(run_this("sleep 60 & exit 0"), Ok(()));
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_port_that_nobody_listens_at_is_refused_and_loopback_tells_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!refuses(&[address]));
        drop(listener);
        assert!(refuses(&[address]) && !node_refuses(&address.to_string()));
    }
}
