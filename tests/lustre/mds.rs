//! What only an MDS can set: `lctl` where its MDT is mounted on this node, or the stand-in's coordinator.

use std::path::Path;
use std::process::Command;

use lhsm_sandbox::client::Client;
use lhsm_sandbox_protocol::{Fault, HsmControl, Tunable};

use crate::world::{Result, Skip, World, must};

/// hsm_control's values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    Enabled,
    Shutdown,
    Purge,
}

impl Control {
    const fn word(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Shutdown => "shutdown",
            Self::Purge => "purge",
        }
    }
}

impl World {
    pub(crate) fn control(&mut self, control: Control) -> Result<()> {
        if self.is_sandbox() {
            let control = match control {
                Control::Enabled => HsmControl::Enabled,
                Control::Shutdown => HsmControl::Shutdown,
                Control::Purge => HsmControl::Purge,
            };
            let mut client = Client::new(&self.mount)?;
            for mdt in 0..2 {
                client.control_mdt(mdt, control)?;
            }
            return Ok(());
        }
        self.remember("mdt.*.hsm_control")?;
        lctl(&["set_param", &format!("mdt.*.hsm_control={}", control.word())]).map(drop)
    }

    /// Copytools that are registered, with all MDTs together.
    pub(crate) fn agents(&self) -> Result<usize> {
        if self.is_sandbox() {
            return Ok(Client::new(&self.mount)?.agents()?.len());
        }
        Ok(lctl(&["get_param", "-n", "mdt.*.hsm.agents"])?.matches("uuid=").count())
    }

    /// More actions at a time than the three that are the default, where that may be set.
    pub(crate) fn many_requests(&mut self) -> Result<()> {
        if self.is_sandbox() || !self.whole_file_system {
            return Ok(());
        }
        match self.set("mdt.*.hsm.max_requests", 200) {
            Err(error) if error.is::<Skip>() => Ok(()),
            set => set,
        }
    }

    /// Unmounts the MDT that a file is on, and mounts it again.
    pub(crate) fn restart_mdt(&mut self, path: &Path) -> Result<()> {
        if self.is_sandbox() {
            let mdt = self.mdt_of(path)?;
            return Ok(Client::new(&self.mount)?.inject(Fault::RestartOf(mdt))?);
        }
        let Some(command) = self.restart_mdt.clone() else {
            return Err(Skip("it needs --restart-mdt COMMAND, on an MDS").into());
        };
        self.remember("mdt.*.hsm_control")?;
        let mdt = self.mdt_of(path)?.to_string();
        let status = Command::new("sh").arg("-c").arg(&command).env("MDT", mdt).status()?;
        must(status.success(), &format!("'{command}': {status}"))?;
        // Unless it was set for good, it is off now.
        lctl(&["set_param", "mdt.*.hsm_control=enabled"]).map(drop)
    }

    /// Seconds without progress until the coordinator gives an action up.
    pub(crate) fn active_request_timeout(&mut self, seconds: u64) -> Result<()> {
        if self.is_sandbox() {
            let mut client = Client::new(&self.mount)?;
            client.set(Tunable::LoopPeriodMs, 100)?;
            return Ok(client.set(Tunable::ActiveRequestTimeoutMs, seconds * 1000)?);
        }
        self.set("mdt.*.hsm.active_request_timeout", seconds)
    }

    pub(crate) fn remove_archive_on_last_unlink(&mut self) -> Result<()> {
        if self.is_sandbox() {
            return Ok(Client::new(&self.mount)?.set(Tunable::RemoveArchiveOnLastUnlink, 1)?);
        }
        self.set("mdt.*.hsm.remove_archive_on_last_unlink", 1)
    }

    /// A new reader of each MDT's changelog, as `--changelog-user` takes them.
    pub(crate) fn changelog_users(&mut self) -> Result<String> {
        if self.is_sandbox() {
            let mut client = Client::new(&self.mount)?;
            let mut users = Vec::new();
            for mdt in (0..).take(self.mdts()?) {
                users.push(format!("lustre-MDT{mdt:04x}={}", client.register_changelog_on(mdt)?));
            }
            return Ok(users.join(","));
        }
        let devices = lctl(&["list_param", "mdd.*"])?;
        let devices: Vec<_> = devices.lines().filter_map(|line| line.strip_prefix("mdd.")).collect();
        if devices.len() != self.mdts()? {
            return Err(
                Skip("it registers a changelog reader on each MDT, and not all of them are on this node").into(),
            );
        }
        let mut users = Vec::new();
        for device in devices {
            let user = lctl(&["--device", device, "changelog_register", "-n"])?
                .trim()
                .to_owned();
            users.push(format!("{device}={user}"));
            self.readers.push((device.to_owned(), user));
        }
        Ok(users.join(","))
    }

    fn set(&mut self, name: &str, value: u64) -> Result<()> {
        self.remember(name)?;
        lctl(&["set_param", &format!("{name}={value}")]).map(drop)
    }

    /// What each MDT has of it, to be put back.
    fn remember(&mut self, name: &str) -> Result<()> {
        if !self.whole_file_system {
            return Err(Skip("it changes what all users of the file system have: --whole-file-system").into());
        }
        for line in lctl(&["get_param", name])?.lines() {
            if let Some((name, value)) = line.split_once('=')
                && !self.before.iter().any(|(known, _)| known == name)
            {
                self.before.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }

    /// Tunables as they were, and no reader left behind; tries all, and tells the first that failed.
    pub(crate) fn put_back(&mut self) -> Result<()> {
        let mut done = Ok(());
        for (name, value) in self.before.drain(..) {
            // What `stopped` is read as is written so.
            let value = if value == "stopped" {
                "shutdown".to_owned()
            } else {
                value
            };
            done = done.and(lctl(&["set_param", &format!("{name}={value}")]).map(drop));
        }
        for (device, user) in self.readers.drain(..) {
            done = done.and(lctl(&["--device", &device, "changelog_deregister", &user]).map(drop));
        }
        done
    }
}

fn lctl(arguments: &[&str]) -> Result<String> {
    const NO_MDS: &str = "no MDT is mounted on this node, so its tunables can't be set";
    let has_mdt = Command::new("lctl")
        .args(["get_param", "-n", "mdt.*.hsm_control"])
        .output()
        .is_ok_and(|output| output.status.success() && !output.stdout.is_empty());
    if !has_mdt {
        return Err(Skip(NO_MDS).into());
    }
    let output = Command::new("lctl").args(arguments).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("lctl {arguments:?}: {said}").into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
