//! How far a command is: a line that moves on a terminal, a line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where none can move.
const PAUSE: Duration = Duration::from_secs(10);

/// The line, and since when it is there.
pub(super) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    began: Instant,
    said: Instant,
}

impl Progress {
    /// The line by `template`, which is indicatif's; `quiet`: none at all.
    pub(super) fn new(template: &str, quiet: bool) -> Self {
        let now = Instant::now();
        let progress = Self {
            bar: ProgressBar::no_length(),
            quiet,
            began: now,
            said: now,
        };
        progress.set_template(template);
        if quiet {
            progress.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        progress
    }

    fn set_template(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// How many there are in all, as far as that is known by now; the line goes by `template` from then on.
    pub(super) fn expect(&self, total: u64, template: &str) {
        if self.bar.length().is_none() {
            self.set_template(template);
        }
        self.bar.set_length(total);
    }

    /// So many are done.
    pub(super) fn set_done(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// How it is now.
    pub(super) fn show(&mut self, text: String) {
        self.show_or(text, str::to_owned);
    }

    /// The same; `plain` makes of it what is said where no line moves.
    pub(super) fn show_or(&mut self, text: String, plain: impl FnOnce(&str) -> String) {
        if self.bar.is_hidden() && !self.quiet && self.said.elapsed() >= PAUSE {
            self.said = Instant::now();
            errln!("{}", plain(&text));
        }
        self.bar.set_message(text);
        self.bar.tick();
    }

    /// Prints a line that stays.
    pub(super) fn print(&self, line: &str) {
        self.bar.suspend(|| outln!("{line}"));
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The line goes away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
