//! What the demo found.

use std::fmt::Write as _;
use std::time::Duration;

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) archived: usize,
    pub(crate) released: usize,
    pub(crate) restored: usize,
    pub(crate) identical: usize,
    pub(crate) space_before: u64,
    pub(crate) space_released: u64,
    pub(crate) how: &'static str,
    pub(crate) time: Duration,
    pub(crate) steps: Vec<Step>,
    pub(crate) differences: Vec<String>,
}

impl Report {
    pub(crate) fn is_whole(&self) -> bool {
        [self.archived, self.released, self.restored, self.identical]
            .iter()
            .all(|count| *count == self.files)
    }

    pub(crate) fn json(&self) -> String {
        format!(
            "{{\"files\":{},\"bytes\":{},\"archived\":{},\"released\":{},\"restored\":{},\"identical\":{},\"seconds\":{:.3}}}",
            self.files,
            self.bytes,
            self.archived,
            self.released,
            self.restored,
            self.identical,
            self.time.as_secs_f64()
        )
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "\n{:<22} {:>8} {:>12} {:>10} {:>12}\n",
            "step", "files", "size", "time", "rate"
        );
        for step in &self.steps {
            let seconds = step.time.as_secs_f64().max(1e-9);
            #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
            let rate = step.bytes as f64 / seconds;
            // Writing to a String does not fail.
            let _infallible = writeln!(
                text,
                "{:<22} {:>8} {:>12} {:>8.2} s {:>10}/s",
                step.name,
                step.files,
                human(step.bytes),
                seconds,
                human_f(rate)
            );
        }
        let _infallible = writeln!(
            text,
            "\nspace on Lustre: {} archived, {} after release; {}",
            human(self.space_before),
            human(self.space_released),
            self.how
        );
        let _infallible = writeln!(
            text,
            "{} files, {}: {} archived, {} released, {} restored, {} identical",
            self.files,
            human(self.bytes),
            self.archived,
            self.released,
            self.restored,
            self.identical
        );
        for difference in &self.differences {
            let _infallible = writeln!(text, "DIFFERENT: {difference}");
        }
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn human(bytes: u64) -> String {
    human_f(bytes as f64)
}

fn human_f(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes;
    let mut unit = "B";
    for next in units {
        unit = next;
        if value < 1024.0 {
            break;
        }
        if next != "GiB" {
            value /= 1024.0;
        }
    }
    format!("{value:.1} {unit}")
}
