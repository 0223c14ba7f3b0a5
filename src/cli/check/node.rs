//! This node: limits, places, the library, the mount, the coordinators.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use super::Rows;
use crate::cli::mds;
use crate::config::Settings;
use crate::lustre::{Identify, Library, LibraryError, Mount, UnreadyCoordinators, other_tool};

/// A worker has two sockets and a file at a time, and some for the rest.
const DESCRIPTORS_EACH: u64 = 8;
/// For an MDT's answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What needs no Lustre.
pub(super) fn check(settings: &Settings, rows: &mut Rows) {
    let state = &settings.state_dir;
    let probe = state.join(format!(".check-{:016x}", fastrand::u64(..)));
    let written = std::fs::create_dir_all(state)
        .and_then(|()| std::fs::write(&probe, b"x"))
        .and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => rows.pass("state directory", state.display().to_string()),
        Err(error) => rows.fail(
            "state directory",
            format!("'{}' can't be written: {error}", state.display()),
            "set `state_dir` in section [lustre] to a directory on a local disk that this user can write",
        ),
    }
    let needed = settings.threads as u64 * DESCRIPTORS_EACH;
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft >= needed {
            rows.pass("open files", format!("{soft} may be open"));
        } else {
            rows.warn(
                "open files",
                format!("{soft} may be open; {} threads may need {needed}", settings.threads),
                "LimitNOFILE=65536 in the unit, or ulimit -n",
            );
        }
    }
    if let Some(listen) = settings.metrics {
        match TcpListener::bind(listen) {
            Ok(_) => rows.pass("metrics", format!("{listen} is free")),
            Err(error) => rows.warn(
                "metrics",
                format!("{listen}: {error}"),
                "a daemon that runs has it, or another program: then change `listen` in section [metrics]",
            ),
        }
    }
}

/// Library, mount, coordinators.
pub(super) fn lustre(settings: &Settings, mdts: &Path, rows: &mut Rows) {
    let library = match Library::open(&settings.library) {
        Ok(library) => library,
        Err(error @ LibraryError::Open { .. }) => {
            let fix = "install the Lustre client's user tools, or set `library` in section [lustre]";
            return rows.fail("liblustreapi", error.to_string(), fix);
        }
        Err(error @ LibraryError::Symbols { .. }) => {
            let fix = "update the Lustre client's user tools to 2.10 or later";
            return rows.fail("liblustreapi", error.to_string(), fix);
        }
    };
    rows.pass("liblustreapi", settings.library.display().to_string());
    let mount = match Mount::open(library, &settings.mount, Identify::Find) {
        Ok(mount) => mount,
        Err(error) => {
            return rows.fail(
                "mount",
                error.to_string(),
                "mount the Lustre client there, or correct `mount` in section [lustre]",
            );
        }
    };
    // Before the first daemon it has no more than a name.
    let name = crate::action::FileSystem::name(&mount).trim_end_matches(':');
    rows.pass("mount", format!("'{}' is {name}", settings.mount.display()));
    if !nix::unistd::geteuid().is_root() {
        rows.warn(
            "privileges",
            "not root: without CAP_SYS_ADMIN the daemon can't register or set trusted.* attributes",
            "run it as root or by the systemd unit",
        );
    }
    match other_tool(&mount) {
        None => {}
        Some(other) => rows.fail(
            "other copytool",
            format!("{other} serves this mount: registering would take its messages away"),
            "stop it, or mount the file system a second time for one of the two",
        ),
    }
    match UnreadyCoordinators::ask(&mount, PATIENCE) {
        Ok(probed) => coordinators(&probed, rows),
        Err(error) => rows.fail(
            "coordinator",
            format!("an MDT does not answer: {error}"),
            "look at the MDS and at the network (lfs check mds)",
        ),
    }
    tunables(settings, mdts, rows);
}

/// Each MDT that is stopped or does not answer has its row.
fn coordinators(probed: &UnreadyCoordinators, rows: &mut Rows) {
    if *probed == UnreadyCoordinators::default() {
        return rows.pass("coordinator", "runs on each MDT");
    }
    for mdt in &probed.stopped {
        rows.fail(
            "coordinator",
            format!("it does not run on {mdt}"),
            format!("on its MDS: lctl set_param -P mdt.*-{mdt}.hsm_control=enabled"),
        );
    }
    for mdt in &probed.silent {
        rows.fail(
            "coordinator",
            format!("{mdt} does not answer: a daemon can't register before it does"),
            "look at its MDS and at the network (lfs check mds); where it is gone for long: lctl --device NAME \
             deactivate, for its mdc device of this client",
        );
    }
}

/// Only where this node is an MDS.
fn tunables(settings: &Settings, mdts: &Path, rows: &mut Rows) {
    for mdt in mds::CoordinatorReport::all(mdts) {
        let name = mdt.mdt;
        if let Some(max) = mdt.max_requests {
            let what = format!("{name} max_requests");
            if max < settings.threads as u64 {
                rows.warn(
                    what,
                    format!("{max}: fewer actions than the {} threads here", settings.threads),
                    format!("lctl set_param -P mdt.{name}.hsm.max_requests=1000"),
                );
            } else {
                rows.pass(what, max.to_string());
            }
        }
        if mdt.migrate_hsm_allowed == Some(1) && !settings.migrate_hsm_allowed {
            rows.fail(
                format!("{name} migrate_hsm_allowed"),
                "1: files with a copy may get other FIDs, and a new file of their former name would replace their object",
                "set migrate_hsm_allowed = true in section [lustre]",
            );
        }
        if let Some(seconds) = mdt.active_request_timeout {
            let what = format!("{name} active_request_timeout");
            let heartbeat = settings.heartbeat.waiting;
            if heartbeat * 2 > Duration::from_secs(seconds) {
                rows.fail(
                    what,
                    format!(
                        "{seconds} s: an action that waits here is reported every {} s and would be given up",
                        heartbeat.as_secs()
                    ),
                    "set `heartbeat` in section [lustre] below half of it",
                );
            } else {
                rows.pass(what, format!("{seconds} s"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RowMark;
    use super::*;

    #[test]
    fn tunables_that_would_lose_actions_or_hold_threads_back_are_told_with_the_command() {
        let text = "[lustre]\nmount='/m'\n[[archive]]\nid=1\nbucket='b'\n";
        let settings = crate::config::parse(text, None).unwrap();
        let root = tempfile::tempdir().unwrap();
        let hsm = root.path().join("fs-MDT0000/hsm");
        std::fs::create_dir_all(&hsm).unwrap();
        let look = |max: &str, timeout: &str| {
            std::fs::write(hsm.join("max_requests"), max).unwrap();
            std::fs::write(hsm.join("active_request_timeout"), timeout).unwrap();
            let mut rows = Rows::default();
            tunables(&settings, root.path(), &mut rows);
            rows.0
        };
        let good = look("1000\n", "3600\n");
        assert!(good.iter().all(|row| row.mark == RowMark::Pass), "{good:?}");
        let allowed = root.path().join("fs-MDT0000/migrate_hsm_allowed");
        std::fs::write(&allowed, "1\n").unwrap();
        let lost = look("1000\n", "3600\n");
        let said = lost.iter().find(|row| row.mark == RowMark::Fail).unwrap();
        assert!(said.fix.contains("migrate_hsm_allowed = true"), "{lost:?}");
        std::fs::write(&allowed, "0\n").unwrap();
        let bad = look("3", "200");
        assert_eq!((bad[0].mark, bad[1].mark), (RowMark::Warn, RowMark::Fail), "{bad:?}");
        assert!(bad[0].fix.contains("mdt.fs-MDT0000.hsm.max_requests=1000"));
        assert!(bad[1].fix.contains("heartbeat"));
    }
}
