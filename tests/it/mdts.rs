//! Several MDTs: one that does not answer, is full, or was switched off and on; and what asking them leaves behind.

use std::time::{Duration, Instant};

use lhsm_sandbox::protocol::{Action, ActionState, Fault, Fid, HsmControl, RequestInfo, Tunable, states};

use crate::recovery::ends_well;
use crate::rig::{PATIENCE, Rig, Setup, noise, until};

fn quick(mdts: u32) -> Setup {
    Setup {
        settings: "[lustre]\nkeepalive = '100ms'\nheartbeat = '200ms'\nprogress = '200ms'\n\
                   [workers]\nthreads = 8\nrestore_threads = 2\ndrain_timeout = '2s'\n"
            .into(),
        mdts,
        ..Setup::default()
    }
}

/// New files on an MDT.
fn files_on(rig: &mut Rig, mdt: u32, name: &str, count: usize) -> Vec<Fid> {
    let dir = rig.mount().join(format!("mdt{mdt}"));
    if !dir.exists() {
        rig.client.make_dir(&dir, mdt).unwrap();
    }
    (0..count)
        .map(|n| rig.file(&format!("mdt{mdt}/{name}{n}"), format!("{name}{n}").as_bytes()))
        .collect()
}

/// How long it takes to archive files one after the other.
fn one_by_one(rig: &mut Rig, fids: &[Fid]) -> Duration {
    let start = Instant::now();
    for fid in fids {
        rig.archive(*fid);
    }
    start.elapsed()
}

#[test]
fn an_mdt_that_hangs_stops_neither_the_actions_of_the_others_nor_the_end() {
    let mut rig = Rig::with(quick(3));
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 3000).unwrap();
    rig.client.set(Tunable::LoopPeriodMs, 50).unwrap();
    let released = files_on(&mut rig, 1, "released", 4);
    for fid in &released {
        rig.archive(*fid);
        rig.release(*fid);
    }
    let sample = |rig: &mut Rig, name| [files_on(rig, 0, name, 15), files_on(rig, 2, name, 15)].concat();
    let before = sample(&mut rig, "before");
    let usual = one_by_one(&mut rig, &before);

    // Some are under way, more wait, a restore among them, when it stops to answer.
    let puts = rig.store.faults().hold("PutObject");
    let gets = rig.store.faults().hold("GetObject");
    let stuck = files_on(&mut rig, 1, "stuck", 40);
    rig.client.request(Action::Archive, 1, &stuck).unwrap();
    rig.client.request(Action::Restore, 1, &released).unwrap();
    assert!(puts.wait_held_blocking(1, PATIENCE));
    assert!(gets.wait_held_blocking(1, PATIENCE));
    let waiting = sample(&mut rig, "waiting");
    rig.client.inject(Fault::Silent(vec![1])).unwrap();
    rig.client.request(Action::Archive, 1, &waiting).unwrap();
    // Three time-outs long those of the others wait, and are reported alive.
    assert!(!rig.client.wait(&waiting, Duration::from_secs(9)).unwrap());
    until(|| rig.log().contains("MDT0001 does not answer").then_some(()));
    puts.release();
    gets.release();
    ends_well(&mut rig, &waiting);
    let during = sample(&mut rig, "during");
    let took = one_by_one(&mut rig, &during);
    assert!(took < usual * 3 + Duration::from_secs(2), "{took:?}, usually {usual:?}");
    assert_eq!(rig.client.counters().unwrap().timed_out, 0, "{}", rig.log());

    let start = Instant::now();
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(start.elapsed() < Duration::from_secs(30), "{}", rig.log());
    rig.client.inject(Fault::Silent(Vec::new())).unwrap();
    rig.start();
    // What could not be answered was in the journal.
    ends_well(&mut rig, &[stuck, released].concat());
    for n in 0..4 {
        assert_eq!(
            rig.read(&format!("mdt1/released{n}")),
            format!("released{n}").into_bytes()
        );
    }
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn an_mdt_that_answers_again_gets_its_actions_done_by_the_same_daemon() {
    let mut rig = Rig::with(quick(2));
    let gate = rig.store.faults().hold("PutObject");
    let fids = files_on(&mut rig, 1, "f", 20);
    rig.client.request(Action::Archive, 1, &fids).unwrap();
    assert!(gate.wait_held_blocking(1, PATIENCE));
    rig.client.inject(Fault::Silent(vec![1])).unwrap();
    gate.release();
    until(|| rig.log().contains("MDT0001 does not answer").then_some(()));
    rig.client.inject(Fault::Silent(Vec::new())).unwrap();
    ends_well(&mut rig, &fids);
    until(|| rig.log().contains("MDT0001 answers again").then_some(()));
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_daemon_that_starts_while_an_mdt_hangs_says_which_and_registers_when_it_answers() {
    let mut rig = Rig::without_daemon(quick(3));
    rig.client.inject(Fault::Silent(vec![2])).unwrap();
    rig.daemon = Some(rig.spawn().start().unwrap());
    until(|| rig.log().contains("MDT 0002 does not answer").then_some(()));
    assert_eq!(rig.client.agents().unwrap(), []);
    rig.client.inject(Fault::Silent(Vec::new())).unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    let fids = files_on(&mut rig, 2, "f", 3);
    one_by_one(&mut rig, &fids);
    assert_eq!(rig.client.counters().unwrap().kernel_crashes, 0);
}

#[test]
fn a_full_mdt_is_asked_by_what_is_there_and_keeps_nobody_from_registering() {
    let mut rig = Rig::without_daemon(quick(2));
    let fids = files_on(&mut rig, 1, "f", 2);
    rig.client.inject(Fault::Full(vec![1])).unwrap();
    rig.start();
    one_by_one(&mut rig, &fids[..1]);
    // Asked it was: that it is stopped is seen.
    rig.client.control_mdt(1, HsmControl::Shutdown).unwrap();
    until(|| rig.log().contains("MDT 0001 is stopped").then_some(()));
    rig.client.control_mdt(1, HsmControl::Enabled).unwrap();
    assert_eq!(rig.stop(), Some(0));
    // The next one remembers it.
    std::fs::rename(rig.mount().join("mdt1"), rig.dir.path().join("elsewhere")).unwrap();
    rig.start();
    assert_eq!(rig.stop(), Some(0));
    assert!(!rig.log().contains("nothing can be made"), "{}", rig.log());
    assert_eq!(rig.client.counters().unwrap().kernel_crashes, 0);
}

#[test]
fn probes_leave_no_trace_at_the_coordinators() {
    let mut rig = Rig::with(quick(3));
    // Some keepalives long.
    assert!(!rig.client.wait_started(1, Duration::from_secs(1)).unwrap());
    assert_eq!(rig.client.counters().unwrap().unknown_cookies, 0);
    assert_eq!(rig.client.actions().unwrap(), []);
    // A probe cancels nothing that is under way.
    let gate = rig.store.faults().hold("PutObject");
    let fids = files_on(&mut rig, 1, "f", 3);
    rig.client.request(Action::Archive, 1, &fids).unwrap();
    assert!(gate.wait_held_blocking(3, PATIENCE));
    assert!(!rig.client.wait(&fids, Duration::from_millis(500)).unwrap());
    gate.release();
    ends_well(&mut rig, &fids);
    let succeeded = |action: &RequestInfo| action.state == ActionState::Succeed;
    assert!(rig.client.actions().unwrap().iter().all(succeeded));
}

#[test]
fn a_toggled_coordinator_finds_its_copytool_again_where_a_descriptor_registers_once() {
    let mut rig = Rig::with(Setup {
        start_once: true,
        ..quick(1)
    });
    let first = rig.file("first", b"data");
    rig.archive(first);
    for n in 0..3 {
        rig.client.control(HsmControl::Shutdown).unwrap();
        assert_eq!(rig.client.agents().unwrap(), []);
        rig.client.control(HsmControl::Enabled).unwrap();
        assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
        let fid = rig.file(&format!("f{n}"), b"data");
        rig.archive(fid);
    }
    // What was kept open for it has an end.
    until(|| rig.log().contains("registered again").then_some(()));
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    let last = rig.file("last", b"data");
    rig.archive(last);
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
    assert_eq!(rig.client.agents().unwrap(), []);
    assert_eq!(rig.client.counters().unwrap().kernel_crashes, 0);
}

#[test]
fn a_purge_a_stop_and_a_restart_of_one_mdt_are_nothing_of_the_others() {
    let mut rig = Rig::with(quick(3));
    let gate = rig.store.faults().hold("PutObject");
    let (purged, kept) = (files_on(&mut rig, 1, "f", 3), files_on(&mut rig, 2, "f", 3));
    rig.client
        .request(Action::Archive, 1, &[purged.clone(), kept.clone()].concat())
        .unwrap();
    assert!(gate.wait_held_blocking(4, PATIENCE));
    rig.client.control_mdt(1, HsmControl::Purge).unwrap();
    let pending = |rig: &mut Rig, fids: &[Fid]| !rig.client.wait(fids, Duration::ZERO).unwrap();
    assert!(!pending(&mut rig, &purged) && pending(&mut rig, &kept));

    rig.client.control_mdt(1, HsmControl::Shutdown).unwrap();
    assert_eq!(rig.client.agents().unwrap()[0].mdts, [0, 2]);
    rig.client.control_mdt(1, HsmControl::Enabled).unwrap();
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    rig.client.inject(Fault::RestartOf(1)).unwrap();
    gate.release();
    ends_well(&mut rig, &kept);
    one_by_one(&mut rig, &purged);
    let once = |action: &RequestInfo| !kept.contains(&action.fid) || (action.sends, action.ends) == (1, 1);
    let actions = rig.client.actions().unwrap();
    assert!(actions.iter().all(once), "{actions:?}");
    assert_eq!(rig.client.counters().unwrap().kernel_crashes, 0);
}

#[test]
fn each_mdt_has_as_many_actions_out_as_it_may_and_numbers_of_its_own() {
    let mut rig = Rig::with(quick(2));
    rig.client.set_max_requests(1, 2).unwrap();
    let gate = rig.store.faults().hold("PutObject");
    let (many, few) = (files_on(&mut rig, 0, "f", 5), files_on(&mut rig, 1, "f", 5));
    rig.client
        .request(Action::Archive, 1, &[few.clone(), many.clone()].concat())
        .unwrap();
    assert!(rig.client.wait_started(7, PATIENCE).unwrap());
    let actions = rig.client.actions().unwrap();
    let of = |fids: &[Fid]| -> Vec<_> {
        let mut cookies: Vec<_> = actions.iter().filter(|action| fids.contains(&action.fid)).collect();
        cookies.sort_by_key(|action| action.cookie);
        cookies
            .into_iter()
            .map(|action| (action.cookie, action.state))
            .collect()
    };
    let is_out = |(_, state): &&(u64, ActionState)| *state == ActionState::Started;
    assert_eq!(of(&few).iter().filter(is_out).count(), 2);
    assert_eq!(of(&many).iter().filter(is_out).count(), 5);
    let cookies = |fids: &[Fid]| of(fids).into_iter().map(|(cookie, _)| cookie).collect::<Vec<_>>();
    assert_eq!(cookies(&few), cookies(&many), "they are equal");
    gate.release();
    ends_well(&mut rig, &[few, many].concat());
    rig.assert_settled();
}

#[test]
fn check_names_each_mdt_that_is_stopped() {
    let mut rig = Rig::without_daemon(quick(4));
    for mdt in [1, 3] {
        rig.client.control_mdt(mdt, HsmControl::Shutdown).unwrap();
    }
    let text = String::from_utf8(rig.run(&["check"]).stdout).unwrap();
    for (mdt, stopped) in [(0, false), (1, true), (2, false), (3, true)] {
        let row = format!("it does not run on MDT{mdt:04x}");
        assert_eq!(text.contains(&row), stopped, "{text}");
    }
}

#[test]
fn messages_for_another_file_system_are_not_executed() {
    let mut rig = Rig::with(quick(1));
    let fid = rig.file("file", &noise(100));
    rig.archive(fid);
    // A remove, as a client of 2.10.0 to 2.10.3 delivers it to the copytools of all its mounts.
    rig.client
        .inject(Fault::Garbage(message("other", 22, fid, 0x6b00_1000)))
        .unwrap();
    let next = rig.file("next", b"data");
    rig.archive(next);
    assert_eq!(rig.client.state(fid).unwrap().states, states::EXISTS | states::ARCHIVED);
    assert!(rig.keys().contains(&"file".to_owned()), "{}", rig.log());
}

/// One item for archive 1, as the kernel writes it.
fn message(fsname: &str, action: u32, fid: Fid, cookie: u64) -> Vec<u8> {
    let mut list = Vec::new();
    list.extend(1u32.to_le_bytes());
    list.extend(1u32.to_le_bytes());
    list.extend([0; 16]);
    list.extend(1u32.to_le_bytes());
    list.extend([0; 4]);
    list.extend(fsname.as_bytes());
    list.push(0);
    list.resize(list.len().next_multiple_of(8), 0);
    list.extend(72u32.to_le_bytes());
    list.extend(action.to_le_bytes());
    for _ in ["fid", "dfid"] {
        list.extend(fid.seq.to_le_bytes());
        list.extend(fid.oid.to_le_bytes());
        list.extend(fid.ver.to_le_bytes());
    }
    list.extend(0u64.to_le_bytes());
    list.extend(u64::MAX.to_le_bytes());
    list.extend(cookie.to_le_bytes());
    list.extend(0u64.to_le_bytes());
    let length = u16::try_from(8 + list.len()).unwrap();
    let mut message = Vec::new();
    message.extend(0x191cu16.to_le_bytes());
    message.extend([2, 0]);
    message.extend(100u16.to_le_bytes());
    message.extend(length.to_le_bytes());
    message.extend(list);
    message
}
