//! Cases of a copytool that must not serve.

use crate::world::{Result, Skip, World, must};

pub(crate) fn second_copytool(world: &mut World) -> Result<()> {
    world.start()?;
    let said = world.refusal(&[], &[])?;
    must(
        said.contains("already") || said.contains("another"),
        &format!("it said: {said}"),
    )
}

pub(crate) fn wrong_keys(world: &mut World) -> Result<()> {
    world.keys.1 = "not-the-secret-of-this-key".into();
    let said = world.refusal(&[], &[])?;
    must(
        said.contains("AWS_SECRET_ACCESS_KEY") && !said.contains("registered; serving"),
        &format!("it said: {said}"),
    )
}

pub(crate) fn no_bucket(world: &mut World) -> Result<()> {
    world.bucket = "lhsmtool-s3-suite-has-no-such-bucket".into();
    let said = world.refusal(&[], &[])?;
    must(
        said.contains(&world.bucket) && !said.contains("registered; serving"),
        &format!("it said: {said}"),
    )
}

pub(crate) fn no_privileges(world: &mut World) -> Result<()> {
    const DROPS_ALL: [&str; 3] = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    if !nix::unistd::geteuid().is_root() {
        return Err(Skip("only root has privileges to drop").into());
    }
    let said = world.refusal(&DROPS_ALL, &[])?;
    must(said.contains("CAP_SYS_ADMIN"), &format!("it said: {said}"))
}

pub(crate) fn not_a_lustre(world: &mut World) -> Result<()> {
    let said = world.refusal(&[], &["/proc"])?;
    must(said.contains("/proc"), &format!("it said: {said}"))
}
