//! Cases of a bucket that becomes files.

use std::path::{Path, PathBuf};

use crate::cases::{archived, returns};
use crate::world::{Result, World, must};

/// Archives a file and imports its object once more, into `target`. That one is only a name for the first file's
/// object: whoever made it takes it away.
pub(crate) fn imported(world: &World, name: &str, target: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let (path, content) = world.file(name, 5000)?;
    archived(world, &path)?;
    let url = format!("s3://{}/{}{}", world.bucket, world.prefix, below(world)?);
    let shown = target.display().to_string();
    let made = world.count(&["import", &url, &shown, "--json", "--include", name], "imported")?;
    must(made == 1, &format!("{made} files were made"))?;
    let copy = target.join(name);
    must(world.state(&copy)?.contains("released"), "it is not released")?;
    Ok((copy, content))
}

/// The case's directory in keys.
fn below(world: &World) -> Result<String> {
    Ok(world.dir.strip_prefix(&world.mount)?.display().to_string())
}

pub(crate) fn import(world: &mut World) -> Result<()> {
    world.start()?;
    let target = world.dir.join("imported");
    std::fs::create_dir(&target)?;
    let (copy, content) = imported(world, "original", &target)?;
    returns(world, &copy, &content)?;
    Ok(std::fs::remove_file(&copy)?)
}

pub(crate) fn into_nothing(world: &mut World) -> Result<()> {
    world.start()?;
    let (copy, content) = imported(world, "original", &world.dir.join("not/there/yet"))?;
    returns(world, &copy, &content)?;
    Ok(std::fs::remove_file(&copy)?)
}

pub(crate) fn as_reference(world: &mut World) -> Result<()> {
    world.start()?;
    let (path, content) = world.file("original", 5000)?;
    archived(world, &path)?;
    let source = format!("{}/original", below(world)?);
    let target = world.dir.join("by-name");
    let (shown, mount) = (target.display().to_string(), world.mount.display().to_string());
    let output = world.ours(&["--import", &source, &shown, &mount])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    must(output.status.success(), &format!("{}; it said: {said}", output.status))?;
    must(world.state(&target)?.contains("released"), "it is not released")?;
    returns(world, &target, &content)?;
    Ok(std::fs::remove_file(&target)?)
}
