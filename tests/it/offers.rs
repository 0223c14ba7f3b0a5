//! A mover that lives and is cut off from a store or an MDT: what waits there is done by another one that reaches both.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use lhsm_sandbox::protocol::{Action, Fid, Tunable};
use lhsm_sandbox_s3::{Dialect, Gate};

use crate::metrics::address;
use crate::postgres::Postgres;
use crate::recovery::ends_well;
use crate::rig::{BUCKET, PATIENCE, Rig, noise, until};
use crate::takeover::{Second, ask, in_hand, released, rig_prepared, rig_with, second, second_with};

const ALIVE: &str = "[lustre]\nheartbeat = '200ms'\nprogress = '200ms'\n";
const TAKEN: &str = "taken from a mover that is cut off from what they need";
const LET_GO: &str = "other movers have taken these, which were offered to them";
const OFFERED: &str = "SELECT count(*) FROM lhsmtool_s3.action WHERE offered = owner";
/// Of the usual rig: so many run at the same time.
const THREADS: i64 = 8;

/// Names, contents.
type Files = Vec<(String, Vec<u8>, Fid)>;

/// What is between one mover and the store.
struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<RelayState>>,
}

#[derive(Default)]
struct RelayState {
    is_cut: bool,
    is_over: bool,
    open: Vec<TcpStream>,
}

fn lock(state: &Mutex<RelayState>) -> MutexGuard<'_, RelayState> {
    state.lock().unwrap()
}

impl Relay {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        let state = Arc::clone(&relay.state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut state = lock(&state);
                if state.is_over {
                    return;
                }
                // Who comes while it is cut is thrown out.
                if let (Ok(client), false) = (client, state.is_cut)
                    && let Ok(server) = TcpStream::connect(to)
                {
                    pump(&client, &server);
                    pump(&server, &client);
                    state.open.extend([client, server]);
                }
            }
        });
        relay
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn cut(&self) {
        let mut state = lock(&self.state);
        state.is_cut = true;
        for open in state.open.drain(..) {
            // The other end may be gone.
            let _gone = open.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        lock(&self.state).is_cut = false;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        lock(&self.state).is_over = true;
        // It waits for somebody.
        drop(TcpStream::connect(self.address));
    }
}

/// Whatever comes from one goes to the other.
fn pump(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let _broken = std::io::copy(&mut from, &mut to);
        let _gone = to.shutdown(Shutdown::Both);
        let _gone = from.shutdown(Shutdown::Both);
    });
}

/// Whose mover has a relay of its own to the store.
fn behind_relay(postgres: &Postgres) -> (Rig, Relay) {
    let mut relay = None;
    let rig = rig_prepared(postgres, "300s", ALIVE, |rig| {
        let own = relay.insert(Relay::start(rig.store.address()));
        let endpoint = rig.store.endpoint();
        rig.replace_settings(&endpoint, &own.endpoint());
    });
    (rig, relay.unwrap())
}

/// One that reaches the store.
fn second_on_the_way(rig: &mut Rig, postgres: &Postgres, relay: &Relay) -> Second {
    let endpoint = rig.store.endpoint();
    second_with(rig, postgres, &relay.endpoint(), &endpoint)
}

/// Until nothing is left of the first mover's but what it has begun.
fn gives_away(postgres: &Postgres, rig: &Rig, second: &Second) {
    until(|| (in_hand(postgres, "mover1") <= THREADS && in_hand(postgres, "mover2") == 0).then_some(()));
    assert!(second.log().contains(TAKEN), "{}", second.log());
    until(|| rig.log().contains(LET_GO).then_some(()));
    assert!(!second.log().contains("a mover is dead"), "{}", second.log());
}

/// All is answered, once each, and both are there for more.
fn end(mut rig: Rig, second: Second, postgres: &Postgres) {
    until(|| (in_hand(postgres, "mover1") + in_hand(postgres, "mover2") == 0).then_some(()));
    let more: Vec<_> = (0..4).map(|n| rig.file(&format!("more{n}"), b"data")).collect();
    rig.client.request(Action::Archive, 1, &more).unwrap();
    ends_well(&mut rig, &more);
    rig.assert_settled();
    assert!(rig.client.wait_agents(2, PATIENCE).unwrap(), "{}", second.log());
    assert_eq!(rig.stop(), Some(0), "{}", rig.log());
    assert!(second.daemon.stop(PATIENCE).unwrap().success());
}

#[test]
fn restores_that_wait_for_a_store_that_one_mover_is_cut_off_from_are_done_by_another_while_it_lives() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, relay) = behind_relay(&postgres);
    let files = released(&mut rig, 30);
    relay.cut();
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    rig.client.request(Action::Restore, 1, &fids).unwrap();
    until(|| (in_hand(&postgres, "mover1") == 30).then_some(()));
    let second = second_on_the_way(&mut rig, &postgres, &relay);
    gives_away(&postgres, &rig, &second);
    assert!(rig.client.pending().unwrap() > 0, "what runs goes on trying");
    relay.mend();
    ends_well(&mut rig, &fids);
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
    }
    assert_eq!(postgres.number(OFFERED), 0);
    end(rig, second, &postgres);
}

#[test]
fn archives_and_removes_that_wait_for_such_a_store_are_done_by_another_too() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, relay) = behind_relay(&postgres);
    let gone: Vec<_> = (0..4).map(|n| rig.file(&format!("gone{n}"), b"data")).collect();
    for fid in &gone {
        rig.archive(*fid);
    }
    relay.cut();
    let fresh: Vec<_> = (0..20)
        .map(|n| rig.file(&format!("a{n:02}"), &noise(100 + n)))
        .collect();
    rig.client.request(Action::Archive, 1, &fresh).unwrap();
    until(|| (in_hand(&postgres, "mover1") == 20).then_some(()));
    rig.client.request(Action::Remove, 1, &gone).unwrap();
    until(|| (in_hand(&postgres, "mover1") == 24).then_some(()));
    let second = second_on_the_way(&mut rig, &postgres, &relay);
    gives_away(&postgres, &rig, &second);
    relay.mend();
    ends_well(&mut rig, &fresh);
    assert!(rig.client.wait(&gone, PATIENCE).unwrap(), "{}", rig.log());
    let names: Vec<_> = (0..20).map(|n| format!("a{n:02}")).collect();
    until(|| (rig.keys() == names).then_some(()));
    for n in 0..20 {
        assert_eq!(rig.store.object_body(BUCKET, &format!("a{n:02}")), Some(noise(100 + n)));
    }
    end(rig, second, &postgres);
}

/// Both movers are cut off from the store, and the first one offers what it has; nobody takes it.
fn nobody_reaches_it(postgres: &Postgres) -> (Rig, Second, [Relay; 2], Files) {
    let (mut rig, relay) = behind_relay(postgres);
    let files = released(&mut rig, 20);
    relay.cut();
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    rig.client.request(Action::Restore, 1, &fids).unwrap();
    until(|| (in_hand(postgres, "mover1") == 20).then_some(()));
    let others = Relay::start(rig.store.address());
    others.cut();
    let second = second_with(&mut rig, postgres, &relay.endpoint(), &others.endpoint());
    until(|| (postgres.number(OFFERED) == 20 - THREADS).then_some(()));
    (rig, second, [relay, others], files)
}

#[test]
fn what_nobody_reaches_stays_where_it_is_is_told_and_is_done_there_when_the_store_is_back() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, second, relays, files) = nobody_reaches_it(&postgres);
    until(|| {
        let output = rig.run(&["status", "--movers", &address(&rig.log())]);
        String::from_utf8_lossy(&output.stdout)
            .contains("12 actions are offered to other movers")
            .then_some(())
    });
    until(|| {
        let output = rig.run(&["status", "--fleet"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let is_told = text.contains("mover1: does not reach the store of archive 1 for ");
        (is_told && text.contains("mover1: offers 12 actions to the others")).then_some(())
    });
    // The other one has asked the store, and has had no answer.
    let renewals = "SELECT renewals FROM lhsmtool_s3.mover WHERE name = 'mover2'";
    let before = postgres.number(renewals);
    until(|| (postgres.number(renewals) > before + 8).then_some(()));
    assert_eq!((in_hand(&postgres, "mover1"), in_hand(&postgres, "mover2")), (20, 0));
    relays[0].mend();
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    ends_well(&mut rig, &fids);
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
    }
    assert!(!second.log().contains(TAKEN), "{}", second.log());
    relays[1].mend();
    end(rig, second, &postgres);
}

#[test]
fn an_action_whose_row_was_written_anew_while_it_was_offered_is_offered_again() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, second, relays, files) = nobody_reaches_it(&postgres);
    // As it is when the coordinator sends it once more.
    let anew = "WITH anew AS (UPDATE lhsmtool_s3.action SET offered = NULL WHERE offered = owner RETURNING 1) \
                SELECT count(*) FROM anew";
    assert_eq!(postgres.number(anew), 20 - THREADS);
    until(|| (postgres.number(OFFERED) == 20 - THREADS).then_some(()));
    relays.iter().for_each(Relay::mend);
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    ends_well(&mut rig, &fids);
    end(rig, second, &postgres);
}

#[test]
fn what_is_offered_when_the_ledger_goes_away_is_done_at_home_once_the_store_is_back() {
    let Some(mut postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, second, relays, files) = nobody_reaches_it(&postgres);
    postgres.stop();
    relays[0].mend();
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    ends_well(&mut rig, &fids);
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
    }
    relays[1].mend();
    postgres.resume();
    end(rig, second, &postgres);
}

/// A mover that is cut off has more restores than it can begin, a file's remove, and an archive of it behind that.
fn remove_and_archive(rig: &mut Rig, postgres: &Postgres, relay: &Relay) -> (Files, Fid) {
    let files = released(rig, 10);
    let again = rig.file("again", b"as it was");
    rig.archive(again);
    assert_eq!(rig.file("again", b"as it is"), again);
    relay.cut();
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    for (action, fids, all) in [
        (Action::Restore, fids, 10),
        (Action::Remove, vec![again], 11),
        (Action::Archive, vec![again], 12),
    ] {
        rig.client.request(action, 1, &fids).unwrap();
        until(|| (in_hand(postgres, "mover1") == all).then_some(()));
    }
    (files, again)
}

/// The remove came first: the file has a copy, of what it has now.
fn ends_in_order(rig: &mut Rig, files: &Files, again: Fid) {
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).chain([again]).collect();
    ends_well(rig, &fids);
    assert_eq!(
        rig.store.object_body(BUCKET, "again").as_deref(),
        Some(b"as it is".as_slice())
    );
}

#[test]
fn an_archive_behind_a_remove_that_was_offered_in_vain_waits_for_its_end_at_home() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, relay) = behind_relay(&postgres);
    let (files, again) = remove_and_archive(&mut rig, &postgres, &relay);
    let others = Relay::start(rig.store.address());
    others.cut();
    let second = second_with(&mut rig, &postgres, &relay.endpoint(), &others.endpoint());
    until(|| (postgres.number(OFFERED) == 10 - THREADS + 1).then_some(()));
    relay.mend();
    ends_in_order(&mut rig, &files, again);
    others.mend();
    end(rig, second, &postgres);
}

#[test]
fn an_archive_behind_a_remove_that_another_mover_has_taken_waits_for_its_end_there() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, relay) = behind_relay(&postgres);
    let (files, again) = remove_and_archive(&mut rig, &postgres, &relay);
    let deletes = rig.store.faults().hold("DeleteObject");
    let second = second_on_the_way(&mut rig, &postgres, &relay);
    assert!(deletes.wait_held_blocking(1, PATIENCE), "{}", second.log());
    let behind = "SELECT count(*) FROM lhsmtool_s3.action a JOIN lhsmtool_s3.mover m ON m.incarnation = a.owner \
                  WHERE a.verb = 1 AND a.behind AND m.name = 'mover1'";
    until(|| (postgres.number(behind) == 1).then_some(()));
    deletes.release();
    relay.mend();
    ends_in_order(&mut rig, &files, again);
    end(rig, second, &postgres);
}

#[test]
fn a_mover_that_changes_a_row_of_an_action_holds_its_own_so_that_nobody_finds_it_dead_meanwhile() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, second, relays, files) = nobody_reaches_it(&postgres);
    postgres.rows(
        "CREATE FUNCTION lhsmtool_s3.is_held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NOT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'RowShareLock' \
                 AND relation = 'lhsmtool_s3.mover'::regclass) THEN RAISE EXCEPTION 'no mover is held'; END IF; \
             RETURN NULL; END $$; \
         CREATE TRIGGER is_held BEFORE INSERT OR UPDATE OR DELETE ON lhsmtool_s3.action \
             EXECUTE FUNCTION lhsmtool_s3.is_held()",
    );
    // It takes back what it offered.
    relays[0].mend();
    let mut fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    ends_well(&mut rig, &fids);
    until(|| (in_hand(&postgres, "mover1") == 0).then_some(()));
    // The newer waits, and goes.
    relays[1].mend();
    let puts = rig.store.faults().hold("PutObject");
    let twice = rig.file("twice", b"data");
    for all in 1..=2 {
        rig.client.request(Action::Archive, 1, &[twice]).unwrap();
        until(|| (in_hand(&postgres, "mover1") + in_hand(&postgres, "mover2") == all).then_some(()));
        assert!(puts.wait_held_blocking(1, PATIENCE));
    }
    until(|| (postgres.number("SELECT count(*) FROM lhsmtool_s3.action WHERE behind") == 1).then_some(()));
    puts.release();
    fids.push(twice);
    ends_well(&mut rig, &fids);
    for log in [rig.log(), second.log()] {
        assert!(!log.contains("no mover is held"), "{log}");
    }
    end(rig, second, &postgres);
}

#[test]
fn an_offered_action_is_cancelled_like_any_other() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (mut rig, second, relays, files) = nobody_reaches_it(&postgres);
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    rig.client.request(Action::Cancel, 1, &fids).unwrap();
    assert!(rig.client.wait(&fids, PATIENCE).unwrap(), "{}", rig.log());
    until(|| (postgres.number(OFFERED) == 0).then_some(()));
    relays.iter().for_each(Relay::mend);
    for (name, content, fid) in &files {
        assert_eq!(rig.restore(name, *fid), *content, "{}", rig.log());
    }
    end(rig, second, &postgres);
}

#[test]
fn restores_that_wait_for_an_mdt_that_one_mover_is_cut_off_from_are_done_by_another() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "300s", ALIVE);
    rig.client.set(Tunable::EvictionMs, 3_600_000).unwrap();
    let files = released(&mut rig, 40);
    let second = second(&mut rig, &postgres);
    let node = rig.second_client();
    let gets = rig.store.faults().hold("GetObject");
    let fids: Vec<_> = files.iter().map(|(_, _, fid)| *fid).collect();
    ask(&mut rig, Action::Restore, &fids, &mut 0);
    until(|| (in_hand(&postgres, "mover1") + in_hand(&postgres, "mover2") == 40).then_some(()));
    assert!(in_hand(&postgres, "mover2") > THREADS, "some wait there");
    rig.client.cut_node(&node).unwrap();
    until(|| {
        second
            .log()
            .contains("does not answer: what is to be done for its files")
            .then_some(())
    });
    gets.release();
    // It takes no end of what it has begun.
    until(|| (in_hand(&postgres, "mover1") == 0 && in_hand(&postgres, "mover2") <= THREADS).then_some(()));
    assert!(rig.log().contains(TAKEN), "{}", rig.log());
    rig.client.heal_node(&node).unwrap();
    ends_well(&mut rig, &fids);
    for (name, content, _) in &files {
        assert_eq!(rig.read(name), *content);
    }
    end(rig, second, &postgres);
}

/// The second mover's node is evicted while requests are held, which then go on.
fn is_evicted(rig: &mut Rig, held: [Gate; 2]) {
    let node = rig.second_client();
    rig.client.pause_node(&node).unwrap();
    // Its volatile file goes, and the first write to that fails.
    rig.client.evict(&node).unwrap();
    rig.client.heal_node(&node).unwrap();
    held.iter().for_each(Gate::release);
}

fn errors_of_restores(rig: &mut Rig) -> Vec<i32> {
    let restores = rig.client.actions().unwrap().into_iter();
    restores
        .filter(|action| action.action == Action::Restore)
        .map(|action| action.errval)
        .collect()
}

#[test]
fn a_restore_that_fails_for_its_movers_eviction_is_begun_again_and_its_reader_gets_the_data() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_with(&postgres, "300s", ALIVE);
    rig.client.set(Tunable::EvictionMs, 3_600_000).unwrap();
    let files = released(&mut rig, 1);
    let (name, content, fid) = &files[0];
    let busy = rig.file("busy", b"data");
    let second = second(&mut rig, &postgres);
    let puts = rig.store.faults().hold("PutObject");
    let gets = rig.store.faults().hold("GetObject");
    rig.client.request(Action::Archive, 1, &[busy]).unwrap();
    assert!(puts.wait_held_blocking(1, PATIENCE));
    rig.client.request(Action::Restore, 1, &[*fid]).unwrap();
    assert!(gets.wait_held_blocking(1, PATIENCE));
    until(|| (in_hand(&postgres, "mover2") == 1).then_some(()));
    is_evicted(&mut rig, [gets, puts]);
    ends_well(&mut rig, &[*fid, busy]);
    assert_eq!(rig.read(name), *content);
    assert_eq!(errors_of_restores(&mut rig), [0], "{}", second.log());
    end(rig, second, &postgres);
}

#[test]
fn a_restore_that_waited_long_for_its_object_is_begun_again_like_any_other_after_its_movers_eviction() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let mut rig = rig_prepared(&postgres, "300s", ALIVE, |rig| {
        let cold = "thaw_poll = '100ms'\n[[archive]]\nstorage_class = 'GLACIER'\n";
        rig.replace_settings("[[archive]]\n", cold);
    });
    rig.client.set(Tunable::EvictionMs, 3_600_000).unwrap();
    let files = released(&mut rig, 1);
    let (name, content, fid) = &files[0];
    let busy = rig.file("busy", b"data");
    let second = second(&mut rig, &postgres);
    rig.store.dialects().set(&[Dialect::Cold]);
    let puts = rig.store.faults().hold("PutObject");
    rig.client.request(Action::Archive, 1, &[busy]).unwrap();
    assert!(puts.wait_held_blocking(1, PATIENCE));
    rig.client.request(Action::Restore, 1, &[*fid]).unwrap();
    until(|| (in_hand(&postgres, "mover2") == 1).then_some(()));
    until(|| (rig.store.stats().count("RestoreObject") == 1).then_some(()));
    // More often than it would be begun again for where its mover is.
    let looks = rig.store.stats().count("HeadObject") + 9;
    until(|| (rig.store.stats().count("HeadObject") >= looks).then_some(()));
    let gets = rig.store.faults().hold("GetObject");
    rig.store.thaw(BUCKET, name);
    assert!(gets.wait_held_blocking(1, PATIENCE));
    is_evicted(&mut rig, [gets, puts]);
    ends_well(&mut rig, &[*fid, busy]);
    assert_eq!(rig.read(name), *content);
    assert_eq!(errors_of_restores(&mut rig), [0], "{}", second.log());
    end(rig, second, &postgres);
}
