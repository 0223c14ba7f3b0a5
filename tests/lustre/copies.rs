//! Cases of files that are copied with their records, and of what an archive leaves alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cases::{archived, release, returns, same};
use crate::imports::imported;
use crate::world::{Result, Skip, World, must};

/// Root's ways to copy all attributes.
const COPIERS: [(&str, &str); 2] = [("cp", "-a"), ("rsync", "-aX")];

pub(crate) fn copied_record(world: &mut World) -> Result<()> {
    needs_root()?;
    world.start()?;
    for (program, option) in present() {
        let (original, content) = world.file(&format!("original-{program}"), 50_000)?;
        archived(world, &original)?;
        let copy = copied(world, program, option, &original)?;
        // From now on its data is in the bucket alone.
        release(world, &original)?;
        archived(world, &copy)?;
        returns(world, &original, &content)?;
        release(world, &original)?;
        let anew = changed(world, &copy)?;
        returns(world, &original, &content)?;
        release(world, &original)?;
        world.hsm("hsm_remove", &copy)?;
        world.until_state(&copy, "archived", false)?;
        returns(world, &original, &content)?;
        same(&copy, &anew)?;
    }
    Ok(())
}

pub(crate) fn copied_import(world: &mut World) -> Result<()> {
    needs_root()?;
    world.start()?;
    for (program, option) in present() {
        let target = world.dir.join(format!("by-{program}"));
        std::fs::create_dir(&target)?;
        let (file, content) = imported(world, &format!("object-{program}"), &target)?;
        // A copy of a file without blocks is one of holes for some programs.
        returns(world, &file, &content)?;
        let copy = copied(world, program, option, &file)?;
        same(&copy, &content)?;
        release(world, &file)?;
        archived(world, &copy)?;
        let anew = changed(world, &copy)?;
        returns(world, &file, &content)?;
        release(world, &copy)?;
        returns(world, &copy, &anew)?;
        // It is only a name for another file's object.
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

fn needs_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(Skip("only root's programs copy trusted attributes").into())
    }
}

fn present() -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_there = |(program, _): &(&str, &str)| Command::new(program).arg("--version").output().is_ok();
    COPIERS.into_iter().filter(is_there)
}

/// Beside the case's files.
fn copied(world: &World, program: &str, option: &str, from: &Path) -> Result<PathBuf> {
    let to = world.dir.join(format!("copy-by-{program}"));
    let output = Command::new(program).arg(option).args([from, &to]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    must(
        output.status.success(),
        &format!("{program} {option}: {}; {said}", output.status),
    )?;
    Ok(to)
}

/// Writes other bytes and archives them.
fn changed(world: &World, path: &Path) -> Result<Vec<u8>> {
    let anew = b"other bytes than the original's".repeat(100);
    std::fs::write(path, &anew)?;
    world.until_state(path, "dirty", true)?;
    world.hsm("hsm_archive", path)?;
    world.until_state(path, "dirty", false)?;
    Ok(anew)
}

pub(crate) fn ctime(world: &mut World) -> Result<()> {
    // Where the key tells all there is no record, which would change it.
    world.archive = "layout = 'fid'\n".into();
    world.start()?;
    let (path, content) = world.file("file", 50_000)?;
    // The stand-in's files get their FIDs when somebody asks for something of theirs.
    world.state(&path)?;
    let before = ctime_of(world, &path)?;
    let is_kept = |world: &World, after: &str| {
        let now = ctime_of(world, &path)?;
        must(
            now == before,
            &format!("its ctime was {before}, and is {now} after {after}"),
        )
    };
    // Lustre has whole seconds.
    std::thread::park_timeout(Duration::from_secs(2));
    archived(world, &path)?;
    is_kept(world, "its archive")?;
    release(world, &path)?;
    is_kept(world, "its release")?;
    returns(world, &path, &content)?;
    is_kept(world, "its restore")
}

/// As programs see it.
fn ctime_of(world: &World, path: &Path) -> Result<String> {
    let mut command = Command::new("stat");
    command.args(["--format", "%z"]).arg(path);
    if let Some(library) = world.preloaded() {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    must(output.status.success(), &format!("stat: {}; {said}", output.status))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
