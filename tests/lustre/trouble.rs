//! Cases of a coordinator that is stopped, purged or impatient, and of what nobody asked for.

use std::path::Path;

use crate::cases::{archived, release, released, returns, same};
use crate::mds::Control;
use crate::world::{Result, World, must};

pub(crate) fn cancel_waiting(world: &mut World) -> Result<()> {
    // Nobody serves the archive id yet: the action waits with the coordinator.
    let (path, _) = world.file("waits", 4096)?;
    world.hsm("hsm_archive", &path)?;
    world.until_action(&path, "archive waiting", true)?;
    world.hsm("hsm_cancel", &path)?;
    world.start()?;
    world.until_action(&path, "archive", false)?;
    // Another one, as a sign that the coordinator has gone through all of its list.
    let (later, _) = world.file("later", 4096)?;
    archived(world, &later)?;
    must(!world.state(&path)?.contains("archived"), "it is archived")?;
    must(world.objects("**/waits")? == 0, "it left an object")
}

pub(crate) fn stopped_coordinator(world: &mut World) -> Result<()> {
    world.start()?;
    let (before, _) = world.file("before", 4096)?;
    archived(world, &before)?;
    world.control(Control::Shutdown)?;
    world.control(Control::Enabled)?;
    let (after, content) = world.file("after", 4096)?;
    released(world, &after)?;
    returns(world, &after, &content)
}

pub(crate) fn mdt_restart(world: &mut World) -> Result<()> {
    world.archive = "download_bandwidth = '8MiB'\n".into();
    world.start()?;
    let (path, content) = world.file("before", 24 << 20)?;
    released(world, &path)?;
    world.hsm_running("hsm_restore", &path)?;
    world.restart_mdt(&path)?;
    world.until_state(&path, "released", false)?;
    same(&path, &content)?;
    let (after, content) = world.file("after", 4096)?;
    released(world, &after)?;
    returns(world, &after, &content)
}

pub(crate) fn purge(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '4MiB'\n".into();
    world.start()?;
    let (path, content) = world.file("purged", 24 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    world.control(Control::Purge)?;
    world.until_action(&path, "archive", false)?;
    world.control(Control::Enabled)?;
    // Whatever the copytool made of it: the next one counts.
    world.until_done(&path, "hsm_archive", "archived", true)?;

    release(world, &path)?;
    returns(world, &path, &content)
}

pub(crate) fn short_timeout(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '4MiB'\n".into();
    world.active_request_timeout(4)?;
    world.start()?;
    // Ten seconds of work: only heartbeats keep it alive.
    let (path, _) = world.file("slow", 40 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    world.until_action(&path, "archive", false)?;
    must(world.state(&path)?.contains("archived"), "the coordinator gave it up")
}

pub(crate) fn last_unlink(world: &mut World) -> Result<()> {
    world.remove_archive_on_last_unlink()?;
    world.start()?;
    let (path, _) = world.file("unlinked", 4096)?;
    archived(world, &path)?;
    must(world.objects("**/unlinked")? == 1, "it has no object")?;
    std::fs::remove_file(&path)?;
    world.until("the object is removed", |world| Ok(world.objects("**/unlinked")? == 0))
}

pub(crate) fn follow(world: &mut World) -> Result<()> {
    let users = world.changelog_users()?;
    let mut names = vec!["followed".to_owned()];
    for mdt in (0..).take(world.mdts()?) {
        world.directory(&format!("mdt{mdt}"), mdt)?;
        names.push(format!("mdt{mdt}/followed"));
    }
    world.start()?;
    let files: Vec<_> = names.iter().map(|name| world.file(name, 4096)).collect::<Result<_>>()?;
    let mount = world.mount.display().to_string();
    world.until("the follower archives them", |world| {
        let output = world.ours(&[
            "export",
            "--follow",
            "--changelog-user",
            &users,
            "--quiet",
            "0s",
            "--once",
            &mount,
        ])?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        for (path, _) in &files {
            if !world.state(path)?.contains("archived") {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    must(
        world.objects("**/followed")? == files.len() as u64,
        "not all have an object",
    )?;
    files.iter().try_for_each(|(path, content)| same(path, content))
}

/// Since 2.14 the coordinator takes a second request of a file, and sends it while the first one runs.
pub(crate) fn second_archive(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '8MiB'\n".into();
    world.start()?;
    let (path, _) = world.file("file", 24 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    let (_, anew) = world.file("file", 9 << 20)?;
    // Nobody asks again after this.
    world.hsm("hsm_archive", &path)?;
    until_clean(world, &path)?;
    release(world, &path)?;
    returns(world, &path, &anew)
}

pub(crate) fn queued_remove(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '8MiB'\n".into();
    world.start()?;
    let (path, _) = world.file("file", 24 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    world.hsm("hsm_remove", &path)?;
    world.hsm("hsm_archive", &path)?;
    world.until_action(&path, "noop", true)?;
    world.until("what counts as archived counts as there", |world| {
        let state = world.state(&path)?;
        Ok(!state.contains("archived") || state.contains("exists"))
    })?;
    // And so it is with what is written next.
    let (_, anew) = world.file("file", 9 << 20)?;
    world.hsm("hsm_archive", &path)?;
    until_clean(world, &path)?;
    release(world, &path)?;
    returns(world, &path, &anew)
}

pub(crate) fn forgotten(world: &mut World) -> Result<()> {
    // Some of them are still to be sent when the last one was asked for, on machines that take a second for that, too.
    const FILES: usize = 8;
    world.archive = "upload_bandwidth = '512KiB'\n".into();
    world.start()?;
    let files: Vec<_> = (0..FILES)
        .map(|n| world.file(&format!("f{n:02}"), (1 << 20) + n))
        .collect::<Result<_>>()?;
    for (path, _) in &files {
        world.hsm("hsm_archive", path)?;
    }
    world.until("one is being archived", |world| {
        for (path, _) in &files {
            if world.action(path)?.contains("archive running") {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    world.control(Control::Shutdown)?;
    world.control(Control::Enabled)?;
    // Nobody asks again.
    for (path, content) in &files {
        world.until_state(path, "archived", true)?;
        release(world, path)?;
        returns(world, path, content)?;
    }
    must(world.objects("**/f??")? == FILES as u64, "not all have one object")
}

fn until_clean(world: &World, path: &Path) -> Result<()> {
    world.until("it is archived and clean, and nothing is under way", |world| {
        let state = world.state(path)?;
        let is_clean = state.contains("archived") && !state.contains("dirty");
        Ok(is_clean && world.action(path)?.contains("noop"))
    })
}
