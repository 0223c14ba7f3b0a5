//! The users of a case's files: `guest/load.py`, and what it tells.

use std::time::Duration;

use super::super::bounded::Limits;
use super::super::guest::Guest;

/// The program, as the guests find it.
pub(super) const PROGRAM: &str = include_str!("../guest/load.py");
/// For all that one of its runs waits for: more than an MDT's coordinator stands still, `active_request_timeout` and a
/// take-over together.
const PATIENCE: Duration = Duration::from_secs(480);
/// Beyond that, for a call that can't be left.
const MORE: Duration = Duration::from_secs(180);

/// What has ended, and what has not.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Told {
    /// Files that were read, with the right bytes.
    pub(super) read: u32,
    /// Files that were read with others.
    pub(super) wrong: Vec<String>,
    /// Files whose reader got an error, with that; and those whose reader still waits.
    pub(super) unread: Vec<String>,
    /// Seconds that the longest reader waited.
    pub(super) longest: f64,
    /// Archives that ended without a copy and were asked for once more.
    pub(super) asked_again: u32,
    /// What else was not over in time.
    pub(super) left: Vec<String>,
    /// It came to its end.
    pub(super) is_whole: bool,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["read", name, seconds, how] => {
                self.longest = self.longest.max(seconds.parse().unwrap_or_default());
                match how {
                    "ok" => self.read += 1,
                    "wrong" => self.wrong.push(name.to_owned()),
                    error => self.unread.push(format!("{name}: {error} after {seconds} s")),
                }
            }
            ["left", "read", name] => {
                self.longest = self.longest.max(PATIENCE.as_secs_f64());
                self.unread.push(format!("{name}: its reader still waits"));
            }
            ["left", verb, name] => self.left.push(format!("{name}: no {verb}")),
            ["asked-again", ..] => self.asked_again += u32::try_from(words.len() - 1).unwrap_or_default(),
            ["end"] => self.is_whole = true,
            _ => {}
        }
    }
}

/// Runs it in a guest with that verb, in a directory on a mount; `begun` hears when it has asked for all that it does.
///
/// # Errors
/// It did not come to its end.
pub(super) fn run(
    guest: &Guest,
    case: &str,
    verb: &str,
    directory: &str,
    begun: &mut dyn FnMut(),
) -> Result<Told, String> {
    let name = format!("{case}-{verb}");
    let script = format!(
        "exec python3 -u /share/lhsm/load.py {verb} {directory} {}",
        PATIENCE.as_secs()
    );
    let mut told = Told::default();
    guest.work(&name, &script, Limits::within(PATIENCE + MORE), &mut |line| {
        if line == "begun" {
            begun();
        }
        told.hear(line);
    })?;
    if told.is_whole {
        Ok(told)
    } else {
        Err(format!("load.py {verb} ended early; see {name}.log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_told_once() {
        let mut told = Told::default();
        for line in [
            "begun",
            "# lfs hsm_state f00 …: why",
            "read f00 2.5 ok",
            "read f01 101.2 ok",
            "read f02 3.0 wrong",
            "read f03 4.0 ENODATA",
            "archived f10 7.0",
            "asked-again f11 f12",
            "left archive f12",
            "end",
        ] {
            told.hear(line);
        }
        assert_eq!((told.read, told.longest, told.asked_again), (2, 101.2, 2));
        assert_eq!(told.wrong, ["f02"]);
        assert_eq!(told.unread, ["f03: ENODATA after 4.0 s"]);
        assert_eq!(told.left, ["f12: no archive"]);
        assert!(told.is_whole);
    }

    #[test]
    fn a_reader_that_still_waits_has_failed() {
        let mut told = Told::default();
        told.hear("left read f00");
        assert_eq!(told.unread.len(), 1);
        assert!(told.longest >= PATIENCE.as_secs_f64());
    }
}
