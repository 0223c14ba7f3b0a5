//! Cases of a coordinator that is stopped, purged or impatient, and of what nobody asked for.

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
    world.restart_mdt()?;
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
    let user = world.changelog_user()?;
    world.start()?;
    let (path, content) = world.file("followed", 4096)?;
    let mount = world.mount.display().to_string();
    world.until("the follower archives it", |world| {
        let output = world.ours(&[
            "export",
            "--follow",
            "--changelog-user",
            &user,
            "--quiet",
            "0s",
            "--once",
            &mount,
        ])?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(world.state(&path)?.contains("archived"))
    })?;
    must(world.objects("**/followed")? == 1, "it has no object")?;
    same(&path, &content)
}
