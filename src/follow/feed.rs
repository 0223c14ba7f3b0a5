//! One MDT's changelog and its reader. Each has its own trouble: what one MDT does ends nothing of the others.

use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::FollowOptions;

/// After the first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Between two warnings of the same trouble.
const SAY: Duration = Duration::from_secs(600);
/// Where somebody waits for the end, a changelog that failed so often is left for the next run.
const TRIES: u32 = 5;
/// What works where the MDT is mounted.
const REGISTER: &str = r#"lctl --device "$MDT" changelog_register -n"#;
/// For a command that registers a reader.
const REGISTERED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// What is read of its output.
const MOST_SAID: u64 = 4096;

/// Something that fails, is tried again with growing pauses, and is said.
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<Ongoing>);

#[derive(Debug)]
struct Ongoing {
    since: Instant,
    said: Instant,
    tries: u32,
    next: Instant,
}

impl Trouble {
    pub(super) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it is time to try.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.0.as_ref().is_none_or(|ongoing| ongoing.next <= now)
    }

    /// Tried so often that whoever waits for an end waits no longer; or going on for as long as that.
    pub(super) fn is_hopeless(&self, once: bool, after: Duration) -> bool {
        self.0
            .as_ref()
            .is_some_and(|ongoing| (once && ongoing.tries >= TRIES) || ongoing.since.elapsed() >= after)
    }

    pub(super) fn failed(&mut self, mdt: &str, what: &'static str, why: &str) {
        let now = Instant::now();
        let is_new = self.0.is_none();
        let ongoing = self.0.get_or_insert(Ongoing {
            since: now,
            said: now,
            tries: 0,
            next: now,
        });
        let pause = FIRST_PAUSE
            .saturating_mul(1u32.checked_shl(ongoing.tries).unwrap_or(u32::MAX))
            .min(LONGEST_PAUSE);
        ongoing.tries += 1;
        ongoing.next = now + pause;
        if is_new || ongoing.said.elapsed() >= SAY {
            ongoing.said = now;
            let seconds = ongoing.since.elapsed().as_secs();
            tracing::warn!(
                mdt,
                why,
                seconds,
                "{what}; it is tried on, and the other MDTs are followed"
            );
        } else {
            tracing::debug!(mdt, why, "{what}");
        }
    }

    /// `true`: it was going on.
    pub(super) fn is_over(&mut self, mdt: &str, what: &'static str) -> bool {
        let Some(ongoing) = self.0.take() else {
            return false;
        };
        tracing::info!(mdt, seconds = ongoing.since.elapsed().as_secs(), "{what}");
        true
    }
}

/// One MDT's changelog.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) mdt: u32,
    /// The MDT's.
    pub(super) name: String,
    /// The reader that the command line names.
    pub(super) given: String,
    /// The one that is registered: another one where that was dropped.
    pub(super) reader: String,
    pub(super) reading: Trouble,
    pub(super) acknowledging: Trouble,
    /// The MDT does not know the reader, and no other could be registered.
    pub(super) is_lost: bool,
    /// When the MDT last took an acknowledgement, and up to which record.
    acknowledged: Option<(Instant, u64)>,
}

impl Feed {
    pub(super) fn new(mdt: u32, name: String, given: String, reader: String) -> Self {
        Self {
            mdt,
            name,
            given,
            reader,
            reading: Trouble::default(),
            acknowledging: Trouble::default(),
            is_lost: false,
            acknowledged: None,
        }
    }

    /// What happens on its MDT may not be known.
    pub(super) const fn is_sick(&self) -> bool {
        self.reading.is_on() || self.is_lost
    }

    /// A reader without news acknowledges the same once more at times: the MDT drops those that it does not hear of.
    pub(super) fn is_acknowledgement_due(&self, place: u64, every: Duration) -> bool {
        let now = Instant::now();
        self.acknowledging.may_try(now)
            && self
                .acknowledged
                .is_none_or(|(at, up_to)| place > up_to || now.saturating_duration_since(at) >= every)
    }

    /// Nothing more is to be said until there are news, or for some time.
    pub(super) fn acknowledged(&mut self, place: u64) {
        self.acknowledged = Some((Instant::now(), place));
    }

    /// There is another reader.
    pub(super) fn is_read_by(&mut self, reader: String) {
        self.reader = reader;
        self.is_lost = false;
        self.acknowledged = None;
        self.acknowledging = Trouble::default();
    }
}

/// A new reader of an MDT's changelog: its name, or why there is none.
pub(super) fn register(follow: &FollowOptions<'_>, mdt: &str) -> Result<String, String> {
    let command = follow.register.unwrap_or(REGISTER);
    let said = said_by(follow, command, mdt).map_err(|error| format!("'{command}': {error}"))?;
    reader_in(&said)
        .map(str::to_owned)
        .ok_or_else(|| format!("'{command}' names no reader: {}", said.trim()))
}

/// What a command prints that ends well and in time.
fn said_by(follow: &FollowOptions<'_>, command: &str, mdt: &str) -> std::io::Result<String> {
    // Files, not pipes: what it leaves running can hold nobody up.
    let (mut out, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env("MDT", mdt)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()?;
    let until = Instant::now() + REGISTERED_WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until || follow.stopped() {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other("it did not end in time"));
        }
        std::thread::park_timeout(LOOK);
    };
    let text = |file: &mut std::fs::File| {
        let mut said = Vec::new();
        file.rewind()?;
        file.take(MOST_SAID).read_to_end(&mut said)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&said).into_owned())
    };
    if status.success() {
        text(&mut out)
    } else {
        Err(std::io::Error::other(format!(
            "{status}: {}",
            text(&mut errors)?.trim()
        )))
    }
}

/// A reader's name, with `-n` alone, else the last word.
fn reader_in(said: &str) -> Option<&str> {
    said.split_whitespace()
        .rev()
        .map(|word| word.trim_matches(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))))
        .find(|word| is_reader(word))
}

/// Whether an MDT may have given out that name: `cl` and a number, since 2.15 perhaps a name behind it.
#[must_use]
pub fn is_reader(name: &str) -> bool {
    let number = name
        .strip_prefix("cl")
        .map(|rest| rest.split('-').next().unwrap_or_default());
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readers_name_is_found_in_what_lctl_says() {
        assert_eq!(reader_in("cl3\n"), Some("cl3"));
        assert_eq!(
            reader_in("lustre-MDT0000: Registered changelog userid 'cl12'\n"),
            Some("cl12")
        );
        assert_eq!(reader_in("cl7-export\n"), Some("cl7-export"));
        assert_eq!(reader_in("error: changelog_register: Operation not permitted"), None);
        assert!(!is_reader("class") && !is_reader("cl") && !is_reader("lustre-MDT0000"));
    }

    #[test]
    fn trouble_is_tried_again_with_growing_pauses_and_is_hopeless_only_for_who_waits_or_after_long() {
        let mut trouble = Trouble::default();
        let now = Instant::now();
        assert!(trouble.may_try(now) && !trouble.is_on());
        for _ in 0..4 {
            trouble.failed("m", "fails", "why");
        }
        assert!(!trouble.may_try(now + 4 * FIRST_PAUSE) && trouble.may_try(now + 9 * FIRST_PAUSE));
        assert!(!trouble.is_hopeless(true, SAY));
        trouble.failed("m", "fails", "why");
        assert!(trouble.is_hopeless(true, SAY) && !trouble.is_hopeless(false, SAY));
        for _ in 0..40 {
            trouble.failed("m", "fails", "why");
        }
        assert!(trouble.may_try(Instant::now() + LONGEST_PAUSE));
        assert!(trouble.is_over("m", "works") && !trouble.is_over("m", "works"));
    }

    #[test]
    fn without_news_the_same_is_acknowledged_again_at_times() {
        let mut feed = Feed::new(0, "m".into(), "cl1".into(), "cl1".into());
        let long = Duration::from_secs(3600);
        assert!(feed.is_acknowledgement_due(5, long));
        feed.acknowledged(5);
        assert!(!feed.is_acknowledgement_due(5, long));
        assert!(feed.is_acknowledgement_due(6, long), "there are news");
        assert!(feed.is_acknowledgement_due(5, Duration::ZERO), "it was long ago");
    }
}
