//! What `import` and `rebuild` are asked for.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Bucket;
use crate::import::{MetadataFrom, OnConflict};

/// What to import, where to, and how.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// s3://BUCKET/PREFIX: what lies below PREFIX/ is imported
    #[arg(value_name = "S3-URL")]
    pub(super) from: Bucket,
    /// A directory of a mounted Lustre, made if it is not there; or the name of a file, for one object
    #[arg(value_name = "DIR")]
    pub(super) to: PathBuf,
    /// The reference's --import keeps SRC's path below DST
    #[arg(long, hide = true, value_name = "PATH")]
    pub(super) below: Option<PathBuf>,
    /// The archive id that the files get (default: those of the archive section with that bucket)
    #[arg(long, value_name = "N")]
    pub(super) archive_id: Option<u32>,
    /// Where owners, modes and times come from
    #[arg(long, value_enum, default_value = "list")]
    pub(super) metadata: MetadataFrom,
    /// What happens where something is in an object's place
    #[arg(long, value_enum, default_value = "fail")]
    pub(super) on_conflict: OnConflict,
    /// With --on-conflict refresh: delete files of this bucket whose objects are gone
    #[arg(long)]
    pub(super) delete: bool,
    /// Replace and delete also files with data that is in no archive
    #[arg(long)]
    pub(super) force: bool,
    /// Permissions of files whose objects tell none, octal
    #[arg(long, value_name = "MODE", default_value = "644", value_parser = octal)]
    pub(super) file_mode: u32,
    /// Permissions of directories whose objects tell none, octal
    #[arg(long, value_name = "MODE", default_value = "755", value_parser = octal)]
    pub(super) dir_mode: u32,
    /// Owner of files whose objects tell none
    #[arg(long, value_name = "UID", default_value_t = 0)]
    pub(super) uid: u32,
    /// Group of files whose objects tell none
    #[arg(long, value_name = "GID", default_value_t = 0)]
    pub(super) gid: u32,
    /// Take setuid, setgid and sticky bits from objects
    #[arg(long)]
    pub(super) allow_setid: bool,
    /// Make symlinks that lead out of DIR
    #[arg(long)]
    pub(super) outside_links: bool,
    /// Only paths that match one of these globs (below PREFIX/; `*` stops at a slash, `**` does not)
    #[arg(long, value_name = "GLOB")]
    pub(super) include: Vec<String>,
    /// No paths that match one of these globs
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// Only objects of at least this size
    #[arg(long, value_name = "SIZE")]
    pub(super) min_size: Option<bytesize::ByteSize>,
    /// Only objects of at most this size
    #[arg(long, value_name = "SIZE")]
    pub(super) max_size: Option<bytesize::ByteSize>,
    /// Only objects written since then (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) newer_than: Option<i64>,
    /// Only objects written until then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) older_than: Option<i64>,
    /// The part I of N of the objects, I from 1: for job arrays
    #[arg(long, value_name = "I/N", value_parser = shard, default_value = "1/1")]
    pub(super) shard: (u64, u64),
    /// An S3 Inventory instead of a listing: the URL of its manifest.json
    #[arg(long, value_name = "S3-URL", conflicts_with = "keys_from")]
    pub(super) inventory: Option<Bucket>,
    /// The keys in this file, one on each line, instead of a listing
    #[arg(long, value_name = "FILE")]
    pub(super) keys_from: Option<PathBuf>,
    /// Make nothing; count
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// What to re-create, where.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// s3://BUCKET/PREFIX: as the lost file system archived to
    #[arg(value_name = "S3-URL")]
    pub(super) from: Bucket,
    /// The mount point of the new file system, or a directory in it
    #[arg(value_name = "MOUNT")]
    pub(super) to: PathBuf,
    /// The archive id that the files get (default: those of the archive section with that bucket)
    #[arg(long, value_name = "N")]
    pub(super) archive_id: Option<u32>,
    /// What happens where something is in a file's place
    #[arg(long, value_enum, default_value = "fail")]
    pub(super) on_conflict: OnConflict,
    /// Make nothing; count
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// How it runs.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Files made at a time (default: `threads` of the configuration)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Ranges of keys listed at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(super) listers: u16,
    /// The store lists in the order of the keys' bytes: spare the one listing from beginning to end that proves it
    #[arg(long)]
    pub(super) trust_order: bool,
    /// A line for each object that was refused, failed or changed on the way: JSON lines for .json, else CSV
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// How far it is, to go on from (default: in the state directory)
    #[arg(long, value_name = "FILE")]
    pub(super) checkpoint: Option<PathBuf>,
    /// One line of JSON at the end
    #[arg(long)]
    pub(super) json: bool,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "give permissions in octal, such as 644".into())
}

fn moment(text: &str) -> Result<i64, String> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).map_err(|error| error.to_string())
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(shard, shards)| Some((shard.parse::<u64>().ok()?, shards.parse::<u64>().ok()?)));
    match parsed {
        Some((shard, shards)) if shard >= 1 && shard <= shards => Ok((shard - 1, shards)),
        _ => Err("give I/N with I from 1 to N, such as 3/16".into()),
    }
}
