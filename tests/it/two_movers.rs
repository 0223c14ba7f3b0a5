//! Two movers that are given actions of one file: the newer waits for the other's end, and then the file's state decides.

use lhsm_sandbox::protocol::{Action, Fid, RequestInfo, states};

use crate::metrics::address;
use crate::postgres::Postgres;
use crate::rig::{BUCKET, PATIENCE, Rig, noise, until};
use crate::takeover::{Second, in_hand, kill, rig_with, second};

const ALIVE: &str = "[lustre]\nheartbeat = '200ms'\n";
const WAITS: &str = "another mover has an action of the file: this one waits for it";
const CLEAN: u32 = states::EXISTS | states::ARCHIVED;

struct Movers {
    rig: Rig,
    second: Second,
    postgres: Postgres,
}

impl Movers {
    /// `None`: there is no PostgreSQL on this node.
    fn start() -> Option<Self> {
        let postgres = Postgres::start()?;
        let mut rig = rig_with(&postgres, "2s", ALIVE);
        let second = second(&mut rig, &postgres);
        Some(Self { rig, second, postgres })
    }

    fn logs(&self) -> String {
        format!("{}\n{}", self.rig.log(), self.second.log())
    }

    /// Gives an action to the mover that has fewer, and waits until the ledger knows.
    fn ask(&mut self, action: Action, fid: Fid) {
        self.rig.client.request(action, 1, &[fid]).unwrap();
        let cookie = self.actions(fid).last().unwrap().cookie;
        let row = format!("SELECT count(*) FROM lhsmtool_s3.action WHERE cookie = {cookie} AND NOT answered");
        until(|| (self.postgres.number(&row) == 1).then_some(()));
    }

    fn in_hand(&self) -> i64 {
        in_hand(&self.postgres, "mover1") + in_hand(&self.postgres, "mover2")
    }

    /// Until one of them says that it waits.
    fn waits(&self) {
        until(|| self.logs().contains(WAITS).then_some(()));
        let behind = "SELECT count(*) FROM lhsmtool_s3.action WHERE behind";
        until(|| (self.postgres.number(behind) == 1).then_some(()));
    }

    fn actions(&mut self, fid: Fid) -> Vec<RequestInfo> {
        let all = self.rig.client.actions().unwrap().into_iter();
        all.filter(|action| action.fid == fid && action.action != Action::Cancel)
            .collect()
    }

    fn errors(&mut self, fid: Fid) -> Vec<i32> {
        self.actions(fid).iter().map(|action| action.errval).collect()
    }

    fn settle(&mut self, fid: Fid) -> u32 {
        assert!(self.rig.client.wait(&[fid], PATIENCE).unwrap(), "{}", self.logs());
        self.rig.client.state(fid).unwrap().states
    }

    /// The record names the only object that there is, and that has the file's data.
    fn is_whole(&mut self, name: &str, fid: Fid, content: &[u8]) {
        assert_eq!(self.rig.keys(), [name], "{}", self.logs());
        assert_eq!(self.rig.store.object_body(BUCKET, name).as_deref(), Some(content));
        self.rig.release(fid);
        assert_eq!(self.rig.restore(name, fid), content, "{}", self.logs());
    }

    fn end(mut self) {
        until(|| (self.in_hand() == 0).then_some(()));
        self.rig.assert_settled();
        if self.rig.daemon.is_some() {
            assert_eq!(self.rig.stop(), Some(0), "{}", self.rig.log());
        }
        assert!(self.second.daemon.stop(PATIENCE).unwrap().success());
    }
}

#[test]
fn the_newer_of_two_archives_waits_is_reported_alive_and_is_told_that_it_is_done() {
    let Some(mut movers) = Movers::start() else {
        return;
    };
    let content = noise(7000);
    let fid = movers.rig.file("file", &content);
    let puts = movers.rig.store.faults().hold("PutObject");
    movers.ask(Action::Archive, fid);
    assert!(puts.wait_held_blocking(1, PATIENCE));
    movers.ask(Action::Archive, fid);
    movers.waits();
    until(|| {
        let newer = &movers.actions(fid)[1];
        assert_eq!(newer.ends, 0, "{newer:?}");
        (newer.progress >= 3).then_some(())
    });
    let status = movers.rig.run(&["status", "--movers", &address(&movers.second.log())]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("1 waiting for mover1 to be done with the same files"),
        "{status}"
    );
    puts.release();
    assert_eq!(movers.settle(fid), CLEAN, "{}", movers.logs());
    assert_eq!(movers.errors(fid), [0, libc::EALREADY], "{}", movers.logs());
    movers.is_whole("file", fid, &content);
    movers.end();
}

#[test]
fn a_remove_waits_for_another_movers_archive_and_takes_its_copy_away() {
    let Some(mut movers) = Movers::start() else {
        return;
    };
    let fid = movers.rig.file("file", b"data");
    let puts = movers.rig.store.faults().hold("PutObject");
    movers.ask(Action::Archive, fid);
    assert!(puts.wait_held_blocking(1, PATIENCE));
    movers.ask(Action::Remove, fid);
    movers.waits();
    puts.release();
    assert_eq!(movers.settle(fid) & states::ARCHIVED, 0, "{}", movers.logs());
    assert_eq!(movers.errors(fid), [0, 0], "{}", movers.logs());
    assert_eq!(movers.rig.keys(), [""; 0], "{}", movers.logs());
    movers.end();
}

#[test]
fn an_archive_waits_for_another_movers_remove_and_makes_a_new_copy() {
    let Some(mut movers) = Movers::start() else {
        return;
    };
    let content = noise(7000);
    let fid = movers.rig.file("file", &content);
    movers.rig.archive(fid);
    let deletes = movers.rig.store.faults().hold("DeleteObject");
    movers.ask(Action::Remove, fid);
    assert!(deletes.wait_held_blocking(1, PATIENCE));
    // From then on the coordinator takes an archive.
    until(|| {
        let state = movers.rig.client.state(fid).unwrap().states;
        (state & states::ARCHIVED == 0).then_some(())
    });
    movers.ask(Action::Archive, fid);
    movers.waits();
    deletes.release();
    assert_eq!(movers.settle(fid), CLEAN, "{}", movers.logs());
    assert_eq!(movers.errors(fid), [0, 0, 0], "{}", movers.logs());
    movers.is_whole("file", fid, &content);
    movers.end();
}

#[test]
fn a_waiting_action_is_cancelled_like_any_other_and_the_first_goes_on() {
    let Some(mut movers) = Movers::start() else {
        return;
    };
    let content = noise(7000);
    let fid = movers.rig.file("file", &content);
    let puts = movers.rig.store.faults().hold("PutObject");
    movers.ask(Action::Archive, fid);
    assert!(puts.wait_held_blocking(1, PATIENCE));
    movers.ask(Action::Archive, fid);
    movers.waits();
    // The last one that was asked for.
    movers.rig.client.request(Action::Cancel, 1, &[fid]).unwrap();
    until(|| (movers.actions(fid)[1].ends == 1).then_some(()));
    assert_eq!(movers.errors(fid), [0, libc::ECANCELED], "{}", movers.logs());
    puts.release();
    assert_eq!(movers.settle(fid), CLEAN, "{}", movers.logs());
    movers.is_whole("file", fid, &content);
    movers.end();
}

#[test]
fn whoever_waits_for_a_killed_movers_action_goes_on_when_that_is_taken_over() {
    let Some(mut movers) = Movers::start() else {
        return;
    };
    let content = noise(7000);
    let fid = movers.rig.file("file", &content);
    let puts = movers.rig.store.faults().hold("PutObject");
    movers.ask(Action::Archive, fid);
    assert!(puts.wait_held_blocking(1, PATIENCE));
    assert_eq!(
        in_hand(&movers.postgres, "mover1"),
        1,
        "the first of two that have nothing to do"
    );
    movers.ask(Action::Archive, fid);
    movers.waits();
    kill(&mut movers.rig);
    puts.release();
    assert_eq!(movers.settle(fid), CLEAN, "{}", movers.logs());
    assert!(movers.second.log().contains("taken over from a dead mover"));
    movers.is_whole("file", fid, &content);
    movers.end();
}

#[test]
fn an_archive_that_waits_for_a_killed_movers_remove_does_not_overtake_it_when_that_is_taken_over() {
    let Some(mut movers) = Movers::start() else {
        return;
    };
    let content = noise(7000);
    let fid = movers.rig.file("file", &content);
    movers.rig.archive(fid);
    until(|| (movers.in_hand() == 0).then_some(()));
    let deletes = movers.rig.store.faults().hold("DeleteObject");
    movers.ask(Action::Remove, fid);
    assert!(deletes.wait_held_blocking(1, PATIENCE));
    assert_eq!(in_hand(&movers.postgres, "mover1"), 1, "the first of two");
    // From then on the coordinator takes an archive.
    until(|| {
        let state = movers.rig.client.state(fid).unwrap().states;
        (state & states::ARCHIVED == 0).then_some(())
    });
    movers.ask(Action::Archive, fid);
    movers.waits();
    kill(&mut movers.rig);
    deletes.release();
    assert_eq!(movers.settle(fid), CLEAN, "{}", movers.logs());
    assert!(movers.second.log().contains("taken over from a dead mover"));
    assert_eq!(movers.errors(fid), [0, 0, 0], "{}", movers.logs());
    // The dead one's DELETE may still come, as far as anybody knows: the copy is beside the key.
    until(|| (movers.rig.keys().len() == 1).then_some(()));
    movers.rig.release(fid);
    assert_eq!(movers.rig.restore("file", fid), content, "{}", movers.logs());
    movers.end();
}

#[test]
fn without_the_ledger_nobody_waits_and_the_file_has_a_copy_or_says_that_it_has_none() {
    let Some(mut movers) = Movers::start() else {
        return;
    };
    let content = noise(7000);
    let fid = movers.rig.file("file", &content);
    let puts = movers.rig.store.faults().hold("PutObject");
    movers.ask(Action::Archive, fid);
    assert!(puts.wait_held_blocking(1, PATIENCE));
    movers.ask(Action::Archive, fid);
    movers.waits();
    movers.postgres.stop();
    assert!(puts.wait_held_blocking(2, PATIENCE), "{}", movers.logs());
    puts.release();
    if movers.settle(fid) == CLEAN {
        movers.rig.release(fid);
        assert_eq!(movers.rig.restore("file", fid), content, "{}", movers.logs());
    } else {
        movers.rig.archive(fid);
    }
    movers.postgres.resume();
    movers.end();
}
