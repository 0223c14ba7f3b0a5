//! Movers whose node dies with everything, is cut off or stands still.

use std::fs;
use std::time::SystemTime;

use lhsm_sandbox::process::Daemon;
use lhsm_sandbox::protocol::{Action, ActionState, Fault, Fid, NodeState, Step, Tunable, states};
use nix::sys::signal::Signal;

use crate::recovery::ends_well;
use crate::rig::{PATIENCE, Rig, noise, until};

/// Two movers, of which the rig's own is chosen where both have as much to do; no node is evicted before a test says so.
fn two_nodes() -> (Rig, Daemon, String) {
    let mut rig = Rig::new();
    rig.client.set(Tunable::EvictionMs, 3_600_000).unwrap();
    let (spawn, _) = rig.second_mover();
    let second = spawn.start().unwrap();
    assert!(rig.client.wait_agents(2, PATIENCE).unwrap(), "{}", rig.log());
    let name = rig.second_client();
    (rig, second, name)
}

/// Has these archived, each by the mover with less to do.
fn spread(rig: &mut Rig, fids: &[Fid]) {
    for (sent, fid) in fids.iter().enumerate() {
        rig.client.request(Action::Archive, 1, &[*fid]).unwrap();
        assert!(rig.client.wait_started(sent + 1, PATIENCE).unwrap());
    }
}

fn files(rig: &mut Rig, name: &str, count: usize) -> Vec<Fid> {
    (0..count)
        .map(|n| rig.file(&format!("{name}{n}"), &noise(1000 + n)))
        .collect()
}

fn states_of(rig: &mut Rig, fids: &[Fid]) -> Vec<ActionState> {
    let actions = rig.client.actions().unwrap();
    let of = |fid: &Fid| actions.iter().rev().find(|action| action.fid == *fid).unwrap().state;
    fids.iter().map(of).collect()
}

#[test]
fn while_a_dead_movers_node_is_not_evicted_nobody_gets_anything_and_then_the_other_one_does_it_all() {
    let (mut rig, mut second, name) = two_nodes();
    let content = noise(70_000);
    let released = rig.file("released", &content);
    rig.archive(released);
    rig.release(released);
    let [first, other, next] = ["first", "other", "next"].map(|name| rig.file(name, b"data"));
    let puts = rig.store.faults().hold("PutObject");
    let gets = rig.store.faults().hold("GetObject");
    rig.client.request(Action::Archive, 1, &[first]).unwrap();
    assert!(rig.client.wait_started(1, PATIENCE).unwrap());
    rig.client.request(Action::Restore, 1, &[released]).unwrap();
    assert!(gets.wait_held_blocking(1, PATIENCE));
    let in_hand = rig.client.agents().unwrap();
    let in_hand: Vec<_> = in_hand.iter().map(|agent| agent.outstanding).collect();
    assert_eq!(in_hand, [1, 1]);

    rig.client.kill_node(&name).unwrap();
    second.wait(PATIENCE).unwrap();
    gets.release();
    // Both have as much to do, then the dead one has less.
    rig.client.request(Action::Archive, 1, &[other]).unwrap();
    assert!(puts.wait_held_blocking(2, PATIENCE));
    rig.client.request(Action::Archive, 1, &[next]).unwrap();
    assert!(rig.client.wait_held_up(0, PATIENCE).unwrap());
    let more = files(&mut rig, "more", 20);
    rig.client.request(Action::Archive, 1, &more).unwrap();
    // What was delivered before goes on and ends.
    puts.release();
    ends_well(&mut rig, &[first, other]);
    let waiting = [&more[..], &[next]].concat();
    let all_wait = vec![ActionState::Waiting; waiting.len()];
    assert_eq!(states_of(&mut rig, &waiting), all_wait);
    let dead = rig.client.nodes().unwrap();
    let dead = dead.iter().find(|node| node.name == name).unwrap();
    assert_eq!((dead.state, dead.evicted), (NodeState::Dead, false));

    rig.client.evict(&name).unwrap();
    ends_well(&mut rig, &waiting);
    // Its reader waits until the coordinator gives the action up; nobody else knows of it.
    assert_eq!(states_of(&mut rig, &[released]), [ActionState::Started]);
    assert_eq!(rig.client.pending().unwrap(), 1);
    rig.client.set(Tunable::LoopPeriodMs, 10).unwrap();
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 1).unwrap();
    assert_ne!(rig.settle(released).states & states::RELEASED, 0);
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 3_600_000).unwrap();
    assert_eq!(rig.restore("released", released), content);
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_mover_that_is_cut_off_for_a_while_ends_what_it_has_when_it_is_back() {
    let (mut rig, second, name) = two_nodes();
    let puts = rig.store.faults().hold("PutObject");
    let fids = files(&mut rig, "f", 8);
    spread(&mut rig, &fids);
    assert!(puts.wait_held_blocking(8, PATIENCE));
    rig.client.cut_node(&name).unwrap();
    puts.release();
    // The one that is heard ends its four; of the other one's four not one end arrives.
    let running = |rig: &mut Rig| rig.client.pending().unwrap();
    until(|| (running(&mut rig) == 4).then_some(()));
    until(|| {
        let nodes = rig.client.nodes().unwrap();
        nodes
            .iter()
            .any(|node| node.name == name && node.calls > 0)
            .then_some(())
    });
    assert_eq!(running(&mut rig), 4);
    rig.client.heal_node(&name).unwrap();
    ends_well(&mut rig, &fids);
    rig.assert_settled();
    assert!(second.stop(PATIENCE).unwrap().success());
}

#[test]
fn a_mover_that_stood_still_and_was_evicted_ends_what_it_has_and_gets_work_again() {
    let (mut rig, second, name) = two_nodes();
    let puts = rig.store.faults().hold("PutObject");
    let fids = files(&mut rig, "f", 8);
    spread(&mut rig, &fids);
    assert!(puts.wait_held_blocking(8, PATIENCE));
    rig.client.pause_node(&name).unwrap();
    // Both have as much to do, then the one that stands still has less.
    let next = files(&mut rig, "next", 8);
    rig.client.request(Action::Archive, 1, &next[..1]).unwrap();
    assert!(rig.client.wait_started(9, PATIENCE).unwrap());
    rig.client.request(Action::Archive, 1, &next[1..]).unwrap();
    assert!(rig.client.wait_held_up(0, PATIENCE).unwrap());
    puts.release();
    until(|| (rig.client.pending().unwrap() == 11).then_some(()));
    rig.client.evict(&name).unwrap();
    ends_well(&mut rig, &next);
    assert_eq!(rig.client.pending().unwrap(), 4);
    rig.client.heal_node(&name).unwrap();
    assert!(rig.client.wait(&fids, PATIENCE).unwrap(), "{}", rig.log());
    // A call that was under way failed, and what needed it with that.
    for fid in &fids {
        if rig.client.state(*fid).unwrap().states & states::ARCHIVED == 0 {
            rig.archive(*fid);
        }
    }
    assert_eq!(rig.client.agents().unwrap().len(), 2);
    assert_eq!(rig.stop(), Some(0));
    let last = rig.file("last", b"data");
    rig.archive(last);
    rig.assert_settled();
    assert!(second.stop(PATIENCE).unwrap().success());
}

#[test]
fn a_restore_that_stood_still_over_its_nodes_eviction_ends_and_the_file_comes_back_whole() {
    let (mut rig, second, name) = two_nodes();
    let content = noise(70_000);
    let released = rig.file("released", &content);
    rig.archive(released);
    rig.release(released);
    let busy = rig.file("busy", b"data");
    let puts = rig.store.faults().hold("PutObject");
    let gets = rig.store.faults().hold("GetObject");
    rig.client.request(Action::Archive, 1, &[busy]).unwrap();
    assert!(rig.client.wait_started(1, PATIENCE).unwrap());
    rig.client.request(Action::Restore, 1, &[released]).unwrap();
    assert!(gets.wait_held_blocking(1, PATIENCE));
    rig.client.pause_node(&name).unwrap();
    // Its volatile file goes, and the first write to that fails.
    rig.client.evict(&name).unwrap();
    rig.client.heal_node(&name).unwrap();
    gets.release();
    puts.release();
    assert!(rig.client.wait(&[released, busy], PATIENCE).unwrap(), "{}", rig.log());
    if rig.client.state(released).unwrap().states & states::RELEASED != 0 {
        assert_eq!(rig.restore("released", released), content);
    }
    assert_eq!(rig.read("released"), content);
    rig.assert_settled();
    assert!(second.stop(PATIENCE).unwrap().success());
}

#[test]
fn a_mover_whose_process_alone_stands_still_is_sent_to_and_holds_nobody_up() {
    let (mut rig, second, _) = two_nodes();
    let puts = rig.store.faults().hold("PutObject");
    second.signal(Signal::SIGSTOP).unwrap();
    let fids = files(&mut rig, "f", 6);
    spread(&mut rig, &fids);
    puts.release();
    until(|| (rig.client.pending().unwrap() == 3).then_some(()));
    second.signal(Signal::SIGCONT).unwrap();
    ends_well(&mut rig, &fids);
    rig.assert_settled();
    assert!(second.stop(PATIENCE).unwrap().success());
}

/// A released file, and a mover that nobody evicts before a test says so.
fn one_released(content: &[u8]) -> (Rig, Fid) {
    let mut rig = Rig::new();
    rig.client.set(Tunable::EvictionMs, 3_600_000).unwrap();
    let fid = rig.file("file", content);
    rig.archive(fid);
    rig.release(fid);
    (rig, fid)
}

fn changed(rig: &Rig) -> SystemTime {
    fs::metadata(rig.mount().join("file")).unwrap().modified().unwrap()
}

/// Its restore has been ended once, well, and is said to be done once.
fn restored_once(rig: &mut Rig, fid: Fid, content: &[u8], since: SystemTime) {
    ends_well(rig, &[fid]);
    assert_eq!(changed(rig), since);
    assert_eq!(rig.read("file"), content);
    let actions = rig.client.actions().unwrap();
    let restores: Vec<_> = actions
        .iter()
        .filter(|action| action.action == Action::Restore)
        .map(|action| (action.state, action.errval, action.ends))
        .collect();
    assert_eq!(restores, [(ActionState::Succeed, 0, 1)], "{}", rig.log());
    // Whose end was not heard said so.
    until(|| (rig.log().matches("restore done").count() == 1).then_some(()));
    assert!(rig.log().contains("begun anew"), "{}", rig.log());
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.log().matches("restore done").count(), 1, "{}", rig.log());
}

#[test]
fn a_node_that_is_cut_off_and_evicted_behind_a_restores_last_byte_fails_no_reader() {
    let content = noise(70_000);
    for step in [Step::Times, Step::End] {
        let (mut rig, fid) = one_released(&content);
        let since = changed(&rig);
        rig.client.inject(Fault::Cut(step)).unwrap();
        rig.client.request(Action::Restore, 1, &[fid]).unwrap();
        let name = until(|| {
            let nodes = rig.client.nodes().unwrap();
            let is_cut = |state, calls| state == NodeState::Cut && calls > 0;
            let cut = nodes.into_iter().find(|node| is_cut(node.state, node.calls))?;
            Some(cut.name)
        });
        rig.client.evict(&name).unwrap();
        assert_eq!(states_of(&mut rig, &[fid]), [ActionState::Started], "{step:?}");
        assert!(!rig.log().contains("restore done"), "{step:?}: {}", rig.log());
        rig.client.heal_node(&name).unwrap();
        restored_once(&mut rig, fid, &content, since);
    }
}

#[test]
fn a_restore_whose_file_went_behind_its_last_byte_is_begun_anew_and_nobody_hears_of_it() {
    let content = noise(70_000);
    for errno in [libc::EIO, libc::ENOENT] {
        let (mut rig, fid) = one_released(&content);
        let since = changed(&rig);
        rig.client.inject(Fault::TimesErrno { errno, times: 1 }).unwrap();
        rig.client.request(Action::Restore, 1, &[fid]).unwrap();
        restored_once(&mut rig, fid, &content, since);
    }
}

#[test]
fn a_restore_that_fails_when_its_data_is_in_place_is_not_said_to_be_done() {
    let (mut rig, fid) = one_released(b"data");
    // What would be the same the next time.
    let errno = libc::EINVAL;
    rig.client.inject(Fault::TimesErrno { errno, times: 1 }).unwrap();
    rig.client.request(Action::Restore, 1, &[fid]).unwrap();
    assert_ne!(rig.settle(fid).states & states::RELEASED, 0);
    let failed = rig.client.actions().unwrap().pop().unwrap();
    assert_eq!((failed.errval, failed.ends), (libc::EIO, 1));
    assert_eq!(rig.restore("file", fid), b"data");
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.log().matches("restore done").count(), 1, "{}", rig.log());
}
