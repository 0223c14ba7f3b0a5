//! How far a job is.

use std::time::Duration;

use crate::cli::progress::Progress;
use crate::jobs::{Phase, Summary};

const TEMPLATE: &str = "{spinner} {wide_bar} {msg}";

pub(super) fn progress(quiet: bool) -> Progress {
    Progress::new(TEMPLATE, quiet)
}

pub(super) fn show(progress: &mut Progress, summary: &Summary) {
    if summary.complete {
        progress.expect(summary.found, TEMPLATE);
    }
    progress.set_done(summary.counts.ended());
    progress.show(line(summary));
}

/// A job in one line.
pub(in crate::cli) fn line(summary: &Summary) -> String {
    let counts = &summary.counts;
    let mut text = format!(
        "{} of {}{} files, {} active, {} failed, {} at {:.0}/s",
        counts.ended(),
        summary.found,
        if summary.complete { "" } else { "+" },
        summary.active,
        counts.failed,
        bytes(counts.bytes),
        summary.rate,
    );
    if let Some(eta) = summary.eta.filter(|_| summary.phase == Phase::Running) {
        let eta = Duration::try_from_secs_f64(eta.ceil()).unwrap_or(Duration::MAX);
        text.push_str(&format!(", {} left", humantime::format_duration(eta)));
    }
    if !summary.waits_for.is_empty() {
        text.push_str(&format!("; waits for {}", summary.waits_for));
    }
    text
}

/// As people read it.
pub(in crate::cli) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}
