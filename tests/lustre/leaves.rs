//! Cases of a copytool that goes in order.

use std::time::Duration;

use crate::cases::{release, released, returns};
use crate::world::{Result, World, must};

/// What it has in hand is its successor's: a reader gets the bytes, and an upload is not begun anew.
pub(crate) fn restarted(world: &mut World) -> Result<()> {
    world.on_stop = "keep";
    world.archive = "upload_bandwidth = '8MiB'\ndownload_bandwidth = '1MiB'\n".into();
    world.start()?;
    let (read, content) = world.file("read", 24 << 20)?;
    released(world, &read)?;
    let (large, bytes) = world.file("large", 160 << 20)?;
    let reader = {
        let read = read.clone();
        std::thread::spawn(move || std::fs::read(read))
    };
    world.until("the restore runs", |world| {
        Ok(world
            .lfs(&["hsm_action", &read.display().to_string()])?
            .contains("RESTORE"))
    })?;
    world.hsm_running("hsm_archive", &large)?;
    // Some parts of it.
    std::thread::park_timeout(Duration::from_secs(3));
    world.end()?;
    must(!reader.is_finished(), "the reader was told something at the stop")?;
    world.archive.clear();
    world.start()?;
    let got = reader.join().map_err(|_| "the reader panicked")??;
    must(got == content, "the reader got other bytes")?;
    world.until_state(&large, "archived", true)?;
    must(
        world.log().contains("going on with the upload"),
        "the upload was begun anew",
    )?;
    release(world, &large)?;
    returns(world, &large, &bytes)
}

/// It does what it has, is registered no more, and ends.
pub(crate) fn drained(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '8MiB'\n".into();
    world.start()?;
    let (path, content) = world.file("large", 80 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    let mount = world.mount.display().to_string();
    let output = world.ours(&["drain", "--wait", &mount])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    must(output.status.success(), &format!("{}; it said: {said}", output.status))?;
    world.until_ended()?;
    must(world.agents()? == 0, "it is still registered")?;
    must(
        world.state(&path)?.contains("archived"),
        "what ran was not brought to its end",
    )?;
    world.start()?;
    release(world, &path)?;
    returns(world, &path, &content)
}
