//! Nodes that die, are cut off or stand still: what coordinators do meanwhile, and what their late calls come to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its setup too")]

use std::fs::File;
use std::io::{PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lhsm_sandbox::protocol::{
    Action, ActionState, Connection, Fault, Fid, HsmControl, Item, NodeInfo, NodeState, Reply, Request, Tunable,
    connect,
};
use lhsm_sandbox::{Client, Mdt, Options};
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// Ends a test that hangs; no test is timed by it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Enough for a coordinator that goes on to show it: many of its ticks.
const MOMENT: Duration = Duration::from_millis(60);
const XATTR: &str = "trusted.late";

struct World {
    client: Client,
    _mdt: Mdt,
    dir: tempfile::TempDir,
}

impl World {
    /// In which no node is evicted before a test says so.
    fn new(mdts: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("lustre");
        let mdt = Mdt::start(Options {
            mdts,
            tick: Duration::from_millis(2),
            restore_on_read: Some(false),
            ..Options::new(&mount)
        });
        let mdt = mdt.unwrap();
        let mut client = Client::new(&mount).unwrap();
        client.set(Tunable::EvictionMs, 3_600_000).unwrap();
        Self { client, _mdt: mdt, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("lustre").join(name)
    }

    fn file(&mut self, name: &str) -> Fid {
        let path = self.path(name);
        std::fs::write(&path, b"data").unwrap();
        self.client.fid(&path).unwrap()
    }

    fn archive(&mut self, fid: Fid) {
        self.client.request(Action::Archive, 1, &[fid]).unwrap();
    }

    fn states(&mut self, fid: Fid) -> Vec<(Action, ActionState)> {
        let actions = self.client.actions().unwrap().into_iter();
        let of = actions.filter(|action| action.fid == fid);
        of.map(|action| (action.action, action.state)).collect()
    }

    /// Copytools that MDTs list, each with what they count out at it.
    #[track_caller]
    fn assert_agents(&mut self, wanted: &[(&str, i64)]) {
        let agents = self.client.agents().unwrap();
        let found: Vec<_> = agents
            .iter()
            .map(|agent| (agent.client.as_str(), agent.outstanding))
            .collect();
        assert_eq!(found, wanted);
    }

    fn node(&mut self, name: &str) -> NodeInfo {
        let nodes = self.client.nodes().unwrap();
        nodes.into_iter().find(|node| node.name == name).unwrap()
    }

    fn until_calls_wait(&mut self, name: &str, calls: usize) {
        let start = Instant::now();
        while self.node(name).calls != calls {
            assert!(start.elapsed() < PATIENCE, "no call waits");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// A node's kernel with a copytool's pipe.
struct Node {
    name: &'static str,
    connection: Connection,
    pipe: PipeReader,
}

impl Node {
    fn new(world: &World, name: &'static str) -> Self {
        let (pipe, _) = std::io::pipe().unwrap();
        let mut node = Self {
            name,
            connection: connect(&world.path("")).unwrap(),
            pipe,
        };
        node.ask(&Request::Node(name.into())).unwrap();
        node.register();
        node
    }

    fn register(&mut self) {
        let (read, write) = std::io::pipe().unwrap();
        let request = Request::Register {
            uid: 1,
            archives: vec![1],
            listed: true,
            client: self.name.into(),
        };
        self.connection.send(&request, Some(write.as_fd())).unwrap();
        self.answer().unwrap();
        self.pipe = read;
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, i32> {
        self.connection.send(request, None).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Result<Reply, i32> {
        match self.connection.receive::<Reply>().unwrap() {
            Some((Reply::Errno(errno), _)) => Err(errno),
            Some((reply, _)) => Ok(reply),
            None => Err(libc::ECONNABORTED),
        }
    }

    fn is_told(&self, within: Duration) -> bool {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(within).unwrap();
        nix::poll::poll(&mut fds, timeout).unwrap() > 0
    }

    /// The next `count` actions that come down the pipe.
    fn receive(&mut self, count: usize) -> Vec<(Action, u64)> {
        let mut items = Vec::new();
        while items.len() < count {
            assert!(self.is_told(PATIENCE), "nothing comes to {}: {items:?}", self.name);
            let mut head = [0; 8];
            self.pipe.read_exact(&mut head).unwrap();
            let mut list = vec![0; usize::from(u16::from_le_bytes([head[6], head[7]])) - head.len()];
            self.pipe.read_exact(&mut list).unwrap();
            let word = |at: usize| u32::from_le_bytes(list[at..at + 4].try_into().unwrap());
            // Behind the head of the list and the file system's name.
            let mut at = 40;
            for _ in 0..word(4) {
                let cookie = u64::from_le_bytes(list[at + 56..at + 64].try_into().unwrap());
                items.push((Action::from_number(word(at + 4)), cookie));
                at += usize::try_from(word(at)).unwrap().next_multiple_of(8);
            }
        }
        assert_eq!(items.len(), count, "more came to {}: {items:?}", self.name);
        items
    }

    /// The cookie of the one archive that comes.
    fn archive(&mut self) -> u64 {
        let items = self.receive(1);
        assert_eq!(items[0].0, Action::Archive);
        items[0].1
    }

    fn progress(&mut self, fid: Fid, cookie: u64) -> Result<Reply, i32> {
        self.ask(&Request::Progress {
            fid,
            cookie,
            offset: 0,
            length: 0,
        })
    }

    fn end(&mut self, fid: Fid, cookie: u64, errval: i32) -> Result<Reply, i32> {
        let item = Item {
            action: Action::Archive,
            fid,
            dfid: fid,
            cookie,
        };
        let data_version = match self.ask(&Request::DataVersion(fid)).unwrap() {
            Reply::Ok(version) => version,
            other => panic!("{other:?}"),
        };
        self.ask(&Request::CopyEnd {
            item,
            flags: 0,
            errval,
            asked: errval,
            data_version,
            no_layout: false,
            layout: None,
        })
    }

    fn make_volatile(&mut self) -> Fid {
        match self.ask(&Request::NewVolatile(0)).unwrap() {
            Reply::Fid(fid) => fid,
            other => panic!("{other:?}"),
        }
    }
}

/// Two nodes with a copytool each; the first one is chosen where both have as much to do.
fn two(world: &World) -> (Node, Node) {
    (Node::new(world, "a"), Node::new(world, "b"))
}

#[test]
fn a_coordinator_waits_in_its_send_to_a_dead_node_until_that_one_is_evicted() {
    let mut world = World::new(1);
    let (a, mut b) = two(&world);
    let fids: Vec<_> = (0..3).map(|n| world.file(&format!("f{n}"))).collect();
    world.client.kill_node("a").unwrap();
    // No kernel tells of the pipe's end.
    drop(a);
    world.archive(fids[0]);
    assert!(world.client.wait_held_up(0, PATIENCE).unwrap());
    world.client.request(Action::Archive, 1, &fids[1..]).unwrap();
    assert!(!b.is_told(MOMENT), "an idle node gets nothing meanwhile");
    for fid in &fids {
        assert_eq!(world.states(*fid), [(Action::Archive, ActionState::Waiting)]);
    }
    let dead = world.node("a");
    assert_eq!((dead.state, dead.evicted), (NodeState::Dead, false));
    assert_eq!(dead.holds_up, [0]);
    world.assert_agents(&[("a", 1), ("b", 0)]);

    world.client.evict("a").unwrap();
    b.receive(3);
    // The failed send is still counted, and the agent still listed.
    world.assert_agents(&[("a", 1), ("b", 3)]);
    // So it is the one with less to do. It is found out at once now.
    let more = world.file("more");
    world.archive(more);
    b.archive();
    world.assert_agents(&[("b", 4)]);
}

#[test]
fn silence_is_ended_by_an_eviction_after_a_time_that_can_be_set() {
    let mut world = World::new(1);
    let (a, mut b) = two(&world);
    let fid = world.file("file");
    world.client.kill_node("a").unwrap();
    drop(a);
    world.archive(fid);
    assert!(world.client.wait_held_up(0, PATIENCE).unwrap());
    world.client.set(Tunable::EvictionMs, 1).unwrap();
    assert!(world.client.wait_evicted("a", PATIENCE).unwrap());
    b.archive();
}

#[test]
fn what_a_dead_node_was_given_stays_started_until_its_time_is_over() {
    let mut world = World::new(1);
    let (mut a, mut b) = two(&world);
    let (fid, other) = (world.file("file"), world.file("other"));
    world.archive(fid);
    a.archive();
    world.client.kill_node("a").unwrap();
    drop(a);
    world.client.evict("a").unwrap();
    world.archive(other);
    b.archive();
    assert_eq!(world.states(fid), [(Action::Archive, ActionState::Started)]);
    world.client.set(Tunable::ActiveRequestTimeoutMs, 1).unwrap();
    world.client.set(Tunable::LoopPeriodMs, 1).unwrap();
    assert!(world.client.wait(&[fid], PATIENCE).unwrap());
    assert_eq!(world.states(fid), [(Action::Archive, ActionState::Canceled)]);
}

#[test]
fn a_node_that_is_heard_again_in_time_gets_what_was_sent_and_its_late_calls_arrive() {
    let mut world = World::new(1);
    let (mut a, b) = two(&world);
    let fid = world.file("file");
    world.client.cut_node("a").unwrap();
    world.archive(fid);
    assert!(world.client.wait_held_up(0, PATIENCE).unwrap());
    let late = std::thread::spawn(move || {
        let set = a.ask(&Request::SetXattr(fid, XATTR.into(), b"late".to_vec()));
        (a, set)
    });
    world.until_calls_wait("a", 1);
    assert!(world.client.xattr(fid, XATTR).is_err());
    world.client.heal_node("a").unwrap();
    let (mut a, set) = late.join().unwrap();
    assert!(set.is_ok(), "{set:?}");
    assert_eq!(world.client.xattr(fid, XATTR).unwrap(), b"late");
    let cookie = a.archive();
    assert!(a.end(fid, cookie, 0).is_ok());
    assert_eq!(world.states(fid), [(Action::Archive, ActionState::Succeed)]);
    assert!(!b.is_told(Duration::ZERO));
    world.assert_agents(&[("a", 0), ("b", 0)]);
}

#[test]
fn an_evicted_node_comes_back_by_itself_and_its_old_ends_push_its_count_below_nothing() {
    let mut world = World::new(1);
    let (mut a, mut b) = two(&world);
    let fids: Vec<_> = (0..4).map(|n| world.file(&format!("f{n}"))).collect();
    let fid = fids[0];
    world.archive(fid);
    let old = a.archive();
    world.client.cut_node("a").unwrap();
    let late = std::thread::spawn(move || {
        let set = a.ask(&Request::SetXattr(fid, XATTR.into(), b"late".to_vec()));
        (a, set)
    });
    world.until_calls_wait("a", 1);
    world.client.evict("a").unwrap();
    // The first goes to the one with nothing to do, the second finds the other one gone.
    for fid in &fids[1..3] {
        world.archive(*fid);
        b.archive();
    }
    world.assert_agents(&[("b", 2)]);

    world.client.heal_node("a").unwrap();
    let (mut a, set) = late.join().unwrap();
    assert_eq!(
        set.unwrap_err(),
        libc::EIO,
        "a call from before the eviction is given up"
    );
    assert!(world.client.xattr(fid, XATTR).is_err());
    world.assert_agents(&[("a", 0), ("b", 2)]);
    // Nothing keeps it out.
    assert!(a.end(fid, old, 0).is_ok());
    assert_eq!(world.states(fid), [(Action::Archive, ActionState::Succeed)]);
    world.assert_agents(&[("a", -1), ("b", 2)]);
    world.archive(fids[3]);
    a.archive();
}

#[test]
fn a_file_that_was_open_at_the_eviction_fails_once_and_goes_on() {
    let mut world = World::new(1);
    let (mut a, mut b) = two(&world);
    world.file("file");
    let file = File::open(world.path("file")).unwrap();
    let stat = file.metadata().unwrap();
    let write = Request::Write(stat.dev(), stat.ino());
    assert!(a.ask(&write).is_ok());
    world.client.pause_node("a").unwrap();
    world.client.evict("a").unwrap();
    world.client.heal_node("a").unwrap();
    assert_eq!(a.ask(&write).unwrap_err(), libc::EIO);
    assert!(a.ask(&write).is_ok(), "it overwrites what others wrote meanwhile");
    assert!(b.ask(&write).is_ok());
    // Copytools ask about each read and write since.
    assert_eq!(std::fs::read(world.path(".lustre/io-faults")).unwrap(), [1]);
}

#[test]
fn volatile_files_go_at_their_nodes_eviction() {
    let mut world = World::new(1);
    let (mut a, _b) = two(&world);
    let old = a.make_volatile();
    assert!(a.ask(&Request::Sync(old)).is_ok());
    // One that is heard comes back at once, and knows nothing of it before its next call.
    world.client.evict("a").unwrap();
    assert_eq!(a.ask(&Request::Sync(old)).unwrap_err(), libc::ENOENT);
    let new = a.make_volatile();
    assert!(a.ask(&Request::Sync(new)).is_ok());
    assert_eq!(world.node("a").state, NodeState::Up);
}

#[test]
fn an_end_whose_data_went_with_a_restart_fails_what_was_sent_again_and_tells_whether_its_copytool_had_looked() {
    for looks in [true, false] {
        let mut world = World::new(1);
        let mut a = Node::new(&world, "a");
        let fid = world.file("file");
        world.archive(fid);
        let cookie = a.archive();
        assert!(a.end(fid, cookie, 0).is_ok());
        world.client.release(fid).unwrap();
        world.client.request(Action::Restore, 1, &[fid]).unwrap();
        let cookie = a.receive(1)[0].1;
        let dfid = a.make_volatile();
        if looks {
            assert!(a.ask(&Request::Sync(dfid)).is_ok());
        }
        world.client.inject(Fault::Restart).unwrap();
        assert_eq!(a.receive(1), [(Action::Restore, cookie)]);
        let end = Request::CopyEnd {
            item: Item {
                action: Action::Restore,
                fid,
                dfid,
                cookie,
            },
            flags: 0,
            errval: 0,
            asked: 0,
            data_version: 0,
            no_layout: false,
            layout: None,
        };
        let data = File::open(world.path("file")).unwrap();
        a.connection.send(&end, Some(data.as_fd())).unwrap();
        assert_eq!(a.answer().unwrap_err(), libc::ESTALE);
        let restore = world.client.actions().unwrap().pop().unwrap();
        assert_eq!((restore.state, restore.errval), (ActionState::Failed, libc::ESTALE));
        assert_eq!(restore.spoiled, looks);
    }
}

#[test]
fn what_a_dead_node_had_open_is_open_until_its_eviction() {
    let mut world = World::new(1);
    let (mut a, _b) = two(&world);
    let fid = world.file("file");
    world.archive(fid);
    let cookie = a.archive();
    assert!(a.end(fid, cookie, 0).is_ok());
    let open = File::open(world.path("file")).unwrap();
    world.client.kill_node("a").unwrap();
    drop(open);
    let refused = world.client.release(fid).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
    world.client.evict("a").unwrap();
    world.client.release(fid).unwrap();
}

#[test]
fn a_cancel_goes_to_the_agent_that_got_the_action_also_when_another_one_took_it_over() {
    let mut world = World::new(1);
    let (mut a, mut b) = two(&world);
    let fid = world.file("file");
    world.archive(fid);
    let cookie = a.archive();
    assert!(b.progress(fid, cookie).is_ok());
    world.client.request(Action::Cancel, 1, &[fid]).unwrap();
    assert_eq!(a.receive(1), [(Action::Cancel, cookie)]);
    assert!(!b.is_told(MOMENT));
    assert_eq!(b.progress(fid, cookie).unwrap_err(), libc::ECANCELED);
    assert!(b.end(fid, cookie, libc::ECANCELED).is_ok());
    assert_eq!(
        world.states(fid),
        [
            (Action::Archive, ActionState::Canceled),
            (Action::Cancel, ActionState::Succeed)
        ]
    );
    // The end is counted for the one that got it, whoever sends it.
    world.assert_agents(&[("a", 0), ("b", 0)]);
}

#[test]
fn a_cancel_for_a_dead_node_holds_its_mdt_up_too_and_goes_to_anybody_after_the_eviction() {
    let mut world = World::new(1);
    let (mut a, mut b) = two(&world);
    let fid = world.file("file");
    world.archive(fid);
    let cookie = a.archive();
    world.client.kill_node("a").unwrap();
    drop(a);
    world.client.request(Action::Cancel, 1, &[fid]).unwrap();
    assert!(world.client.wait_held_up(0, PATIENCE).unwrap());
    // Who has taken it over hears of it all the same.
    assert_eq!(b.progress(fid, cookie).unwrap_err(), libc::ECANCELED);
    world.client.evict("a").unwrap();
    assert_eq!(b.receive(1), [(Action::Cancel, cookie)]);
}

#[test]
fn only_the_mdt_that_sends_to_a_dead_node_stands_still() {
    let mut world = World::new(2);
    let (mut a, mut b) = two(&world);
    let other = world.path("other");
    world.client.make_dir(&other, 1).unwrap();
    let first = world.file("first");
    let there: Vec<_> = (0..3).map(|n| world.file(&format!("other/{n}"))).collect();
    world.archive(there[0]);
    a.archive();
    world.client.kill_node("a").unwrap();
    drop(a);
    world.archive(first);
    assert!(world.client.wait_held_up(0, PATIENCE).unwrap());
    world.archive(there[1]);
    b.archive();
    assert_eq!(world.node("a").holds_up, [0]);
    // Both have as much to do there now.
    world.archive(there[2]);
    assert!(world.client.wait_held_up(1, PATIENCE).unwrap());
    assert_eq!(world.node("a").holds_up, [0, 1]);
    world.client.evict("a").unwrap();
    b.receive(2);
}

#[test]
fn a_purge_leaves_the_slots_of_a_silent_node_taken_until_the_coordinator_is_switched_off_and_on() {
    let mut world = World::new(1);
    let (mut a, mut b) = two(&world);
    world.client.set(Tunable::MaxRequests, 1).unwrap();
    let (fid, next) = (world.file("file"), world.file("next"));
    world.archive(fid);
    a.archive();
    world.client.kill_node("a").unwrap();
    drop(a);
    world.client.evict("a").unwrap();
    world.client.control(HsmControl::Purge).unwrap();
    assert_eq!(world.states(fid), [(Action::Archive, ActionState::Canceled)]);
    world.archive(next);
    assert!(!b.is_told(MOMENT));
    world.client.control(HsmControl::Shutdown).unwrap();
    world.client.control(HsmControl::Enabled).unwrap();
    b.register();
    b.archive();
}

#[test]
fn a_node_that_boots_is_another_client_than_the_dead_one_of_its_name() {
    let mut world = World::new(1);
    let (a, b) = two(&world);
    let fid = world.file("file");
    world.client.kill_node("a").unwrap();
    world.client.kill_node("b").unwrap();
    drop((a, b));
    let mut again = Node::new(&world, "a");
    world.assert_agents(&[("a#0", 0), ("b", 0), ("a", 0)]);
    world.archive(fid);
    assert!(world.client.wait_held_up(0, PATIENCE).unwrap());
    // By its name it is the dead one that is meant.
    world.client.evict("a").unwrap();
    world.client.evict("b").unwrap();
    again.archive();
    assert_eq!(world.node("a").state, NodeState::Up);
    assert!(world.client.evict("c").is_err(), "there was never one");
}

#[test]
fn an_action_says_since_when_its_copytool_has_it_and_nothing_while_it_is_on_its_way_to_a_dead_one() {
    let mut world = World::new(1);
    let (a, mut b) = two(&world);
    let fid = world.file("file");
    world.client.kill_node("a").unwrap();
    drop(a);
    world.archive(fid);
    assert!(world.client.wait_held_up(0, PATIENCE).unwrap());
    assert_eq!(world.client.actions().unwrap()[0].delivered_ms, None);
    world.client.evict("a").unwrap();
    b.archive();
    // It is said right behind the write.
    let start = Instant::now();
    while world.client.actions().unwrap()[0].delivered_ms.is_none() {
        assert!(start.elapsed() < PATIENCE, "it is never said");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
