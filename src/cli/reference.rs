//! The flags of the reference copytool (lhsmtool_posix), for scripts that were written for it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::Settings;
use crate::store::BandwidthLimit;
use crate::types::ArchiveId;

/// Each goes before the configuration's word.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "As lhsmtool_posix has them")]
pub struct ReferenceArgs {
    /// Serve only this archive id, which has its section in the configuration (repeatable)
    #[arg(long, short = 'A', value_name = "N", value_delimiter = ',')]
    archive: Vec<u32>,
    /// Bytes a second in each direction, for each archive; without a unit MiB
    #[arg(long, short = 'b', value_name = "SIZE", value_parser = size_in_mib)]
    bandwidth: Option<u64>,
    /// Bytes read or written at a time; without a unit MiB. More than 1 MiB gains nothing here and is taken as that
    #[arg(long, short = 'c', value_name = "SIZE", value_parser = size_in_mib)]
    chunk_size: Option<u64>,
    /// Write events into this FIFO
    #[arg(long, short = 'f', value_name = "PATH")]
    event_fifo: Option<PathBuf>,
    /// Write the process id into this file while the daemon serves
    #[arg(long, short = 'P', value_name = "PATH")]
    pub pid_file: Option<PathBuf>,
    /// Seconds between two events of a running action, and between its reports to the coordinator
    #[arg(long, short = 'u', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    update_interval: Option<u64>,
    /// Log errors only
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Log more
    #[arg(long, short = 'v', action = clap::ArgAction::Count)]
    verbose: u8,
    /// Serve in the background; this process ends once that is registered, or with its exit code
    #[arg(long)]
    pub daemon: bool,
    /// End at the first action that fails
    #[arg(long)]
    pub abort_on_error: bool,
    /// Look at the configuration, the mount point and the stores, and end
    #[arg(long)]
    pub dry_run: bool,
    /// Import: SRC is s3://BUCKET/PREFIX or a prefix below the archive's, DST a directory
    #[arg(long, num_args = 2, value_names = ["SRC", "DST"])]
    pub import: Option<Vec<String>>,
    /// Has no meaning here: keys follow paths or FIDs, as configured
    #[arg(long, short = 'p', value_name = "PATH", hide = true)]
    hsm_root: Option<PathBuf>,
    /// Has no meaning here
    #[arg(long, alias = "no_shadow", hide = true)]
    no_shadow: bool,
    /// Has no meaning here
    #[arg(long, alias = "no_attr", hide = true)]
    no_attr: bool,
    /// Has no meaning here
    #[arg(long, alias = "no_xattr", hide = true)]
    no_xattr: bool,
}

/// A size whose unit is MiB where it has none.
fn size_in_mib(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("{text}MiB").parse()?
    } else {
        text.parse()?
    };
    match size.as_u64() {
        0 => Err("it must be above 0".into()),
        bytes => Ok(bytes),
    }
}

/// Of a chunk, as the configuration allows it.
const CHUNKS: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 20);

impl ReferenceArgs {
    /// Puts them over a configuration.
    ///
    /// # Errors
    /// An archive id without a section.
    pub fn apply(&self, settings: &mut Settings) -> Result<(), String> {
        if !self.archive.is_empty() {
            let configured: Vec<_> = settings.targets.iter().map(|target| target.archive_id.get()).collect();
            if let Some(unknown) = self.archive.iter().find(|id| !configured.contains(id)) {
                return Err(format!(
                    "--archive {unknown}: the configuration has no [[archive]] section with that id (it has {configured:?})"
                ));
            }
            let wanted = |id: ArchiveId| self.archive.contains(&id.get());
            settings.targets.retain(|target| wanted(target.archive_id));
        }
        for target in &mut settings.targets {
            let own = self.bandwidth.map(BandwidthLimit::of_mover);
            target.upload_bandwidth = own.or(target.upload_bandwidth);
            target.download_bandwidth = own.or(target.download_bandwidth);
        }
        if let Some(chunk) = self.chunk_size {
            let chunk = chunk.clamp(*CHUNKS.start(), *CHUNKS.end());
            settings.transfer.chunk = usize::try_from(chunk).unwrap_or(settings.transfer.chunk);
        }
        if let Some(path) = &self.event_fifo {
            settings.event_fifo = Some(path.clone());
        }
        if let Some(seconds) = self.update_interval {
            settings.event_interval = Duration::from_secs(seconds);
            settings.heartbeat.running = Duration::from_secs(seconds);
        }
        match (self.quiet, self.verbose) {
            (true, _) => settings.log_level = "error".into(),
            (false, 0) => {}
            (false, 1) => settings.log_level = "debug".into(),
            (false, _) => settings.log_level = "trace".into(),
        }
        Ok(())
    }

    /// Flags that were given and do nothing.
    #[must_use]
    pub fn without_meaning(&self) -> Vec<&'static str> {
        let given = [
            (self.hsm_root.is_some(), "--hsm-root"),
            (self.no_shadow, "--no-shadow"),
            (self.no_attr, "--no-attr"),
            (self.no_xattr, "--no-xattr"),
        ];
        given
            .into_iter()
            .filter_map(|(given, name)| given.then_some(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mib_unless_they_say_otherwise() {
        assert_eq!(size_in_mib("1"), Ok(1 << 20));
        assert_eq!(size_in_mib("4k"), Ok(4000));
        assert_eq!(size_in_mib("2GiB"), Ok(2 << 30));
        assert!(size_in_mib("0").is_err());
        assert!(size_in_mib("much").is_err());
    }
}
