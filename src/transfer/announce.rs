//! Where a bucket keeps no versions, equal bytes have equal ETags: a DELETE that demands the ETag of the object that was
//! looked at takes also the one that an archive of the file has put in its place since, and no store can be asked for more.
//! So whoever deletes an object of a file says so on the file, looks, and deletes or not; an archive that has written looks
//! at the file before it counts on its object. Either the look at the object finds what the archive wrote, and it stays; or
//! the archive finds what was said, waits for the end of that, and looks whether its object is there. What a deletion took
//! away stays noted on the file when it takes its words back: the archive may have written between its look and its DELETE,
//! and ask only then. Both are attributes of one file, and the file's MDT puts them in an order.
//!
//! Words that stay, for their mover was killed or its DELETE was not answered and may arrive yet, count for an hour.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{Transfer, TransferError};
use crate::action::{FileSystem, HsmError};
use crate::store::{KeyAt, StoreError};
use crate::types::{Fid, Timestamp};

/// Behind that it is said anew, under another number, and looked once more: nobody is to take it for a dead mover's.
const FRESH: Duration = Duration::from_secs(600);
/// Seconds for which words count: longer than any deletion takes, however much movers' clocks differ.
const COUNTS: u64 = 3600;
/// Seconds for which a note counts: an archive that looks at the file after that has written after that.
const REMEMBERED: u64 = 86_400;
/// At what was said, of one archive.
const LOOKS: usize = 11;
/// Between two of these.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// On what a deletion is announced.
#[derive(Clone, Copy, Debug)]
pub enum Bearer<'a> {
    /// The file whose object may be deleted. One that is gone needs no announcement.
    File(&'a dyn FileSystem, Fid),
    /// No file's archive can write to that key.
    Nobody,
}

/// What is said of deletions on a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// None concerns the key.
    Nothing,
    /// One may have, and is over.
    Over,
    /// One may be under way.
    UnderWay,
}

/// Whether it is said on the file.
#[derive(Clone, Copy, Debug)]
enum Stand {
    Unsaid,
    Since(Instant),
    /// There is no file.
    Needless,
}

/// A deletion, from before the look at its object until it is answered. [`Announcement::end`] takes the words back.
#[derive(Debug)]
pub(super) struct Announcement<'a> {
    bearer: Bearer<'a>,
    at: KeyAt<'a>,
    number: Cell<u64>,
    stand: Cell<Stand>,
    /// DELETEs that were sent and not answered: each of them may arrive yet, whatever later ones were told.
    unanswered: Cell<u32>,
    /// A DELETE was answered: what was there is gone.
    done: Cell<bool>,
}

impl<'a> Announcement<'a> {
    /// Says nothing yet.
    pub(super) fn new(bearer: Bearer<'a>, at: KeyAt<'a>) -> Self {
        Self {
            bearer,
            at,
            number: Cell::new(fastrand::u64(..)),
            stand: Cell::new(Stand::Unsaid),
            unanswered: Cell::new(0),
            done: Cell::new(false),
        }
    }

    /// Says it on the file, unless that is done. Whether what was just looked at may be deleted by that look: `false`, as it
    /// is said only now, and has to be looked at once more.
    ///
    /// # Errors
    /// It can't be announced.
    pub(super) fn covers_look(&self) -> Result<bool, TransferError> {
        let Bearer::File(fs, fid) = self.bearer else {
            return Ok(true);
        };
        match self.stand.get() {
            Stand::Needless => return Ok(true),
            Stand::Since(since) if since.elapsed() < FRESH => return Ok(true),
            Stand::Since(_) | Stand::Unsaid => {}
        }
        if matches!(self.stand.get(), Stand::Since(_)) {
            let former = self.number.replace(fastrand::u64(..));
            if let Err(error) = fs.withdraw_deletion(fid, former) {
                tracing::debug!(%fid, %error, "old words of a deletion stay");
            }
        }
        let since = Instant::now();
        let words = words(fid, self.at);
        match fs.announce_deletion(fid, self.number.get(), &words) {
            Ok(()) => {
                self.stand.set(Stand::Since(since));
                Ok(false)
            }
            Err(error) if error.is_not_found() => {
                self.stand.set(Stand::Needless);
                Ok(true)
            }
            Err(error) => Err(TransferError::Announcement(error)),
        }
    }

    /// Waits for a DELETE.
    pub(super) async fn send(&self, deletion: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        // Before it is waited for: whoever is out of time drops this.
        self.unanswered.update(|sent| sent + 1);
        let result = deletion.await;
        let is_answer = match &result {
            Ok(()) | Err(StoreError::Throttled { .. }) => true,
            Err(error) => !error.is_transient(),
        };
        if is_answer {
            self.unanswered.update(|sent| sent - 1);
        }
        if result.is_ok() {
            self.done.set(true);
        }
        result
    }

    /// Nothing more is sent.
    pub(super) fn end(self) {
        let (Bearer::File(fs, fid), Stand::Since(_)) = (self.bearer, self.stand.get()) else {
            return;
        };
        let key = self.at.key;
        if self.unanswered.get() > 0 {
            tracing::info!(%fid, %key, "a DELETE was not answered and may arrive yet: for an hour archives of the file keep away \
                from the key");
            return;
        }
        let noted = match self.done.get() {
            true => fs.note_deletion(fid, &words(fid, self.at)),
            false => Ok(()),
        };
        match noted.and_then(|()| fs.withdraw_deletion(fid, self.number.get())) {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(%fid, %key, %error, "what was said on the file of a deletion can't be taken back: for an \
                hour archives of it keep away from the key")
            }
        }
    }
}

/// When, of which file and which object: attributes of a file go along with whoever copies it as root.
fn words(fid: Fid, at: KeyAt<'_>) -> Vec<u8> {
    let (now, id, fid, key) = (
        Timestamp::now().seconds,
        at.archive_id.get(),
        fid.bare(),
        at.key.as_str(),
    );
    format!("1 {now} {id} {fid} {key}").into_bytes()
}

#[derive(PartialEq, Eq, Debug)]
struct Words<'a> {
    seconds: i64,
    fid: Fid,
    archive_id: u32,
    key: &'a str,
}

impl<'a> Words<'a> {
    /// `None`: nobody's of ours.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(bytes).ok()?.strip_prefix("1 ")?.splitn(4, ' ');
        Some(Self {
            seconds: fields.next()?.parse().ok()?,
            archive_id: fields.next()?.parse().ok()?,
            fid: fields.next()?.parse().ok()?,
            key: fields.next()?,
        })
    }

    fn counts(&self, fid: Fid, limit: u64) -> bool {
        self.fid == fid && Timestamp::now().seconds.abs_diff(self.seconds) < limit
    }
}

/// What is said on a file of deletions that may concern a key.
fn said(fs: &dyn FileSystem, fid: Fid, at: KeyAt<'_>) -> Result<Said, HsmError> {
    let deletions = fs.deletions(fid)?;
    let mut is_under_way = false;
    for (number, words) in &deletions.announced {
        match Words::read(words) {
            Some(words) if words.counts(fid, COUNTS) => {
                is_under_way |= words.archive_id == at.archive_id.get() && words.key == at.key.as_str();
            }
            // A dead mover's, or another file's that came along with a copy; nobody says them anew.
            Some(_) => drop(fs.withdraw_deletion(fid, *number)),
            None => {}
        }
    }
    if is_under_way {
        return Ok(Said::UnderWay);
    }
    // Later ones take the place of earlier ones, at whatever key.
    let is_over = |bytes: &[u8]| Words::read(bytes).is_some_and(|words| words.counts(fid, REMEMBERED));
    Ok(match deletions.done.as_deref().is_some_and(is_over) {
        true => Said::Over,
        false => Said::Nothing,
    })
}

impl Transfer<'_> {
    /// What is said of deletions on a file to whose key an object was just written, when those under way have ended: they get
    /// two seconds for it.
    ///
    /// # Errors
    /// The file can't be asked, or the stop of the control.
    pub fn wait_for_deletions(self, fs: &dyn FileSystem, fid: Fid, at: KeyAt<'_>) -> Result<Said, TransferError> {
        let longest = self.lane.options().retry.longest_pause.min(LONGEST_PAUSE);
        let mut pause = (self.lane.options().retry.first_pause / 4).min(longest);
        let mut met = false;
        for look in 1..=LOOKS {
            match said(fs, fid, at) {
                Ok(Said::Nothing) if met => return Ok(Said::Over),
                Ok(Said::UnderWay) => met = true,
                Ok(said) => return Ok(said),
                // Nobody will ask for its copy.
                Err(error) if error.is_not_found() => return Ok(Said::Nothing),
                Err(error) => return Err(TransferError::Announcement(error)),
            }
            if look < LOOKS {
                self.lane.block_on(async {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.control.wait_stopped() => {}
                    }
                });
                pause = (pause * 2).min(longest);
            }
            if let Some(stop) = self.control.stopped() {
                return Err(TransferError::Stopped(stop));
            }
        }
        Ok(Said::UnderWay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ObjectKey;
    use crate::types::ArchiveId;

    const FILE: Fid = Fid {
        seq: 0x2_0000_0401,
        oid: 9,
        ver: 0,
    };

    #[test]
    fn words_say_when_of_which_file_and_which_object() {
        let id = ArchiveId::new(3).unwrap();
        for key in ["a", "dir/two words", "x 1 2 3"] {
            let words = words(FILE, ObjectKey::new(key).unwrap().at(id));
            let read = Words::read(&words).unwrap();
            assert_eq!((read.fid, read.archive_id, read.key), (FILE, 3, key));
            assert!(read.counts(FILE, 60) && !read.counts(Fid { oid: 8, ..FILE }, 60));
        }
        for bytes in [
            &b""[..],
            b"2 1 1 0x1:0x1:0x0 k",
            b"1 x 1 0x1:0x1:0x0 k",
            b"1 1 1 0x1:0x1:0x0",
            b"\xff",
        ] {
            assert_eq!(Words::read(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_a_dead_mover_said_counts_for_an_hour_whosever_clock_is_fast() {
        let at = |ago: i64| Words {
            seconds: Timestamp::now().seconds - ago,
            fid: FILE,
            archive_id: 1,
            key: "k",
        };
        for (ago, counts) in [(0, true), (3000, true), (-3000, true), (3700, false), (-3700, false)] {
            assert_eq!(at(ago).counts(FILE, COUNTS), counts, "{ago}");
        }
    }
}
