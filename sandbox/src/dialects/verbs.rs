//! The verbs, each tried once in a world and judged by what is there then.

use std::fs;

use lhsm_sandbox::protocol::{Action, Fid};
use lhsm_sandbox_s3::Dialect;

use crate::commands;
use crate::judge::{Outcome, right};
use crate::world::{AGAIN, BACK, BUCKET, GONE, LARGE, Result, STRANGERS, TAKEN, World, content};

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    /// Files of one request each, and one whose key others have.
    Archive,
    /// The same in parts.
    Multipart,
    /// A file that was changed, and one whose key others have taken meanwhile.
    Rearchive,
    /// A small file, and one in ranges.
    Restore,
    /// A file's copy goes.
    Remove,
    /// Objects that others wrote become files, which are restored.
    Import,
    /// A directory and a symlink, and one whose key others have.
    Export,
    /// What was archived becomes files, one of which is restored.
    Rebuild,
    /// Copies that are there, and one that is gone.
    Scrub,
    /// All bytes of our copies and of others' objects.
    ScrubDeep,
    /// The store alone.
    Check,
    /// A dry run where nothing was moved.
    Rebind,
}

impl Verb {
    /// In the order in which they are tried: an import comes behind the removes, for it may make another file of any
    /// object.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Archive,
        Self::Multipart,
        Self::Rearchive,
        Self::Restore,
        Self::Remove,
        Self::Import,
        Self::Export,
        Self::Rebuild,
        Self::Scrub,
        Self::ScrubDeep,
        Self::Check,
        Self::Rebind,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Multipart => "archive in parts",
            Self::Rearchive => "re-archive",
            Self::Restore => "restore",
            Self::Remove => "remove",
            Self::Import => "import",
            Self::Export => "export",
            Self::Rebuild => "rebuild",
            Self::Scrub => "scrub",
            Self::ScrubDeep => "scrub --deep",
            Self::Check => "check",
            Self::Rebind => "rebind",
        }
    }

    const fn needs_daemon(self) -> bool {
        matches!(
            self,
            Self::Archive | Self::Multipart | Self::Rearchive | Self::Restore | Self::Remove
        )
    }

    /// Does it, and judges what came of it.
    ///
    /// # Errors
    /// The sandbox's.
    pub(crate) fn tried(self, world: &mut World) -> Result<Outcome> {
        if self.needs_daemon()
            && let Some(words) = &world.refusal
        {
            return Ok(match words.is_empty() {
                true => Outcome::Broken("the daemon ends without a word".into()),
                false => Outcome::Told(words.clone()),
            });
        }
        match self {
            Self::Archive => archive(
                world,
                &[("a/empty", 0), ("a/small", 10_000), ("a/streamed", 300_000)],
                ("a/taken", 5_000),
            ),
            Self::Multipart => archive(world, &[("m/large", LARGE)], ("m/taken", (5 << 20) + 1)),
            Self::Rearchive => rearchive(world),
            Self::Restore => restore(world),
            Self::Remove => remove(world),
            Self::Import => commands::import(world),
            Self::Export => commands::export(world),
            Self::Rebuild => commands::rebuild(world),
            Self::Scrub => commands::scrub(world),
            Self::ScrubDeep => commands::scrub_deep(world),
            Self::Check => commands::check(world),
            Self::Rebind => commands::rebind(world),
        }
    }
}

/// What an errno is worth.
pub(crate) fn refused(told: Option<i32>) -> Outcome {
    match told {
        None => Outcome::Broken("it hangs".into()),
        Some(errno) => Outcome::Told(std::io::Error::from_raw_os_error(errno).to_string()),
    }
}

/// What a refusal must leave as it was.
fn kept(is_so: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    match is_so {
        true => Outcome::Works,
        false => Outcome::Broken(otherwise()),
    }
}

/// An object of others that nothing may touch.
pub(crate) fn strangers_stay(world: &World, key: &str) -> Outcome {
    let found = world.store.object_body(BUCKET, key);
    right(found.as_deref() == Some(STRANGERS), || {
        format!("'{key}' was somebody else's, and is not any more")
    })
}

fn is_copied(world: &mut World, (name, fid): (&str, Fid), content: &[u8], told: Option<i32>) -> Result<Outcome> {
    if told == Some(0) {
        return Ok(right(world.copy(fid).as_deref() == Some(content), || {
            format!("'{name}' is archived, and its object has other bytes")
        }));
    }
    let found = fs::read(world.path(name))?;
    Ok(refused(told).and(kept(found == content, || format!("'{name}' has other bytes"))))
}

fn archive(world: &mut World, free: &[(&str, usize)], taken: (&str, usize)) -> Result<Outcome> {
    world.put_strangers(taken.0);
    let files: Vec<_> = free.iter().copied().chain([taken]).collect();
    let mut fids = Vec::new();
    for (name, size) in &files {
        fids.push(world.create(name, *size)?);
    }
    let told = world.act(Action::Archive, &fids)?;
    let mut outcome = strangers_stay(world, taken.0);
    for (((name, size), fid), told) in files.iter().zip(fids).zip(told) {
        outcome = outcome.and(is_copied(world, (*name, fid), &content(name, *size), told)?);
    }
    Ok(outcome)
}

fn rearchive(world: &mut World) -> Result<Outcome> {
    let changed = |(name, size): (&str, usize)| content(&format!("{name}, changed"), size + 1);
    let (mut fids, mut outcome) = (Vec::new(), Outcome::Works);
    for file in [AGAIN, TAKEN] {
        fs::write(world.path(file.0), changed(file))?;
        fids.push(world.fid(file.0)?);
    }
    world.put_strangers(TAKEN.0);
    let told = world.act(Action::Archive, &fids)?;
    for ((file, fid), told) in [AGAIN, TAKEN].into_iter().zip(fids).zip(told) {
        outcome = outcome.and(is_copied(world, (file.0, fid), &changed(file), told)?);
        if told != Some(0) && file == AGAIN {
            let former = world.store.object_body(BUCKET, AGAIN.0);
            outcome = outcome.and(kept(former == Some(content(AGAIN.0, AGAIN.1)), || {
                "the former copy is gone".into()
            }));
        }
    }
    Ok(outcome.and(strangers_stay(world, TAKEN.0)))
}

fn restore(world: &mut World) -> Result<Outcome> {
    let mut fids = Vec::new();
    for (name, _) in BACK {
        let fid = world.fid(name)?;
        world.release(fid)?;
        fids.push(fid);
    }
    world.freeze(BACK[0].0);
    let told = world.act(Action::Restore, &fids)?;
    let mut outcome = Outcome::Works;
    for (((name, size), fid), told) in BACK.into_iter().zip(fids).zip(told) {
        let (content, released) = (content(name, size), world.is_released(fid)?);
        outcome = outcome.and(if told == Some(0) {
            right(!released && fs::read(world.path(name))? == content, || {
                format!("'{name}' is restored, and has other bytes")
            })
        } else {
            let copy = world.store.object_body(BUCKET, name);
            refused(told).and(kept(released && copy == Some(content), || {
                format!("'{name}' or its copy is another one")
            }))
        });
    }
    Ok(outcome)
}

fn remove(world: &mut World) -> Result<Outcome> {
    let (name, size) = GONE;
    let fid = world.fid(name)?;
    let told = world.act(Action::Remove, &[fid])?.first().copied().flatten();
    let here = fs::read(world.path(name))? == content(name, size);
    Ok(match told {
        Some(0) => right(here && world.store.object_body(BUCKET, name).is_none(), || {
            "the copy is removed, and its object is there".into()
        }),
        told => refused(told).and(kept(here, || format!("'{name}' has other bytes"))),
    })
}

/// Whether that dialect unpacks what says that it is packed.
pub(crate) const fn unpacks(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Gunzipped | Dialect::GunzippedAlways)
}
