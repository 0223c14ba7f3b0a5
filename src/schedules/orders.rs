//! Orders of events that chance hardly comes to, each made by hand: what is left by a mover that was cut off and whose calls came
//! behind those of others.

use std::sync::Arc;

use super::mdt::Mdt;
use super::world::{Broken, Door, NAME, SCRUB, World, bytes_of};
use super::{ARCHIVE, Common, archive, options};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::{Held, Journal, UploadRecord};
use crate::mapped;
use crate::mislaid::{self, ArchivedData, Likeness, PutRight, SaidCopy, Seen};
use crate::store::memory::target;
use crate::store::{
    KeyLayout, Location, ObjectInfo, ObjectKey, Owner, WriteAttempt, WriterId, name_key, note_data_version,
};
use crate::thread::Supervisor;
use crate::transfer::{Control, Lane, Transfer};
use crate::types::{Cookie, Extent, Fid, Timestamp};
use crate::worker::{Context, tried};

/// The data version that was archived, and one that came before.
const COUNTS: u64 = 7;
const FORMER: u64 = 6;

/// One archived file, and nobody who does anything.
struct Scene {
    world: Arc<World>,
    context: Context,
    lane: Lane,
    control: Arc<Control>,
    fid: Fid,
    /// What the lane's requests run on.
    _common: Common,
}

impl Scene {
    fn new(layout: KeyLayout, versioned: bool) -> Self {
        let common = Common::new();
        let world = World::new(1, Broken::Nothing, layout, None);
        world.stand_in(SCRUB);
        let store = {
            let _on_it = common.runtime.enter();
            Arc::new(target(archive(layout), Arc::new(Door)))
        };
        let fid = world.with(|state| {
            state.bucket.versioned = versioned;
            let node = &mut state.nodes[0];
            (node.exists, node.archived) = (true, true);
            (node.data_version, node.archived_version) = (COUNTS, COUNTS);
            node.fid
        });
        Self {
            context: common.context(&world),
            lane: Lane::new(&[store], options()).expect("a lane"),
            control: Arc::new(Control::default()),
            world,
            fid,
            _common: common,
        }
    }

    fn fs(&self) -> Mdt {
        Mdt(Arc::clone(&self.world))
    }

    fn transfer(&self) -> Transfer<'_> {
        Transfer::new(&self.lane, &self.control)
    }

    fn key(&self) -> ObjectKey {
        let key = self.world.with(|state| state.key_of(&state.nodes[0]));
        ObjectKey::new(key).expect("a key")
    }

    fn beside(&self) -> ObjectKey {
        self.key().beside(self.fid).expect("a key")
    }

    /// An object of the file as it was at some data version; `mtime`: with the time of its last change. What a record of it says.
    fn put(&self, key: &ObjectKey, version: u64, writer: u64, mtime: bool) -> Location {
        let author = WriteAttempt {
            owner: Owner {
                fs: NAME.to_owned(),
                fid: self.fid,
            },
            cookie: Cookie(writer),
            writer: WriterId(writer),
        };
        let mut metadata = Default::default();
        author.sign(&mut metadata);
        name_key(&mut metadata, key);
        note_data_version(&mut metadata, Some(version));
        self.world.with(|state| {
            if mtime && let Some(Timestamp { seconds, nanos }) = state.nodes[0].mtime() {
                metadata.insert("file-mtime".to_owned(), format!("{seconds}{nanos:09}ns"));
            }
            state
                .bucket
                .put(key.as_str(), bytes_of(version), metadata.into_iter().collect());
        });
        self.found(key).at(key.at(ARCHIVE))
    }

    fn found(&self, key: &ObjectKey) -> ObjectInfo {
        self.transfer().head(key.at(ARCHIVE), None).expect("an object")
    }

    fn set_record(&self, record: Option<&Location>) {
        self.world
            .with(|state| state.nodes[0].record = record.map(Location::to_bytes));
    }

    fn record(&self) -> Option<Location> {
        let record = self.world.with(|state| state.nodes[0].record.clone());
        record.map(|record| Location::from_bytes(&record).expect("a record"))
    }

    /// What a restore would take instead of what is said.
    fn find(&self, said: &Location, seen: Seen<'_>) -> Option<Location> {
        let archived = ArchivedData::of(&self.fs(), self.fid).expect("a file");
        let said = SaidCopy { location: said, seen };
        let natural = vec![(ARCHIVE, self.key())];
        let found = mislaid::find(self.transfer(), &archived, Some(said), natural, Likeness::Time);
        found.expect("an answer").map(|found| found.location)
    }

    fn put_right(&self, copy: &Location) -> PutRight {
        let seen = self.record().map(|record| record.to_bytes());
        let result = mislaid::put_right(self.transfer(), &self.fs(), self.fid, seen.as_deref(), copy);
        result.expect("an answer")
    }

    fn words(&self, key: &ObjectKey) -> Vec<u8> {
        let (now, id, fid) = (Timestamp::now().seconds, ARCHIVE.get(), self.fid.bare());
        format!("1 {now} {id} {fid} {key}").into_bytes()
    }
}

#[test]
fn the_copy_is_found_below_what_came_late_at_whatever_time_the_file_was_changed() {
    for same_time in [false, true] {
        let scene = Scene::new(KeyLayout::Path, true);
        let key = scene.key();
        let former = scene.put(&key, FORMER, 1, same_time);
        let copy = scene.put(&key, COUNTS, 2, true);
        // Only the record came late.
        assert_eq!(scene.find(&former, Seen::Not), Some(copy.clone()), "{same_time}");
        // So did the object.
        let late = scene.put(&key, FORMER, 1, same_time);
        for said in [&former, &late] {
            assert_eq!(scene.find(said, Seen::Not), Some(copy.clone()), "{same_time}");
            assert_eq!(scene.find(said, Seen::Gone), Some(copy.clone()), "{same_time}");
        }
        // The record is right.
        assert_eq!(scene.find(&copy, Seen::Not), None);
    }
}

#[test]
fn an_archive_that_came_late_has_its_record_name_the_copy_below_its_own() {
    for is_kept in [true, false] {
        let scene = Scene::new(KeyLayout::Path, true);
        let key = scene.key();
        let copy = is_kept.then(|| scene.put(&key, COUNTS, 2, true));
        let own = scene.put(&key, FORMER, 1, false);
        scene.set_record(Some(&own));
        let item = Item {
            kind: Kind::Do(Verb::Archive),
            fid: scene.fid,
            dfid: scene.fid,
            cookie: Cookie(1),
            archive_id: Some(ARCHIVE),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        };
        let gave_way = tried::give_way(&scene.context, &scene.lane, &scene.control, &item, &own);
        assert_eq!(gave_way, is_kept, "what nobody finds is not to be released");
        assert_eq!(scene.record(), copy.or(Some(own)));
    }
}

#[test]
fn an_object_with_what_was_archived_may_be_the_copy_wherever_it_lies_and_whatever_a_late_record_says() {
    for layout in [KeyLayout::Path, KeyLayout::Fid] {
        let scene = Scene::new(layout, false);
        let (fs, beside) = (scene.fs(), scene.beside());
        scene.put(&beside, COUNTS, 2, true);
        let found = scene.found(&beside);
        let may_mean = || mapped::may_mean(&fs, scene.fid, beside.at(ARCHIVE), &found);
        assert!(may_mean(), "{layout:?}: without a record");
        // As many bytes, and the same ones: the file was only touched. What the record names may be gone all the same.
        let late = Location {
            key: scene.key(),
            data_version: Some(FORMER),
            ..found.at(beside.at(ARCHIVE))
        };
        scene.set_record(Some(&late));
        assert!(may_mean(), "{layout:?}: with a late record");
        scene.set_record(Some(&Location {
            data_version: Some(COUNTS),
            ..late
        }));
        assert!(!may_mean(), "{layout:?}: with a record of what was archived");
    }
}

#[test]
fn a_record_is_put_right_unless_the_object_may_be_deleted() {
    let scene = Scene::new(KeyLayout::Path, false);
    let key = scene.key();
    let copy = scene.put(&key, COUNTS, 2, true);
    let late = Location {
        key: scene.beside(),
        data_version: Some(FORMER),
        ..copy.clone()
    };
    scene.set_record(Some(&late));
    // Under way.
    let announced = |words| {
        scene
            .world
            .with(|state| state.nodes[0].deletions.announced = vec![(3, words)]);
    };
    announced(scene.words(&key));
    assert_eq!(scene.put_right(&copy), PutRight::Doomed);
    assert_eq!(scene.record(), Some(late.clone()));
    // Of another object.
    announced(scene.words(&scene.beside()));
    assert_eq!(scene.put_right(&copy), PutRight::Done);
    assert_eq!(scene.record(), Some(copy.clone()));
    // It is over, and what it took away was something else, or this.
    for (is_there, expected) in [(true, PutRight::Done), (false, PutRight::Doomed)] {
        let words = scene.words(&key);
        scene.set_record(Some(&late));
        scene.world.with(|state| {
            state.nodes[0].deletions.announced.clear();
            state.nodes[0].deletions.done = Some(words);
            if !is_there {
                state
                    .bucket
                    .put(key.as_str(), b"another's".to_vec(), Default::default());
            }
        });
        assert_eq!(scene.put_right(&copy), expected);
        let record = if is_there { &copy } else { &late };
        assert_eq!(scene.record().as_ref(), Some(record));
    }
    // Another one has written it since.
    let seen = late.to_bytes();
    scene.set_record(None);
    let changed = mislaid::put_right(scene.transfer(), &scene.fs(), scene.fid, Some(&seen), &copy);
    assert_eq!(changed.expect("an answer"), PutRight::Changed);
    assert_eq!(scene.record(), None);
}

#[test]
fn what_a_dead_archive_left_stays_with_its_sidecar_where_a_late_record_hides_that_it_is_the_copy() {
    for is_copy in [true, false] {
        let mut scene = Scene::new(KeyLayout::Path, false);
        let journal = Journal::in_memory(&Supervisor::default(), &Held::default());
        scene.context.journal = Arc::new(journal);
        let key = scene.key();
        let (left, named) = match is_copy {
            true => (COUNTS, FORMER),
            false => (FORMER, COUNTS),
        };
        let written = scene.put(&key, left, 2, false);
        let sidecar = ObjectKey::sidecar("", scene.fid, WriterId(2)).expect("a key");
        scene.put(&sidecar, left, 2, false);
        scene.set_record(Some(&Location {
            key: scene.beside(),
            data_version: Some(named),
            ..written
        }));
        let action = ActionKey {
            cookie: Cookie(9),
            fid: scene.fid,
        };
        let upload = UploadRecord::single(ARCHIVE, &key, WriterId(2));
        scene.context.journal.uploading(action, &upload);
        // An answer may get lost.
        assert!((0..9).any(|_| tried::sweep(&scene.context, &scene.lane, action)));
        let is_there = |key: &ObjectKey| scene.world.with(|state| state.bucket.current(key.as_str()).is_some());
        assert_eq!((is_there(&key), is_there(&sidecar)), (is_copy, is_copy));
    }
}
