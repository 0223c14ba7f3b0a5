//! The cases.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::{Result, Skip, World, must};
use crate::{copies, imports, kills, leaves, refusals, registration, trouble};

/// Between two words of how far it is.
const SAY: Duration = Duration::from_secs(10);
/// What `lfs` says of EBUSY.
const BUSY: &str = "resource busy";

/// One promise.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) proves: &'static str,
    pub(crate) run: fn(&mut World) -> Result<()>,
}

pub(crate) const ALL: &[Case] = &[
    Case {
        name: "round-trip",
        proves: "a file that is archived, released and restored by name has its bytes",
        run: round_trip,
    },
    Case {
        name: "restore-on-open",
        proves: "reading a released file brings its data back",
        run: restore_on_open,
    },
    Case {
        name: "large-file",
        proves: "a file of several parts comes back byte for byte",
        run: large_file,
    },
    Case {
        name: "default-sizes",
        proves: "with the default settings a file of 16 MiB and a byte comes back byte for byte",
        run: default_sizes,
    },
    Case {
        name: "remove",
        proves: "a removed copy is gone from the bucket, and its file stays",
        run: remove,
    },
    Case {
        name: "modify-after-archive",
        proves: "a changed file is dirty, can't be released, and is archived anew",
        run: modify,
    },
    Case {
        name: "modify-during-archive",
        proves: "a file that changes while it is archived never counts as archived with its old bytes",
        run: modify_during,
    },
    Case {
        name: "second-archive",
        proves: "a file that is changed and asked for again while it is archived is archived as it became",
        run: trouble::second_archive,
    },
    Case {
        name: "queued-remove",
        proves: "a remove and an archive asked for while the file is archived leave it in a state that later writes and archives fit",
        run: trouble::queued_remove,
    },
    Case {
        name: "cancel-running",
        proves: "a running archive is cancelled and leaves nothing in the bucket",
        run: cancel_running,
    },
    Case {
        name: "thousand-files",
        proves: "many files (a thousand of them, by --scale) go through archive, release and restore, and all are accounted for",
        run: thousand,
    },
    Case {
        name: "two-archive-ids",
        proves: "each archive id has its own place in the bucket",
        run: two_ids,
    },
    Case {
        name: "killed-in-archive",
        proves: "a copytool that is killed in mid-archive goes on when it is started again",
        run: kills::in_archive,
    },
    Case {
        name: "killed-in-restore",
        proves: "a copytool that is killed in mid-restore does it when it is started again",
        run: kills::in_restore,
    },
    Case {
        name: "killed-in-remove",
        proves: "a copytool that is killed when removes were asked for leaves no file that counts as archived without its object",
        run: kills::in_remove,
    },
    Case {
        name: "killed-again-and-again",
        proves: "whenever a copytool is killed, what was asked for is done in the end, with every byte",
        run: kills::again_and_again,
    },
    Case {
        name: "killed-with-two-mdts",
        proves: "after a copytool in the background is killed, actions of both MDTs wait for its successor",
        run: kills::with_two_mdts,
    },
    Case {
        name: "batches",
        proves: "many files (two thousand of them, by --scale) asked for by lfs in batches are all archived",
        run: batches,
    },
    Case {
        name: "several-mdts",
        proves: "files on another MDT than the first are archived, released and restored",
        run: several_mdts,
    },
    Case {
        name: "cancel-waiting",
        proves: "an archive that waits with the coordinator is cancelled and is never done",
        run: trouble::cancel_waiting,
    },
    Case {
        name: "coordinator-stopped",
        proves: "a coordinator that was stopped and started again is served, without a restart of the copytool",
        run: trouble::stopped_coordinator,
    },
    Case {
        name: "coordinator-toggled",
        proves: "a coordinator that was stopped and started again has its idle copytool back within a minute",
        run: registration::toggled,
    },
    Case {
        name: "forgotten-archives",
        proves: "archives that a stopped coordinator has forgotten are done without being asked for again",
        run: trouble::forgotten,
    },
    Case {
        name: "quiet-probes",
        proves: "an idle copytool leaves no lines in the MDS's log",
        run: registration::quiet_probes,
    },
    Case {
        name: "background",
        proves: "--daemon comes back when the copytool is registered, and its pid file goes with it",
        run: registration::background,
    },
    Case {
        name: "second-daemon",
        proves: "a second daemon on the mount is refused, from another network namespace too, and told the first one's process",
        run: registration::second_daemon,
    },
    Case {
        name: "restarted",
        proves: "at a stop nobody is answered, and the next daemon serves readers and goes on with uploads",
        run: leaves::restarted,
    },
    Case {
        name: "drained",
        proves: "a drained copytool does what it has, is registered no more, and ends",
        run: leaves::drained,
    },
    Case {
        name: "other-tool",
        proves: "on a mount that another copytool serves ours does not register, and says which process that is",
        run: registration::other_tool,
    },
    Case {
        name: "events",
        proves: "the event FIFO has one line for each event",
        run: registration::events,
    },
    Case {
        name: "purge",
        proves: "after a purge the file can be archived, and what was purged does no harm",
        run: trouble::purge,
    },
    Case {
        name: "short-timeout",
        proves: "heartbeats keep an action alive that takes longer than active_request_timeout",
        run: trouble::short_timeout,
    },
    Case {
        name: "last-unlink",
        proves: "with remove_archive_on_last_unlink the object goes with the file",
        run: trouble::last_unlink,
    },
    Case {
        name: "changelog",
        proves: "files of all MDTs that nobody asked to archive are archived by export --follow",
        run: trouble::follow,
    },
    Case {
        name: "second-copytool",
        proves: "a second copytool on the same mount is refused",
        run: refusals::second_copytool,
    },
    Case {
        name: "import",
        proves: "a bucket becomes released files, and reading them gives the objects",
        run: imports::import,
    },
    Case {
        name: "import-makes-directories",
        proves: "an import makes the directories that it is to fill",
        run: imports::into_nothing,
    },
    Case {
        name: "reference-import",
        proves: "--import SRC DST makes a released file by the name DST, as lhsmtool_posix does",
        run: imports::as_reference,
    },
    Case {
        name: "copied-record",
        proves: "a file's copy by root's cp -a or rsync -aX takes nothing from the file when it is archived, changed and removed",
        run: copies::copied_record,
    },
    Case {
        name: "copied-import",
        proves: "the copy of an imported file does not write over the file's object",
        run: copies::copied_import,
    },
    Case {
        name: "ctime-kept",
        proves: "where keys are FIDs, archiving, releasing and restoring a file leaves its ctime as it was",
        run: copies::ctime,
    },
    Case {
        name: "stripes-kept",
        proves: "a restored file has the stripes and components that it had",
        run: stripes,
    },
    Case {
        name: "mdt-restart",
        proves: "after an MDT's restart restores come back and new actions are served, without a restart of the copytool",
        run: trouble::mdt_restart,
    },
    Case {
        name: "wrong-keys",
        proves: "a copytool whose keys the store refuses says so and does not register",
        run: refusals::wrong_keys,
    },
    Case {
        name: "no-bucket",
        proves: "a copytool whose bucket is not there says which and does not register",
        run: refusals::no_bucket,
    },
    Case {
        name: "no-privileges",
        proves: "a copytool without CAP_SYS_ADMIN says what it needs",
        run: refusals::no_privileges,
    },
    Case {
        name: "not-a-lustre",
        proves: "a directory that is on no Lustre is refused with what to do",
        run: refusals::not_a_lustre,
    },
];

pub(crate) fn archived(world: &World, path: &Path) -> Result<()> {
    world.hsm("hsm_archive", path)?;
    world.until_state(path, "archived", true)
}

pub(crate) fn released(world: &World, path: &Path) -> Result<()> {
    archived(world, path)?;
    release(world, path)
}

pub(crate) fn release(world: &World, path: &Path) -> Result<()> {
    // The copytool closes the file right behind the end of its archive, which is when the state is seen.
    world.until("the file is closed", |world| match world.hsm("hsm_release", path) {
        Err(error) if error.to_string().contains(BUSY) => Ok(false),
        released => released.map(|()| true),
    })?;
    must(world.state(path)?.contains("released"), "it is not released")
}

/// By a restore that is asked for.
pub(crate) fn returns(world: &World, path: &Path, content: &[u8]) -> Result<()> {
    world.hsm("hsm_restore", path)?;
    world.until_state(path, "released", false)?;
    same(path, content)
}

pub(crate) fn same(path: &Path, content: &[u8]) -> Result<()> {
    must(std::fs::read(path)? == content, "the bytes differ")
}

fn round_trip(world: &mut World) -> Result<()> {
    world.start()?;
    for (name, size) in [("empty", 0), ("small", 1000), ("with spaces \u{fc}", 70_000)] {
        let (path, content) = world.file(name, size)?;
        released(world, &path)?;
        returns(world, &path, &content)?;
    }
    Ok(())
}

fn restore_on_open(world: &mut World) -> Result<()> {
    if world.is_sandbox() && !nix::unistd::geteuid().is_root() {
        return Err(Skip("the stand-in needs root to hold a reader").into());
    }
    world.start()?;
    let (path, content) = world.file("file", 50_000)?;
    released(world, &path)?;
    same(&path, &content)?;
    world.until_state(&path, "released", false)
}

fn large_file(world: &mut World) -> Result<()> {
    world.start()?;
    let (path, content) = world.file("large", (40 << 20) + 12_345)?;
    released(world, &path)?;
    returns(world, &path, &content)
}

fn remove(world: &mut World) -> Result<()> {
    world.start()?;
    let (path, content) = world.file("removed", 1000)?;
    archived(world, &path)?;
    must(world.objects("**/removed")? == 1, "its object is not there")?;
    world.hsm("hsm_remove", &path)?;
    world.until_state(&path, "archived", false)?;
    must(world.objects("**/removed")? == 0, "its object is still there")?;
    same(&path, &content)
}

fn modify(world: &mut World) -> Result<()> {
    world.start()?;
    let (path, _) = world.file("file", 1000)?;
    archived(world, &path)?;
    let (_, anew) = world.file("file", 2000)?;
    world.until_state(&path, "dirty", true)?;
    must(world.hsm("hsm_release", &path).is_err(), "a dirty file was released")?;
    world.hsm("hsm_archive", &path)?;
    world.until_state(&path, "dirty", false)?;
    release(world, &path)?;
    returns(world, &path, &anew)
}

fn modify_during(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '8MiB'\n".into();
    world.start()?;
    let (path, _) = world.file("file", 24 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    let (_, anew) = world.file("file", 9 << 20)?;
    world.until_action(&path, "archive", false)?;
    // Whatever is released now is what was written last.
    world.hsm("hsm_archive", &path)?;
    world.until("it is archived and clean", |world| {
        let state = world.state(&path)?;
        Ok(state.contains("archived") && !state.contains("dirty"))
    })?;
    release(world, &path)?;
    returns(world, &path, &anew)
}

fn cancel_running(world: &mut World) -> Result<()> {
    world.archive = "upload_bandwidth = '2MiB'\n".into();
    world.start()?;
    let (path, _) = world.file("cancelled", 40 << 20)?;
    world.hsm_running("hsm_archive", &path)?;
    world.hsm("hsm_cancel", &path)?;
    world.until_action(&path, "archive", false)?;
    must(!world.state(&path)?.contains("archived"), "it is archived")?;
    must(world.objects("**/cancelled*")? == 0, "it left an object")
}

fn default_sizes(world: &mut World) -> Result<()> {
    world.transfer.clear();
    world.start()?;
    let (path, content) = world.file("file", (16 << 20) + 1)?;
    released(world, &path)?;
    returns(world, &path, &content)
}

fn thousand(world: &mut World) -> Result<()> {
    let wanted = world.scaled(1000);
    world.patience *= 8;
    world.many_requests()?;
    world.start()?;
    let mut files = Vec::new();
    for n in 0..wanted {
        files.push(world.file(&format!("f{n:05}"), 100 + files.len())?);
    }
    let dir = world.dir.display().to_string();
    for verb in ["archive", "release", "restore"] {
        eprintln!("# {verb} of {wanted} files");
        let done = world.bulk(verb, &dir)?;
        must(done == wanted, &format!("{verb}: {done} of {wanted}"))?;
    }
    must(world.objects("**/f?????")? == wanted, "not all have an object")?;
    files.iter().try_for_each(|(path, content)| same(path, content))
}

fn batches(world: &mut World) -> Result<()> {
    /// One request of lfs is one ioctl, which takes 52 files.
    const EACH: usize = 50;
    let wanted = world.scaled(2000);
    world.patience *= 8;
    world.many_requests()?;
    world.start()?;
    let paths: Vec<_> = (0..wanted)
        .map(|n| Ok(world.file(&format!("b{n:05}"), 100)?.0.display().to_string()))
        .collect::<Result<_>>()?;
    let list = world.dir.join(".list");
    for paths in paths.chunks(EACH) {
        std::fs::write(&list, paths.join("\n") + "\n")?;
        world.lfs(&["hsm_archive", "--filelist", &list.display().to_string()])?;
    }
    let mut said = Instant::now();
    world.until("all have an object", |world| {
        let done = world.objects("**/b?????")?;
        if said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("# {done} of {wanted} files have an object");
        }
        Ok(done == wanted)
    })?;
    let dir = world.dir.display().to_string();
    world.until("all count as archived", |world| {
        // Only what is archived and clean can be released.
        let failed = world.count(&["release", &dir, "--json", "--include", "b?????"], "failed")?;
        Ok(failed == 0)
    })
}

fn several_mdts(world: &mut World) -> Result<()> {
    if world.mdts()? < 2 {
        return Err(Skip("this file system has one MDT").into());
    }
    world.start()?;
    world.directory("second", 1)?;
    let files: Vec<_> = (0..4)
        .map(|n| world.file(&format!("second/f{n}"), 10_000 + n))
        .collect::<Result<_>>()?;
    for (path, content) in &files {
        let mdt = world.mdt_of(path)?;
        must(mdt == 1, &format!("it is on MDT {mdt}"))?;
        released(world, path)?;
        returns(world, path, content)?;
    }
    must(world.objects("**/second/f?")? == 4, "not all have an object")
}

fn two_ids(world: &mut World) -> Result<()> {
    let endpoint = world.endpoint().to_owned();
    world.archive = format!(
        "[[archive]]\nid = 2\nbucket = '{}'\nprefix = '{}second/'\nendpoint_url = '{endpoint}'\nregion = 'us-east-1'\n",
        world.bucket, world.prefix
    );
    world.start()?;
    let (one, _) = world.file("one", 100)?;
    let (two, content) = world.file("two", 200)?;
    archived(world, &one)?;
    world.lfs(&["hsm_archive", "--archive", "2", &two.display().to_string()])?;
    world.until_state(&two, "archived", true)?;
    must(world.state(&two)?.contains("archive_id:2"), "it has another archive id")?;
    must(world.objects("second/**")? == 1, "it is not at its archive's prefix")?;
    release(world, &two)?;
    returns(world, &two, &content)
}

fn stripes(world: &mut World) -> Result<()> {
    world.start()?;
    for (name, setstripe) in [
        ("plain", &["-c", "-1", "-S", "2M"][..]),
        ("composite", &["-E", "4M", "-c", "1", "-E", "-1", "-c", "-1"][..]),
    ] {
        let path = world.dir.join(name);
        let shown = path.display().to_string();
        let arguments: Vec<&str> = ["setstripe"]
            .iter()
            .chain(setstripe)
            .copied()
            .chain([shown.as_str()])
            .collect();
        world.lfs(&arguments)?;
        let (_, content) = world.file(name, 10 << 20)?;
        let components = |world: &World| -> Result<Vec<String>> {
            let text = world.lfs(&["getstripe", "-v", &shown])?;
            let kept = ["stripe_count", "stripe_size", "lcme_extent", "lcm_entry_count"];
            let lines = text.lines().filter(|line| kept.iter().any(|kept| line.contains(kept)));
            Ok(lines.map(|line| line.trim().to_owned()).collect())
        };
        let before = components(world)?;
        must(!before.is_empty(), "lfs getstripe tells nothing")?;
        released(world, &path)?;
        returns(world, &path, &content)?;
        must(
            components(world)? == before,
            &format!("'{name}' has another layout: {before:?}"),
        )?;
    }
    Ok(())
}
