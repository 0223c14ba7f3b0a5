//! Cases of a copytool that is registered, and of whom it tells.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::cases::{archived, released, returns};
use crate::mds::Control;
use crate::world::{PATIENCE, Result, Skip, World, must};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn toggled(world: &mut World) -> Result<()> {
    if !world.is_sandbox() {
        // At its own pace.
        world.pace.clear();
    }
    world.start()?;
    let before = world.agents()?;
    must(before > 0, "no coordinator knows it")?;
    world.control(Control::Shutdown)?;
    world.until("the coordinator has forgotten it", |world| Ok(world.agents()? == 0))?;
    world.control(Control::Enabled)?;
    world.until_within(MINUTE, "the coordinator has its copytool back", |world| {
        Ok(world.agents()? >= before)
    })?;
    let (path, content) = world.file("after", 4096)?;
    released(world, &path)?;
    returns(world, &path, &content)
}

pub(crate) fn quiet_probes(world: &mut World) -> Result<()> {
    if world.is_sandbox() {
        return Err(Skip("the stand-in has no log of the kernel's").into());
    }
    // Says so where no MDT is on this node.
    world.agents()?;
    let before = complaints()?;
    world.start()?;
    // Some probes and keepalives long.
    std::thread::park_timeout(Duration::from_secs(10));
    must(complaints()? <= before, "its probes are errors in the MDS's log")
}

/// Lines of the MDS's about a cookie that nobody ever had.
fn complaints() -> Result<usize> {
    let output = Command::new("dmesg").output()?;
    if !output.status.success() {
        return Err(Skip("dmesg tells nothing here").into());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.matches("running request for cookie 0xffffffffffffffff").count())
}

pub(crate) fn background(world: &mut World) -> Result<()> {
    let pid = world.start_in_background()?;
    must(world.agents()? > 0, "it came back before it was registered")?;
    let (path, content) = world.file("file", 4096)?;
    released(world, &path)?;
    returns(world, &path, &content)?;
    let pid_file = world.local().join("daemon.pid");
    must(
        std::fs::read_to_string(&pid_file)?.trim() == pid.to_string(),
        "the pid file has another number by now",
    )?;
    world.end_background(Signal::SIGTERM)?;
    world.until("its pid file is gone", |_| Ok(!pid_file.exists()))
}

pub(crate) fn second_daemon(world: &mut World) -> Result<()> {
    world.start()?;
    refused_as_second(world, &[])?;
    let elsewhere = ["unshare", "--net"];
    let may = Command::new(elsewhere[0]).args([elsewhere[1], "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return Err(Skip("no network namespace can be made here; within one it is refused").into());
    }
    refused_as_second(world, &elsewhere)
}

fn refused_as_second(world: &World, by: &[&str]) -> Result<()> {
    let said = world.refusal(by, &[])?;
    must(
        said.contains("already serves this mount point: process "),
        &format!("it said: {said}"),
    )
}

pub(crate) fn other_tool(world: &mut World) -> Result<()> {
    if world.is_sandbox() {
        return Err(Skip("the stand-in has no other copytool").into());
    }
    let is_there = |program: &&str| Command::new(program).arg("--help").output().is_ok();
    let Some(program) = ["lhsmtool_posix.real", "lhsmtool_posix"].into_iter().find(is_there) else {
        return Err(Skip("lhsmtool_posix is not installed").into());
    };
    let before = world.agents()?;
    let root = world.local().join("tree");
    std::fs::create_dir(&root)?;
    let log = File::create(world.local().join("other.log"))?;
    let mut other = Command::new(program)
        .arg("--hsm-root")
        .arg(&root)
        .args(["--archive", "7"])
        .arg(&world.mount)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let result = refused_beside(world, &mut other, before);
    ended(&mut other)?;
    result
}

fn refused_beside(world: &World, other: &mut Child, before: usize) -> Result<()> {
    world.until("the other copytool is registered", |world| {
        must(matches!(other.try_wait(), Ok(None)), "it has ended")?;
        Ok(world.agents()? > before)
    })?;
    let said = world.refusal(&[], &[])?;
    must(said.contains(&other.id().to_string()), &format!("it said: {said}"))
}

/// In order, for who is killed stays registered.
fn ended(child: &mut Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn events(world: &mut World) -> Result<()> {
    let path = world.local().join("events");
    nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o644))?;
    let mut fifo = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
    world.sections = format!("[events]\nfifo = '{}'\n", path.display());
    world.start()?;
    let (file, _) = world.file("file", 50_000)?;
    archived(world, &file)?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    world.until("the archive's end comes as an event", |_| {
        match fifo.read(&mut buffer) {
            Ok(read) => text.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let text = String::from_utf8_lossy(&text);
        Ok(text.ends_with('\n') && text.contains("ARCHIVE_FINISH"))
    })?;
    let text = String::from_utf8_lossy(&text).into_owned();
    for line in text.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("'{line}' is not an event: {error}"))?;
        must(event["event_type"].is_string(), &format!("'{line}' has no type"))?;
    }
    Ok(())
}
