//! The guest: booted or taken as it runs, asked, ended if it was booted here.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::bounded::{self, Limits};

const MINUTE: Duration = Duration::from_secs(60);
/// Packages and a debootstrap come over the network, and an emulated machine boots.
const BOOT: Limits = Limits {
    total: Duration::from_secs(40 * 60),
    silence: Duration::from_secs(15 * 60),
};
/// Sockets lie in the guest's directory.
const LONGEST: usize = 88;

#[derive(Debug)]
pub(super) struct Guest {
    dir: PathBuf,
    logs: PathBuf,
    /// Ends with this value.
    ours: bool,
}

impl Guest {
    /// Up and mounted: as it is where it runs, else by `quick.sh`, which makes what is missing.
    pub(super) fn up(scripts: &Path, dir: &Path, logs: &Path, keep: bool) -> Result<Self, String> {
        let guest = Self::at(dir, logs, keep)?;
        let mut quick = Command::new(scripts.join("quick.sh"));
        quick.arg(&guest.dir);
        guest.made("quick.sh", quick)
    }

    /// The same for a guest that is a client only, of the file system of `servers`: by `client.sh`.
    pub(super) fn joined(scripts: &Path, servers: &Self, dir: &Path, logs: &Path, keep: bool) -> Result<Self, String> {
        let guest = Self::at(dir, logs, keep)?;
        let mut client = Command::new(scripts.join("client.sh"));
        client.arg(&servers.dir).arg(&guest.dir);
        guest.made("client.sh", client)
    }

    fn at(dir: &Path, logs: &Path, keep: bool) -> Result<Self, String> {
        let named = |error: std::io::Error| format!("'{}': {error}", dir.display());
        std::fs::create_dir_all(dir).map_err(named)?;
        let dir = dir.canonicalize().map_err(named)?;
        if dir.as_os_str().len() > LONGEST {
            return Err(format!(
                "'{}' is too long a path for the sockets of a guest: name another by --in DIR",
                dir.display()
            ));
        }
        Ok(Self {
            ours: !runs(&dir) && !keep,
            dir,
            logs: logs.to_owned(),
        })
    }

    fn made(self, by: &str, mut command: Command) -> Result<Self, String> {
        if !self.dir.join("port").exists() {
            command.env("PORT", free_port()?.to_string());
        }
        let log = self.logs.join("boot.log");
        let status = bounded::run(&mut command, &log, BOOT, &mut |line| {
            if line.starts_with("== ") || line.starts_with("up, ") {
                eprintln!("{line}");
            }
        });
        match status {
            Ok(status) if status.success() => Ok(self),
            Ok(status) => Err(format!("{by}: {status}; its output is in '{}'", log.display())),
            Err(error) => Err(format!("{by}: {error}")),
        }
    }

    /// Whether its machine is there, if only paused.
    pub(super) fn is_there(&self) -> bool {
        runs(&self.dir)
    }

    /// Runs a script of its directory on this machine, such as `boot.sh kill`.
    pub(super) fn by(&self, script: &str, argument: Option<&str>) -> Result<(), String> {
        let mut command = Command::new(self.dir.join(script));
        command.args(argument);
        let shown = format!("{script} {}", argument.unwrap_or_default());
        let log = self.logs.join(format!("{}.log", shown.trim_end().replace(' ', "-")));
        match bounded::run(&mut command, &log, Limits::within(MINUTE * 10), &mut |_| {}) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{shown}: {status}; its output is in '{}'", log.display())),
            Err(error) => Err(format!("{shown}: {error}")),
        }
    }

    /// A directory of this machine that is /share in the guest.
    pub(super) fn share(&self) -> PathBuf {
        self.dir.join("share")
    }

    /// To run a script of bash in the guest.
    pub(super) fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.dir.join("v"));
        command.arg(script);
        command
    }

    /// Runs a short one and gives what it said; its name is for the log.
    pub(super) fn ask(&self, name: &str, script: &str) -> Result<String, String> {
        let log = self.logs.join(format!("{name}.log"));
        let mut said = String::new();
        let status = bounded::run(
            &mut self.command(script),
            &log,
            Limits::within(MINUTE * 3),
            &mut |line| {
                said += line;
                said.push('\n');
            },
        );
        match status {
            Ok(status) if status.success() => Ok(said),
            Ok(status) => Err(format!("{name} in the guest: {status}; {}", said.trim_end())),
            Err(error) => Err(format!("{name} in the guest: {error}")),
        }
    }

    /// Runs a long one. It leaves its number, by which it is ended in the guest when it is over its limits: the end of
    /// the connection alone would not end it.
    pub(super) fn work(
        &self,
        name: &str,
        script: &str,
        limits: Limits,
        seen: &mut dyn FnMut(&str),
    ) -> Result<bool, String> {
        let pid = format!("/run/lhsm-vm-{name}.pid");
        let script = format!("echo $$ >{pid}\n{script}");
        let log = self.logs.join(format!("{name}.log"));
        let status = bounded::run(&mut self.command(&script), &log, limits, seen);
        status.map(|status| status.success()).inspect_err(|_| {
            // sshd gave it a session, and so a process group, of its own.
            let ended = self.ask(&format!("{name}-end"), &format!("kill -KILL -- -$(cat {pid})"));
            if let Err(error) = ended {
                eprintln!("can't end it in the guest: {error}");
            }
        })
    }
}

impl Drop for Guest {
    /// In order if it can be, for a Lustre that lost its power takes minutes at the next start.
    fn drop(&mut self) {
        if !self.ours || !runs(&self.dir) {
            return;
        }
        for (how, minutes) in [("stop", 5), ("kill", 1)] {
            let mut boot = Command::new(self.dir.join("boot.sh"));
            boot.arg(how);
            let log = self.logs.join(format!("{how}.log"));
            let ended = bounded::run(&mut boot, &log, Limits::within(MINUTE * minutes), &mut |_| {});
            if ended.is_ok_and(|status| status.success()) && !runs(&self.dir) {
                return;
            }
        }
        eprintln!("the guest of '{}' does not end", self.dir.display());
    }
}

/// As boot.sh sees it: the number may be another process's by now.
fn runs(dir: &Path) -> bool {
    let pid = std::fs::read_to_string(dir.join("qemu.pid")).unwrap_or_default();
    let pid = pid.trim();
    !pid.is_empty()
        && std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("root.img"))
}

/// For the guest's ssh; the sixteen datagram ports that its wires take, from sixteen times that on, are free too.
fn free_port() -> Result<u16, String> {
    const WIRES: u16 = 16;
    let is_free = |port: &u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
            && (0..WIRES).all(|n| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port * WIRES + n)).is_ok())
    };
    (2217..4000)
        .find(is_free)
        .ok_or_else(|| "no free port for a guest from 2217 to 4000".into())
}
