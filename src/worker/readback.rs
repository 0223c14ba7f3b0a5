//! After the end of an archive that counted: what the file's record says by then, and whether that is right.
//!
//! Between the record and the end, and behind both, others write it: another mover that archives the file as well or puts
//! back what was there before its own attempt, one that was cut off and whose write arrives late, root's `rsync -X`. The
//! coordinator has taken this copy for the file's, so whoever ended the archive sees to it that the record means it, or
//! that nobody can release the file. What is taken from the file is only what the archive gave it: no object that any
//! record means is deleted here, and no attempt's but this one's. Where the key tells all there is to be no record, and one
//! that others wrote meanwhile is seen to as well.

use std::sync::Arc;

use super::attempt::Attempt;
use super::place::StoredCopy;
use crate::store::{Claim, Location, ObjectInfo, Origin};
use crate::transfer::{Control, Lane, Said, Transfer, TransferError};

/// Each answers what another one has just written.
const ROUNDS: usize = 4;

/// What is to be done about a record that is not the one which was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It stays as it is; this attempt's object is garbage, unless something means it.
    Leave,
    /// It is to name this attempt's object again.
    SetAnew,
    /// Which object is the copy can't be told, or none is: nobody may release the file until it is archived again.
    Revoke,
}

/// What a record that is not the one which was written names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    /// No object that could be the copy: there is no record, or that of before, or another file's, or what it names is not
    /// there.
    Nothing,
    /// Another attempt's object, with the same bytes.
    SameBytes,
    /// Another attempt's object, with others: of a version of the file that is older, or newer.
    OtherBytes,
}

/// `archived`: the coordinator takes the file for archived and not changed since. `own_is_there`: this attempt's object is.
const fn step(archived: bool, own_is_there: bool, named: Named) -> Step {
    match (archived, own_is_there, named) {
        // Changed, or its copy was removed: nobody can release it, and the next archive sees to the record.
        (false, _, _) => Step::Leave,
        (true, true, Named::Nothing) => Step::SetAnew,
        // Only who is alive writes a record: the other one came later, and who of the two ends first takes away what the
        // other's record does not mean.
        (true, _, Named::SameBytes) => Step::Leave,
        (true, true, Named::OtherBytes) | (true, false, Named::Nothing | Named::OtherBytes) => Step::Revoke,
    }
}

impl Attempt<'_> {
    /// Sees to the record after an end that counted, at the cost of one call where all is well, and of a look at the object
    /// where it took the place of another attempt's. What the file's copy is then; `None` where it has none, or where that
    /// can't be told.
    pub(super) fn read_back(self, placed: &StoredCopy) -> Option<Location> {
        let (fs, fid) = (self.run.context.fs.as_ref(), self.run.item.fid);
        let own = placed.needs_record.then(|| placed.location.to_bytes());
        let may_be_gone = placed.over_another || (own.is_none() && self.is_told_of_a_deletion(placed));
        for _ in 0..ROUNDS {
            let record = match fs.map(fid) {
                Ok(record) if record == own && (!may_be_gone || self.stands(placed)) => {
                    return Some(placed.location.clone());
                }
                Ok(record) => record,
                // For the remove that comes with its last unlink.
                Err(error) if error.is_not_found() => return Some(placed.location.clone()),
                Err(error) => {
                    tracing::debug!(%error, "the file's record could not be read back");
                    return Some(placed.location.clone());
                }
            };
            match Look::at(self, placed, record.as_deref()) {
                Ok(look) => match self.settle_record(placed, record.as_deref(), look) {
                    Settled::As(location) => return location.map(|location| *location),
                    Settled::ChangedMeanwhile => {}
                },
                Err(error) => {
                    let revoked = fs.is_archived(fid).unwrap_or(true).then(|| fs.revoke(fid));
                    tracing::warn!(key = %placed.location.key, %error, ?revoked, "another one wrote the file's record while it was \
                        archived, and the store does not tell what that names: the file counts as not archived, and the next archive \
                        makes its copy anew");
                    return None;
                }
            }
        }
        tracing::warn!(key = %placed.location.key, "others write the file's record again and again; it stays as it is");
        None
    }

    /// Whether the file tells of a deletion that can have taken its object away before the end counted: without a record it
    /// is that end by which others know it for a copy.
    fn is_told_of_a_deletion(self, placed: &StoredCopy) -> bool {
        let own = &placed.location;
        let (fs, fid) = (self.run.context.fs.as_ref(), self.run.item.fid);
        // The answer is given: nobody stops this.
        let control = Arc::new(Control::default());
        let transfer = Transfer::new(self.run.transfer.lane(), &control);
        own.version.is_none() && !matches!(transfer.wait_for_deletions(fs, fid, own.at()), Ok(Said::Nothing))
    }

    /// Whether the object that took the place of another attempt's is there still: who takes that one away may have deleted
    /// this one, for equal bytes have equal ETags. Without a record whatever has the bytes will do.
    fn stands(self, placed: &StoredCopy) -> bool {
        let own = &placed.location;
        let is_copy = |(found, origin): &(ObjectInfo, Origin)| {
            origin.is_by(self.author) || (!placed.needs_record && origin.is_of(self.owner()) && own.has_bytes_of(found))
        };
        look_at(self.run.transfer.lane(), own).is_ok_and(|there| there.as_ref().is_some_and(is_copy))
    }
}

/// What the store says.
struct Look {
    /// What the record names, where that could be the file's copy.
    theirs: Option<Location>,
    named: Named,
    own_is_there: bool,
    /// What is at this attempt's key instead, if it has the bytes and says that it is this file's.
    instead: Option<Location>,
}

impl Look {
    fn at(attempt: Attempt<'_>, placed: &StoredCopy, record: Option<&[u8]>) -> Result<Self, TransferError> {
        let (lane, author, own) = (attempt.run.transfer.lane(), attempt.author, &placed.location);
        // That of before was put back by an attempt that was undone.
        let put_back = record.is_some() && record == placed.record.as_deref();
        let theirs = record
            .filter(|_| !put_back)
            .and_then(|record| Location::from_bytes(record).ok())
            .filter(|theirs| theirs.claim(&author.owner) == Claim::Own);
        let named = match &theirs {
            None => Named::Nothing,
            Some(theirs) => match look_at(lane, theirs)? {
                Some((found, origin)) if found.etag == theirs.etag && origin.is_of(&author.owner) => {
                    match own.checksum.is_some() && own.checksum == theirs.checksum && own.size == theirs.size {
                        true => Named::SameBytes,
                        false => Named::OtherBytes,
                    }
                }
                _ => Named::Nothing,
            },
        };
        let there = look_at(lane, own)?;
        let own_is_there = there
            .as_ref()
            .is_some_and(|(found, origin)| found.etag == own.etag && origin.is_by(author));
        let instead = there.filter(|(found, origin)| origin.is_of(&author.owner) && own.has_bytes_of(found));
        Ok(Self {
            theirs,
            named,
            own_is_there,
            instead: instead.map(|(found, _)| Location {
                pinned: own.pinned,
                ..found.at(own.at())
            }),
        })
    }
}

fn look_at(lane: &Lane, location: &Location) -> Result<Option<(ObjectInfo, Origin)>, TransferError> {
    let found = lane.glance(location.at(), location.version.as_deref())?;
    Ok(found.map(|found| {
        let origin = Origin::of(&found, &location.key);
        (found, origin)
    }))
}

enum Settled {
    As(Option<Box<Location>>),
    /// The record is another one than the looks were made for.
    ChangedMeanwhile,
}

impl Attempt<'_> {
    fn settle_record(self, placed: &StoredCopy, record: Option<&[u8]>, look: Look) -> Settled {
        let (fs, fid) = (self.run.context.fs.as_ref(), self.run.item.fid);
        let own = &placed.location;
        let key = &own.key;
        // Record and state are asked after the looks: they tell what the looks are good for.
        let archived = match fs.is_archived(fid) {
            Ok(archived) => archived,
            Err(error) => {
                tracing::debug!(%error, "the file's state could not be read back");
                return Settled::As(None);
            }
        };
        match fs.map(fid) {
            Ok(now) if now.as_deref() == record => {}
            Ok(_) => return Settled::ChangedMeanwhile,
            Err(_) => return Settled::As(None),
        }
        let Look {
            theirs,
            named,
            own_is_there,
            instead,
        } = look;
        let theirs = theirs.filter(|_| named != Named::Nothing).map(Box::new);
        match step(archived, own_is_there, named) {
            Step::Leave => {
                tracing::info!(%key, archived, ?named, "another one wrote the file's record since; it stays");
                self.discard(own, theirs.as_deref());
                Settled::As(theirs)
            }
            Step::SetAnew => Settled::As(self.set_anew(own)),
            Step::Revoke => match fs.revoke(fid) {
                Ok(()) => {
                    tracing::warn!(%key, own_is_there, ?named, "another one wrote the file's record, or took the object's place, \
                        while it was archived, and which object is its copy can't be told: the file counts as not archived, and \
                        the next archive makes its copy anew");
                    Settled::As(theirs)
                }
                // It is released: the best there is becomes its copy.
                Err(error) => match instead {
                    Some(instead) if named == Named::Nothing => Settled::As(self.set_anew(&instead)),
                    _ => {
                        tracing::error!(%key, own_is_there, ?named, %error, "another one wrote the file's record while it was \
                            archived, and the file can't be marked as not archived: look whether it can be restored");
                        Settled::As(theirs)
                    }
                },
            },
        }
    }

    fn set_anew(self, location: &Location) -> Option<Box<Location>> {
        match self.run.context.fs.set_map(self.run.item.fid, &location.to_bytes()) {
            Ok(()) => {
                tracing::warn!(key = %location.key, "another one wrote the file's record of its copy while it was archived; it is set \
                    anew");
                Some(Box::new(location.clone()))
            }
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                tracing::error!(key = %location.key, %error, "another one wrote the file's record of its copy while it was archived, \
                    and it can't be set anew: archive the file again");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archived_file_is_left_with_a_copy_that_is_there_or_can_not_be_released() {
        use Named::{Nothing, OtherBytes, SameBytes};
        for own_is_there in [false, true] {
            for named in [Nothing, SameBytes, OtherBytes] {
                assert_eq!(step(false, own_is_there, named), Step::Leave, "nobody can release it");
                let expected = match (own_is_there, named) {
                    (true, Nothing) => Step::SetAnew,
                    (_, SameBytes) => Step::Leave,
                    _ => Step::Revoke,
                };
                assert_eq!(step(true, own_is_there, named), expected, "{own_is_there} {named:?}");
            }
        }
    }
}
