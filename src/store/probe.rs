//! Whether a store keeps its word on conditions. Some take `If-Match` and `If-None-Match` and ignore them, some heed
//! them when an object is put and not when an upload is completed: what guards somebody's only copy is believed once it
//! was seen to refuse. Tried with objects of our own, which are removed.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{
    COOKIE, Checksum, Condition, Conditions, ListFrom, ObjectKey, Payload, Proof, ProofDigest, Query, Quirk, Store,
    StoreError, StoredPart, WriterId,
};
use crate::types::{Fid, Timestamp};

/// What is written.
const BODY: &[u8] = b"lhsmtool-s3 tries what the store does";
/// Of no object.
const OTHER: &str = "\"00000000000000000000000000000000\"";

/// The file of these objects.
const NOBODY: Fid = Fid { seq: 0, oid: 0, ver: 0 };
/// Seconds until an object of a trial is one that somebody left behind.
const LONGEST_TRIAL: i64 = 3600;
/// More than a trial makes versions of an object.
const MOST_VERSIONS: usize = 16;

/// What the keys of these objects begin with, and no other's.
fn probes(prefix: &str) -> Option<String> {
    let key = ObjectKey::sidecar(prefix, NOBODY, WriterId(0)).ok()?;
    let (name, _) = key.as_str().rsplit_once('.')?;
    Some(format!("{name}."))
}

/// What was found of one condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConditionTest {
    /// It was refused when it did not hold, and taken when it did.
    Heeded,
    /// The write was made although the condition did not hold.
    Ignored,
    /// The store refuses the condition itself, or a write that meets it.
    Refused(String),
}

/// A condition that refuses everything guards nothing that can be used.
fn taken(result: Result<(), StoreError>) -> Result<ConditionTest, StoreError> {
    match result {
        Ok(()) => Ok(ConditionTest::Heeded),
        Err(error @ StoreError::Precondition { .. }) => Ok(ConditionTest::Refused(format!(
            "the object's own ETag is refused: {error}"
        ))),
        Err(error) => Err(error),
    }
}

impl ConditionTest {
    fn of(result: Result<(), StoreError>) -> Result<Self, StoreError> {
        match result {
            Ok(()) => Ok(Self::Ignored),
            Err(StoreError::Precondition { .. }) => Ok(Self::Heeded),
            Err(error @ (StoreError::Unsupported { .. } | StoreError::Refused { .. })) => {
                Ok(Self::Refused(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a write may rely on it.
    #[must_use]
    pub fn is_heeded(&self) -> bool {
        *self == Self::Heeded
    }
}

/// All conditions that are used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConditionTests {
    /// PutObject, If-None-Match.
    pub put_absent: ConditionTest,
    /// PutObject, If-Match.
    pub put_match: ConditionTest,
    /// CompleteMultipartUpload, If-None-Match.
    pub complete_absent: ConditionTest,
    /// CompleteMultipartUpload, If-Match.
    pub complete_match: ConditionTest,
    /// DeleteObject, If-Match.
    pub delete_match: ConditionTest,
}

impl ConditionTests {
    /// What guards writes; a delete is looked at before anyhow.
    #[must_use]
    pub fn writes_are_guarded(&self) -> bool {
        [
            &self.put_absent,
            &self.put_match,
            &self.complete_absent,
            &self.complete_match,
        ]
        .iter()
        .all(|heed| heed.is_heeded())
    }

    /// Each with its name, as `check` has them.
    #[must_use]
    pub const fn rows(&self) -> [(&'static str, &ConditionTest); 5] {
        [
            ("If-None-Match on PutObject", &self.put_absent),
            ("If-Match on PutObject", &self.put_match),
            ("If-None-Match on CompleteMultipartUpload", &self.complete_absent),
            ("If-Match on CompleteMultipartUpload", &self.complete_match),
            ("If-Match on DeleteObject", &self.delete_match),
        ]
    }
}

/// The body of what is in memory: there is none that comes as it is read.
#[derive(Debug)]
enum Nothing {}

impl http_body::Body for Nothing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        match *self.get_mut() {}
    }
}

fn sums(store: &Store) -> (Checksum, Option<Proof>) {
    let mut prover = ProofDigest::new(store.target().checksum);
    prover.update(BODY);
    (prover.checksum(), prover.proof())
}

fn body(store: &Store) -> Payload<Nothing> {
    Payload::Whole(Bytes::from_static(BODY), sums(store).1)
}

/// Ours, of no file.
fn mark() -> HashMap<String, String> {
    HashMap::from([(COOKIE.to_owned(), "probe".to_owned())])
}

impl Store {
    /// Whether conditions were tried, or need not be.
    #[must_use]
    pub fn conditions_are_known(&self) -> bool {
        self.target().conditions == Conditions::Look
            || self.quirks().has(Quirk::Conditions)
            || self.quirks().has(Quirk::NoConditions)
    }

    /// `true` for the one who is to try them: others do without meanwhile.
    #[must_use]
    pub fn claims_trial(&self) -> bool {
        !self.conditions_are_known() && self.quirks().learn(Quirk::ConditionsTried)
    }

    /// Whether writes may be made, by what is known of their conditions.
    ///
    /// # Errors
    /// They are ignored, and `conditions = "require"`.
    pub fn may_write(&self) -> Result<(), StoreError> {
        match self.target().conditions == Conditions::Require && self.quirks().has(Quirk::NoConditions) {
            true => Err(StoreError::Unsupported {
                operation: "PutObject",
                code: "it does not keep If-Match or If-None-Match, and conditions = \"require\"".into(),
            }),
            false => Ok(()),
        }
    }

    /// Tries all conditions, and remembers for all threads what came of it.
    ///
    /// # Errors
    /// The store does not answer, or an object can't be written.
    pub async fn try_conditions(&self) -> Result<ConditionTests, StoreError> {
        self.quirks().learn(Quirk::ConditionsTried);
        // A class would bill each of them for months; tags and an ACL that a store does not know say nothing of conditions.
        let tried = self.without_extras().tried_with_objects().await;
        if tried.as_ref().is_err_and(StoreError::is_transient) {
            // The next one may find it better.
            self.quirks().unlearn(Quirk::ConditionsTried);
        }
        tried
    }

    /// What is learned of it is never forgotten: no odd answer on the way decides alone that a store lacks them.
    async fn tried_with_objects(&self) -> Result<ConditionTests, StoreError> {
        let mut found = self.tried_with_an_object().await?;
        if !found.writes_are_guarded() {
            found = Box::pin(self.tried_with_an_object()).await?;
        }
        self.remember(&found);
        self.sweep_probes().await;
        Ok(found)
    }

    /// Takes away what trials of this process left that ran out of time, and what processes left that were killed while they
    /// tried. No other process tries for so long.
    async fn sweep_probes(&self) {
        for key in self.quirks().left_probes() {
            Box::pin(self.remove_probe(&key)).await;
        }
        let Some(prefix) = probes(&self.target().prefix) else {
            return;
        };
        let query = Query::below(&prefix, &ListFrom::Start);
        let listed = match self.list(query).await {
            Ok(page) => page.entries,
            Err(error) => {
                tracing::debug!(%error, "what was made to try the store before can't be listed");
                return;
            }
        };
        let before = Timestamp::now().seconds - LONGEST_TRIAL;
        for entry in listed
            .into_iter()
            .filter(|entry| entry.modified.is_some_and(|at| at < before))
        {
            let key = String::from_utf8(entry.key)
                .ok()
                .and_then(|key| ObjectKey::new(key).ok());
            let Some(key) = key else {
                continue;
            };
            Box::pin(self.remove_probe(&key)).await;
        }
    }

    /// All of it, version by version: a marker over them would stay.
    async fn remove_probe(&self, key: &ObjectKey) {
        for _ in 0..MOST_VERSIONS {
            let removed = match self.head(key, None).await {
                Ok(found) => self.delete(key, found.version.as_deref(), Some(&found.etag)).await,
                Err(StoreError::NotFound { .. }) => break,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::debug!(%key, %error, "an object that was made to try the store could not be deleted");
                return;
            }
        }
        self.quirks().removed_probe(key);
    }

    async fn tried_with_an_object(&self) -> Result<ConditionTests, StoreError> {
        // Among the sidecars: what a killed process leaves is no file that an import would make.
        let key = ObjectKey::sidecar(&self.target().prefix, NOBODY, WriterId::random());
        let key = key.map_err(|error| StoreError::Refused {
            operation: "PutObject",
            status: 0,
            code: "the prefix leaves no room for a key".into(),
            message: error.to_string(),
        })?;
        let mut versions = Vec::new();
        self.quirks().makes_probe(&key);
        let found = self.tried(&key, &mut versions).await;
        // Where versions are kept, each by its own: a marker over them would stay.
        let made: Vec<_> = match versions.is_empty() {
            true => vec![None],
            false => versions.iter().map(|version| Some(version.as_str())).collect(),
        };
        for version in made {
            if let Err(error) = self.delete(&key, version, None).await {
                tracing::warn!(%key, %error, "an object that was made to try the store could not be deleted");
            }
        }
        self.quirks().removed_probe(&key);
        found
    }

    fn remember(&self, found: &ConditionTests) {
        let bucket = &self.target().bucket;
        if found.writes_are_guarded() {
            self.quirks().learn(Quirk::Conditions);
        } else {
            for (what, heed) in found.rows().into_iter().take(4).filter(|(_, heed)| !heed.is_heeded()) {
                tracing::warn!(
                    bucket,
                    condition = what,
                    ?heed,
                    "a condition that the store does not keep"
                );
            }
            self.lacks_conditions();
        }
        if !found.delete_match.is_heeded() {
            self.quirks().learn(Quirk::NoDeleteConditions);
        }
    }

    async fn tried(&self, key: &ObjectKey, versions: &mut Vec<String>) -> Result<ConditionTests, StoreError> {
        let put_absent = match self.put_probe(key, &Condition::Absent, versions).await {
            Ok(()) => ConditionTest::of(self.put_probe(key, &Condition::Absent, versions).await)?,
            Err(error @ (StoreError::Unsupported { .. } | StoreError::Refused { .. })) => {
                self.put_probe(key, &Condition::None, versions).await?;
                ConditionTest::Refused(error.to_string())
            }
            Err(error) => return Err(error),
        };
        self.note_md5(key).await?;
        let wrong = Condition::Match(OTHER.into());
        let put_match = match ConditionTest::of(self.put_probe(key, &wrong, versions).await)? {
            ConditionTest::Heeded => taken(self.put_again(key, versions).await)?,
            other => other,
        };
        let (complete_absent, complete_match) = self.tried_uploads(key, versions).await?;
        let deleted = self.delete_told(key, None, Some(OTHER)).await;
        // The marker that a delete without regard has made: it goes with the versions.
        versions.extend(deleted.iter().flatten().cloned());
        let delete_match = ConditionTest::of(deleted.map(drop))?;
        Ok(ConditionTests {
            put_absent,
            put_match,
            complete_absent,
            complete_match,
            delete_match,
        })
    }

    /// With the ETag that is there; in whatever spelling the store takes.
    async fn put_again(&self, key: &ObjectKey, versions: &mut Vec<String>) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let current = Condition::Match(self.head(key, None).await?.etag);
            tries += 1;
            match self.put_probe(key, &current, versions).await {
                Err(StoreError::Learned { .. }) if tries < 3 => {}
                result => return result,
            }
        }
    }

    async fn put_probe(
        &self,
        key: &ObjectKey,
        condition: &Condition,
        versions: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let stored = self.put(key, body(self), condition, mark()).await?;
        versions.extend(stored.version);
        Ok(())
    }

    async fn tried_uploads(
        &self,
        key: &ObjectKey,
        versions: &mut Vec<String>,
    ) -> Result<(ConditionTest, ConditionTest), StoreError> {
        let absent = ConditionTest::of(self.completed(key, &Condition::Absent, versions).await)?;
        let wrong = Condition::Match(OTHER.into());
        let matched = match ConditionTest::of(self.completed(key, &wrong, versions).await)? {
            ConditionTest::Heeded => {
                let current = Condition::Match(self.head(key, None).await?.etag);
                taken(self.completed(key, &current, versions).await)?
            }
            other => other,
        };
        Ok((absent, matched))
    }

    /// An upload of one part, completed on that condition or aborted.
    async fn completed(
        &self,
        key: &ObjectKey,
        condition: &Condition,
        versions: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let upload = self.create_upload(key, mark()).await?;
        let part = self.upload_part(key, &upload, 1, body(self)).await;
        let completed = match part {
            Ok(part) => {
                let (whole, proof) = sums(self);
                let parts: [StoredPart; 1] = [part.proven(proof)];
                let size = BODY.len() as u64;
                let completed = self.complete_upload(key, &upload, &parts, size, whole, condition).await;
                completed.map(|stored| versions.extend(stored.version))
            }
            Err(error) => Err(error),
        };
        if completed.is_err()
            && let Err(error) = self.abort_upload(key, &upload).await
        {
            tracing::debug!(%key, %error, "an upload that was begun to try the store could not be aborted");
        }
        completed
    }

    /// Whether ETags are MD5s here: then they prove what others wrote.
    async fn note_md5(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let found = self.head(key, None).await?;
        // One that is encrypted with a key of KMS or ours says nothing of those that are not.
        let of_etag = found.evidence.iter().find(|evidence| evidence.is_etag);
        if let Some(evidence) = of_etag {
            let mut judge = evidence.judge(None);
            judge.update(BODY);
            let quirk = match judge.agrees() {
                true => Quirk::Md5ETags,
                false => Quirk::OpaqueETags,
            };
            self.quirks().learn(quirk);
        }
        Ok(())
    }

    /// Whether an ETag that has the form of an MD5 is one. AWS says so; of others it is known once they were tried.
    #[must_use]
    pub fn etags_are_md5(&self) -> bool {
        self.quirks().has(Quirk::Md5ETags)
            || (self.target().endpoint_url.is_none() && !self.quirks().has(Quirk::OpaqueETags))
    }

    /// The ETag of an object was seen to be the MD5 of its bytes, or of its parts' MD5s: others' are, too.
    pub fn saw_md5(&self) {
        self.quirks().learn(Quirk::Md5ETags);
    }

    /// `true` once: that objects of others can't be proved is to be said now.
    #[must_use]
    pub fn said_unproven(&self) -> bool {
        self.quirks().learn(Quirk::UnprovenSaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_swept_is_of_no_file() {
        let probes = probes("lab/").unwrap();
        assert_eq!(probes, "lab/.lhsm-s3-metadata/0x0:0x0:0x0.");
        let fid = Fid {
            seq: 0x2_0000_0401,
            oid: 1,
            ver: 0,
        };
        let of_a_file = ObjectKey::sidecar("lab/", fid, WriterId(1)).unwrap();
        assert!(!of_a_file.as_str().starts_with(&probes));
        assert!(super::probes(&"x".repeat(2000)).is_none(), "never the whole bucket");
    }
}
