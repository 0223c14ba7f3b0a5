//! The verbs that are commands.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lhsm_sandbox::protocol::Action;

use crate::gzip;
use crate::judge::{Outcome, right};
use crate::verbs::{refused, strangers_stay, unpacks};
use crate::world::{BUCKET, KEPT, LOST, Ran, Result, World, content};

/// What others wrote below `theirs/`; a directory's keys stand elsewhere than their bytes say, where a store sorts so.
const THEIRS: [(&str, usize); 6] = [
    ("a", 40 << 10),
    ("b", 12 << 20),
    ("obj/1", 10),
    ("obj+1", 10),
    ("obj-1", 10),
    ("obj0", 10),
];
/// Of these, what is restored.
const RESTORED: [&str; 2] = ["a", "b"];
const IMPORTED: &str = "in";
const TARGET: &str = "where it leads";

/// `Silent` unless the counters are these.
fn counts<const N: usize>(ran: &Ran, expected: [(&str, u64); N]) -> Outcome {
    let is_right = expected.iter().all(|(name, count)| ran.count(name) == Some(*count));
    right(is_right, || {
        format!("it should have counted {expected:?}: {}", ran.stdout.trim())
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn len(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Files that were just made are restored, and have these bytes.
fn come_back(world: &mut World, files: &[(String, Vec<u8>)]) -> Result<Outcome> {
    let mut fids = Vec::new();
    for (name, _) in files {
        fids.push(world.fid(name)?);
    }
    let told = world.act(Action::Restore, &fids)?;
    let mut outcome = Outcome::Works;
    for (((name, content), fid), told) in files.iter().zip(fids).zip(told) {
        let released = world.is_released(fid)?;
        outcome = outcome.and(match told {
            Some(0) => right(!released && fs::read(world.path(name))? == *content, || {
                format!("'{name}' is restored, and has other bytes than its object")
            }),
            told if released => refused(told),
            told => refused(told).and(Outcome::Broken(format!(
                "'{name}' is refused, and not released any more"
            ))),
        });
    }
    Ok(outcome)
}

pub(crate) fn import(world: &mut World) -> Result<Outcome> {
    let mut bodies = BTreeMap::new();
    for (name, size) in THEIRS {
        let (key, plain) = (format!("theirs/{name}"), content(name, size));
        let body = if name == "a" && unpacks(world.dialect) {
            let packed = gzip::packed(&plain);
            let none = BTreeMap::new();
            world.store.put_encoded(BUCKET, &key, packed.clone(), none, "gzip");
            packed
        } else {
            world.store.put(BUCKET, &key, plain.clone(), BTreeMap::new());
            plain
        };
        bodies.insert(name, body);
    }
    // A listing that does not stop at the prefix's end comes to this one.
    world.put_strangers("zz-behind");
    world.freeze("theirs/a");
    let to = world.path(IMPORTED);
    fs::create_dir(&to)?;
    let url = format!("s3://{BUCKET}/theirs");
    let ran = world.run(&["import", &url, &text(&to), "--metadata", "head", "--json"])?;
    if !ran.is_done() {
        return Ok(ran.refused());
    }
    let outcome = counts(&ran, [("imported", len(THEIRS.len())), ("failed", 0), ("refused", 0)]);
    if outcome != Outcome::Works || world.refusal.is_some() {
        return Ok(outcome);
    }
    let files: Vec<_> = RESTORED
        .into_iter()
        .map(|name| (format!("{IMPORTED}/{name}"), bodies.remove(name).unwrap_or_default()))
        .collect();
    come_back(world, &files)
}

pub(crate) fn export(world: &mut World) -> Result<Outcome> {
    for name in ["d", "e"] {
        fs::create_dir(world.path(name))?;
    }
    symlink(TARGET, world.path("d/link"))?;
    symlink(TARGET, world.path("e/taken"))?;
    world.put_strangers("e/taken");
    let ran = world.run(&["export", &text(&world.path("d")), "--json"])?;
    let mut outcome = if ran.is_done() {
        let link = world.store.object_body(BUCKET, "d/link");
        let made = link.as_deref() == Some(TARGET.as_bytes()) && world.store.object_body(BUCKET, "d/").is_some();
        counts(&ran, [("directories", 1), ("links", 1), ("failed", 0)])
            .and(right(made, || "an object is missing, or has another target".into()))
    } else {
        ran.refused()
    };
    // One that can't be written, whatever the store is.
    let ran = world.run(&["export", &text(&world.path("e")), "--json"])?;
    outcome = outcome.and(right(!ran.is_done(), || "a taken key is not told".into()));
    Ok(outcome.and(strangers_stay(world, "e/taken")))
}

pub(crate) fn rebuild(world: &mut World) -> Result<Outcome> {
    let to = world.path("rebuilt");
    fs::create_dir(&to)?;
    let ran = world.run(&["rebuild", &format!("s3://{BUCKET}/keep"), &text(&to), "--json"])?;
    if !ran.is_done() {
        return Ok(ran.refused());
    }
    let outcome = counts(&ran, [("imported", len(KEPT.len())), ("failed", 0), ("refused", 0)]);
    if outcome != Outcome::Works || world.refusal.is_some() {
        return Ok(outcome);
    }
    let files: Vec<_> = KEPT
        .into_iter()
        .filter(|(_, size)| *size > 0)
        .map(|(name, size)| (name.replacen("keep/", "rebuilt/", 1), content(name, size)))
        .collect();
    come_back(world, &files)
}

pub(crate) fn scrub(world: &mut World) -> Result<Outcome> {
    let ran = world.run(&["scrub", &text(&world.path("keep")), "--json"])?;
    let all = len(KEPT.len());
    let outcome = if ran.is_done() {
        counts(&ran, [("files", all), ("good", all), ("objects", all)])
    } else {
        ran.refused()
    };
    // A copy that is gone is found, or the scrub says that it can't look.
    world.store.delete(BUCKET, LOST.0);
    let ran = world.run(&["scrub", &text(&world.path("lost")), "--json"])?;
    let found = if ran.is_done() {
        Outcome::Silent("a copy that is gone is not found".into())
    } else if outcome == Outcome::Works {
        counts(&ran, [("missing", 1)])
    } else {
        Outcome::Works
    };
    Ok(outcome.and(found))
}

pub(crate) fn scrub_deep(world: &mut World) -> Result<Outcome> {
    let (ours, theirs) = (world.path("keep"), world.path(IMPORTED));
    let ran = world.run(&["scrub", "--deep", &text(&ours), &text(&theirs), "--json"])?;
    if !ran.is_done() {
        return Ok(ran.refused());
    }
    let all = len(KEPT.len() + files_below(&theirs));
    Ok(counts(&ran, [("files", all), ("good", all)]))
}

fn files_below(directory: &Path) -> usize {
    let entries = walkdir::WalkDir::new(directory)
        .into_iter()
        .filter_map(std::result::Result::ok);
    entries.filter(|entry| entry.file_type().is_file()).count()
}

/// Told: a row that is no pass, about the archive; whatever this node lacks is not the store's.
pub(crate) fn check(world: &mut World) -> Result<Outcome> {
    let before = world.keys();
    let ran = world.run(&["check", "--stores", "--json"])?;
    let rows: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .filter_map(|row| serde_json::from_str(row).ok())
        .collect();
    let field = |row: &serde_json::Value, name: &str| {
        row.get(name)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let of_store: Vec<_> = rows
        .iter()
        .filter(|row| field(row, "what").starts_with("archive "))
        .collect();
    let bad: Vec<_> = of_store.iter().filter(|row| field(row, "mark") != "pass").collect();
    let outcome = match bad.as_slice() {
        _ if of_store.is_empty() => Outcome::Broken(format!("it has no row of the store: {:?}", ran.refused())),
        [] if ran.is_done() => Outcome::Works,
        [] => Outcome::Broken("it fails with nothing but good rows".into()),
        rows => {
            let words = |row: &&&serde_json::Value| format!("{}: {}", field(row, "what"), field(row, "found"));
            let failed = rows.iter().any(|row| field(row, "mark") == "fail");
            let all: Vec<_> = rows.iter().map(words).collect();
            Outcome::Told(all.join("; ")).and(right(ran.is_done() != failed, || {
                "its exit code does not fit its rows".into()
            }))
        }
    };
    let (left, uploads) = (world.keys() != before, !world.store.uploads(BUCKET).is_empty());
    // What can't be deleted is told by a row.
    let is_clean = (!left && !uploads) || matches!(outcome, Outcome::Told(_)) && !ran.is_done();
    Ok(outcome.and(right(is_clean, || "it leaves something in the bucket".into())))
}

pub(crate) fn rebind(world: &mut World) -> Result<Outcome> {
    let ran = world.run(&["rebind", &text(&world.path("keep")), "--dry-run", "--json"])?;
    if !ran.is_done() {
        return Ok(ran.refused());
    }
    let all = len(KEPT.len());
    Ok(counts(
        &ran,
        [("files", all), ("same", all), ("rebound", 0), ("failed", 0)],
    ))
}
