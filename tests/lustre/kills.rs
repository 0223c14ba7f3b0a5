//! Cases of a copytool that is killed.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cases::{archived, release, released, returns, same};
use crate::world::{Result, Skip, World, must};

pub(crate) fn in_archive(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '8MiB'\n".into();
    world.start()?;
    let (path, content) = world.file("large", 48 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    // The journal is written some times a second.
    std::thread::park_timeout(Duration::from_secs(2));
    world.kill();
    world.archive.clear();
    world.start()?;
    world.until_state(&path, "archived", true)?;
    must(
        world.log().contains("going on with the upload"),
        "the upload was begun anew",
    )?;
    release(world, &path)?;
    returns(world, &path, &content)
}

pub(crate) fn in_restore(world: &mut World) -> Result<()> {
    world.archive = "download_bandwidth = '8MiB'\n".into();
    world.start()?;
    let (path, content) = world.file("large", 48 << 20)?;
    released(world, &path)?;
    world.hsm_running("hsm_restore", &path)?;
    std::thread::park_timeout(Duration::from_secs(2));
    world.kill();
    world.archive.clear();
    world.start()?;
    world.until_state(&path, "released", false)?;
    same(&path, &content)
}

/// A remove that was lost with the pipe leaves its object and the file's record of it: what is archived and removed
/// later takes both away.
pub(crate) fn in_remove(world: &mut World) -> Result<()> {
    const FILES: usize = 40;
    world.active_request_timeout(4)?;
    world.start()?;
    let mut files = Vec::new();
    for n in 0..FILES {
        let (path, content) = world.file(&format!("r{n:02}"), 1000 + n)?;
        archived(world, &path)?;
        files.push((path, content));
    }
    for (path, _) in &files {
        world.hsm("hsm_remove", path)?;
    }
    world.kill();
    world.start()?;
    for (path, content) in &files {
        world.until_action(path, "remove", false)?;
        // One that still counts as archived has its object.
        released(world, path)?;
        returns(world, path, content)?;
        world.hsm("hsm_remove", path)?;
        world.until_state(path, "archived", false)?;
    }
    must(world.objects("**/r??")? == 0, "an object is left")
}

/// What was in the pipe when the copytool was killed, or read and not yet in its journal, is lost to everybody: the
/// coordinator gives it up after `active_request_timeout`, and it must be asked for again.
pub(crate) fn again_and_again(world: &mut World) -> Result<()> {
    const FILES: usize = 60;
    // So slow that each life has something to do.
    world.archive = "upload_bandwidth = '4MiB'\ndownload_bandwidth = '4MiB'\n".into();
    world.active_request_timeout(4)?;
    world.start()?;
    let files: Vec<_> = (0..FILES)
        .map(|n| world.file(&format!("k{n:02}"), 200_000 + n))
        .collect::<Result<_>>()?;
    for (path, _) in &files {
        world.hsm("hsm_archive", path)?;
    }
    kill_some_times(world)?;
    for (path, _) in &files {
        world.until_done(path, "hsm_archive", "archived", true)?;
        release(world, path)?;
    }
    for (path, _) in &files {
        world.hsm("hsm_restore", path)?;
    }
    kill_some_times(world)?;
    for (path, content) in &files {
        world.until_done(path, "hsm_restore", "released", false)?;
        same(path, content)?;
    }
    let objects = world.objects("**/k??")?;
    must(
        objects == FILES as u64,
        &format!("{FILES} files have {objects} objects"),
    )
}

fn kill_some_times(world: &mut World) -> Result<()> {
    for n in 1..=5 {
        // In another phase each time: what is under way then is not known here, and need not be.
        std::thread::park_timeout(Duration::from_millis(n * 90));
        world.kill();
        world.start()?;
    }
    Ok(())
}

/// A pipe that nobody reads any more is found by the first MDT that sends, and the kernel then tells the second one that
/// its message has arrived: whoever dies has to be unregistered before anything is sent.
pub(crate) fn with_two_mdts(world: &mut World) -> Result<()> {
    if world.mdts()? < 2 {
        return Err(Skip("this file system has one MDT").into());
    }
    world.start_in_background()?;
    let mut files = Vec::new();
    for mdt in 0..2 {
        world.directory(&format!("mdt{mdt}"), mdt)?;
        let (before, _) = world.file(&format!("mdt{mdt}/before"), 4096)?;
        archived(world, &before)?;
        files.push(world.file(&format!("mdt{mdt}/after"), 4096)?);
    }
    world.end_background(Signal::SIGKILL)?;
    world.until("the dead copytool is unregistered", |world| Ok(world.agents()? == 0))?;
    for (path, _) in &files {
        world.hsm("hsm_archive", path)?;
    }
    world.start()?;
    for (path, content) in &files {
        world.until_state(path, "archived", true)?;
        release(world, path)?;
        returns(world, path, content)?;
    }
    Ok(())
}
