//! One file, what is done with it, and what must be true of it then.

use std::fs;

use lhsm_sandbox::protocol::{Action, Fid, states};
use lhsm_sandbox_s3::Gate;

use super::{DONE, LARGE, Left, Told, Verb};
use crate::rig::{BUCKET, PATIENCE, Rig, noise};

const MAP: &str = "trusted.lhsm_s3";

/// A file that is ready for its verb.
pub(super) struct Case {
    pub(super) verb: Verb,
    /// Where it is.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) fid: Fid,
    pub(super) former: Vec<u8>,
    pub(super) content: Vec<u8>,
}

impl Case {
    pub(super) fn new(rig: &mut Rig, verb: Verb, size: usize) -> Self {
        let name = format!("{verb:?}-{size}").to_lowercase();
        let former = noise(size);
        let fid = rig.file(&name, &former);
        let mut content = former.clone();
        if verb != Verb::Archive {
            rig.archive(fid);
        }
        match verb {
            Verb::Archive | Verb::Remove => {}
            Verb::Restore => rig.release(fid),
            Verb::Rearchive => {
                content.push(0);
                content.reverse();
                fs::write(rig.mount().join(&name), &content).unwrap();
            }
        }
        Self {
            verb,
            key: name.clone(),
            name,
            fid,
            former,
            content,
        }
    }

    pub(super) fn is_large(&self) -> bool {
        self.former.len() >= LARGE
    }

    pub(super) fn request(&self, rig: &mut Rig) {
        rig.client.request(self.verb.action(), 1, &[self.fid]).unwrap();
    }

    /// The store's operation that moves the bytes, or the first that a remove needs.
    pub(super) fn data_op(&self) -> &'static str {
        match self.verb {
            Verb::Restore => "GetObject",
            Verb::Remove => "HeadObject",
            Verb::Archive | Verb::Rearchive if self.is_large() => "UploadPart",
            Verb::Archive | Verb::Rearchive => "PutObject",
        }
    }

    /// The one that changes something in the bucket; when it is held, the whole file has been read.
    pub(super) fn last_op(&self) -> &'static str {
        match self.data_op() {
            "HeadObject" => "DeleteObject",
            "UploadPart" => "CompleteMultipartUpload",
            other => other,
        }
    }

    /// Requests the action, which is held at an operation of the store then.
    pub(super) fn request_held(&self, rig: &mut Rig, op: &str) -> Gate {
        let gate = rig.store.faults().hold(op);
        self.request(rig);
        assert!(gate.wait_held_blocking(1, PATIENCE), "{}", rig.log());
        gate
    }

    /// Changes the file to this.
    pub(super) fn write(&mut self, rig: &Rig, content: Vec<u8>) {
        fs::write(rig.mount().join(&self.name), &content).unwrap();
        self.content = content;
    }

    pub(super) fn usually_left(&self, done: bool) -> Left {
        match (self.verb, done) {
            (Verb::Archive, false) | (Verb::Remove, true) => Left::Nothing,
            (Verb::Rearchive | Verb::Remove, false) | (Verb::Restore, _) => Left::Former,
            (Verb::Archive | Verb::Rearchive, true) => Left::New,
        }
    }

    pub(super) fn states(&self, done: bool) -> u32 {
        let archived = states::EXISTS | states::ARCHIVED;
        match (self.verb, done) {
            (Verb::Archive | Verb::Rearchive | Verb::Restore, true) => archived,
            (Verb::Remove, true) => 0,
            // Nobody may release a file whose copy is about to go.
            (Verb::Archive | Verb::Remove, false) => states::EXISTS,
            (Verb::Restore, false) => archived | states::RELEASED,
            (Verb::Rearchive, false) => archived | states::DIRTY,
        }
    }

    pub(super) fn told(&self, rig: &mut Rig) -> (i32, u32) {
        let actions = rig.client.actions().unwrap();
        let verb = self.verb.action();
        let mut latest = actions.iter().rev();
        let action = latest.find(|a| a.fid == self.fid && a.action == verb).unwrap();
        (action.errval, action.ends)
    }

    /// What must be true as soon as the action is over.
    pub(super) fn check(&self, rig: &mut Rig, told: Told, left: Left) {
        let what = format!(
            "{:?} of {}, {told:?}, {left:?}; the log:\n{}",
            self.verb,
            self.name,
            rig.log()
        );
        let expected = match told {
            Told::Errno(errno) => (errno, 1),
            Told::Nothing => (0, 0),
        };
        assert_eq!(self.told(rig), expected, "{what}");
        let done = told == DONE;
        let mut states = rig.client.state(self.fid).unwrap().states;
        if self.verb == Verb::Archive && !done {
            // Where the file was changed meanwhile.
            states &= !states::DIRTY;
        }
        assert_eq!(states, self.states(done), "{what}");
        if states & states::RELEASED == 0 {
            assert!(rig.read(&self.name) == self.content, "{what}");
        }
        self.check_bucket(rig, left, &what);
        if self.verb == Verb::Archive {
            assert_eq!(rig.client.xattr(self.fid, MAP).is_ok(), done, "{what}");
        }
    }

    fn check_bucket(&self, rig: &mut Rig, left: Left, what: &str) {
        assert_eq!(rig.store.uploads(BUCKET), [], "{what}");
        let objects = rig.store.objects(BUCKET);
        let keys: Vec<_> = objects.iter().map(|object| object.key.as_str()).collect();
        let body = rig.store.object_body(BUCKET, &self.key);
        match left {
            Left::Nothing => assert_eq!(keys, Vec::<&str>::new(), "{what}"),
            Left::Former => {
                assert_eq!(keys, [self.key.as_str()], "{what}");
                assert!(body.as_ref() == Some(&self.former), "{what}");
                let record = rig.client.xattr(self.fid, MAP).unwrap();
                let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
                assert_eq!(record["key"], self.key.as_str(), "{what}");
                let etag = record["etag"].as_str().unwrap().trim_matches('"');
                assert_eq!(etag, objects[0].etag, "{what}");
            }
            Left::New => {
                assert_eq!(keys, [self.key.as_str()], "{what}");
                assert!(body.as_ref() == Some(&self.content), "{what}");
            }
        }
    }

    /// The fault is over: what was not done can be done, the copy is the file, and nothing is left of it in the end.
    pub(super) fn afterwards(&self, rig: &mut Rig, done: bool) {
        match self.verb {
            Verb::Archive | Verb::Rearchive => {
                if !done {
                    rig.archive(self.fid);
                }
                let body = rig.store.object_body(BUCKET, &self.key);
                assert!(body.as_ref() == Some(&self.content), "{}", rig.log());
                rig.release(self.fid);
                assert!(rig.restore(&self.name, self.fid) == self.content, "{}", rig.log());
            }
            Verb::Restore if !done => {
                assert!(rig.restore(&self.name, self.fid) == self.content, "{}", rig.log());
            }
            Verb::Restore | Verb::Remove => {}
        }
        if self.verb != Verb::Remove || !done {
            let state = rig.act(Action::Remove, self.fid);
            assert_eq!(state.states, 0, "{}", rig.log());
        }
        assert_eq!(rig.keys(), Vec::<String>::new(), "{}", rig.log());
        assert_eq!(rig.store.uploads(BUCKET), []);
    }
}
