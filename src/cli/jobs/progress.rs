//! How far a job is.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::jobs::{Phase, Summary};

/// A line that moves on a terminal, a line now and then elsewhere.
pub(super) struct Progress {
    pub(super) bar: ProgressBar,
    quiet: bool,
    said: Instant,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        if quiet {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Self {
            bar,
            quiet,
            said: Instant::now(),
        }
    }

    pub(super) fn show(&mut self, summary: &Summary) {
        let text = line(summary);
        if summary.complete {
            self.bar.set_length(summary.found);
        }
        self.bar.set_position(summary.counts.ended());
        if self.bar.is_hidden() && !self.quiet && self.said.elapsed() >= Duration::from_secs(10) {
            self.said = Instant::now();
            errln!("{text}");
        }
        self.bar.set_message(text);
        self.bar.tick();
    }
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
