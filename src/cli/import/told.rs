//! What is told of an import: how far it is, and what came of it.

use std::time::Duration;

use crate::cli::progress::Progress;
use crate::import::ImportCounts;

const WITH_TOTAL: &str = "{bar:30} {pos}/{len} {msg} ETA {eta}";
const WITHOUT: &str = "{spinner} {pos} objects {msg} {elapsed}";

pub(super) fn progress(quiet: bool, total: u64) -> Progress {
    let progress = Progress::new(WITHOUT, quiet);
    if total > 0 {
        progress.expect(total, WITH_TOTAL);
    }
    progress
}

pub(super) fn show(progress: &mut Progress, counts: &ImportCounts, expected: Option<u64>) {
    let objects = counts.objects();
    if let Some(expected) = expected {
        progress.expect(expected.max(objects), WITH_TOTAL);
    }
    let rate = objects / progress.elapsed().as_secs().max(1);
    let text = format!(
        "({rate}/s), {} directories, {} refused, {} failed",
        counts.directories, counts.refused, counts.failed
    );
    progress.set_done(objects);
    progress.show_or(text, |text| {
        let left = expected.map_or_else(String::new, |expected| {
            let left = expected.saturating_sub(objects) / rate.max(1);
            format!(
                " of about {expected}, {} to go,",
                indicatif::HumanDuration(Duration::from_secs(left))
            )
        });
        format!("{objects} objects{left} {text}")
    });
}

pub(super) fn report(counts: &ImportCounts, disorder: Option<&str>, took: Duration, json: bool, dry_run: bool) {
    if json {
        let mut line = serde_json::json!(counts);
        if let Some(line) = line.as_object_mut() {
            line.insert("objects".into(), counts.objects().into());
            line.insert("seconds".into(), took.as_secs_f64().into());
            line.insert("dry_run".into(), dry_run.into());
            line.insert("unordered".into(), disorder.into());
        }
        outln!("{line}");
        return;
    }
    outln!(
        "{}{} objects in {:.1} s: {} files imported ({}), {} directories, {} symlinks, {} replaced, {} there already, \
         {} left as they are, {} not asked for, {} deleted, {} refused, {} failed, {} warnings",
        if dry_run { "dry run, nothing was made: " } else { "" },
        counts.objects(),
        took.as_secs_f64(),
        counts.imported,
        bytesize::ByteSize::b(counts.bytes).display().iec(),
        counts.directories,
        counts.links,
        counts.updated,
        counts.same,
        counts.skipped,
        counts.filtered,
        counts.deleted,
        counts.refused,
        counts.failed,
        counts.warnings,
    );
    if let Some(disorder) = disorder {
        outln!("the bucket was listed from its beginning to its end, not in parts: {disorder}");
    }
}
