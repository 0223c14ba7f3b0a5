//! Each fault with each verb: what the coordinator is told, what is left of the file and of its copy, and that all of
//! it can be done once the fault is over.

mod case;
mod lies;
mod lustre;
mod store;

use lhsm_sandbox::protocol::{Action, Fault, Fid, Tunable};

use self::case::Case;
use crate::model::idle;
use crate::rig::{Rig, Setup, until};

/// One request.
const SMALL: usize = 10_000;
/// Three parts.
const LARGE: usize = 11 << 20;
const BOTH: &[usize] = &[SMALL, LARGE];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Archive,
    Restore,
    Rearchive,
    Remove,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Archive, Self::Restore, Self::Rearchive, Self::Remove];

    fn action(self) -> Action {
        match self {
            Self::Archive | Self::Rearchive => Action::Archive,
            Self::Restore => Action::Restore,
            Self::Remove => Action::Remove,
        }
    }

    /// Whether it sends a file to the store.
    fn sends(self) -> bool {
        self.action() == Action::Archive
    }
}

/// What the coordinator hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// Once; 0: done.
    Errno(i32),
    /// Nothing that it takes: it has given the action up.
    Nothing,
}

const IMPATIENT: &str = "give_up_after = '1s'\n";
const FOR_EVER: u32 = 1_000_000;
const DONE: Told = Told::Errno(0);

/// What the bucket holds then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Nothing,
    /// The copy from before, and the file's record still means it.
    Former,
    /// A copy of what the file holds now.
    New,
}

/// One fault.
struct Row {
    sizes: &'static [usize],
    /// More of them; `[transfer]` goes on there.
    settings: &'static str,
    /// Sets the fault up and requests the action.
    act: fn(&mut Rig, &mut Case),
    told: fn(&Case) -> Told,
    /// With whether it was done.
    left: fn(&Case, bool) -> Left,
}

/// No fault.
const PLAIN: Row = Row {
    sizes: &[SMALL],
    settings: "",
    act: |rig, case| case.request(rig),
    told: |_| DONE,
    left: Case::usually_left,
};

impl Row {
    /// Tries it with each verb, one after the other.
    fn holds(&self) {
        let mut rig = rig(self.settings);
        for size in self.sizes {
            for verb in Verb::ALL {
                let mut case = Case::new(&mut rig, verb, *size);
                (self.act)(&mut rig, &mut case);
                rig.settle(case.fid);
                quiet(&rig);
                let told = (self.told)(&case);
                case.check(&mut rig, told, (self.left)(&case, told == DONE));
                no_more_faults(&mut rig);
                case.afterwards(&mut rig, told == DONE);
            }
        }
        assert_eq!(rig.stop(), Some(0));
    }
}

fn rig(settings: &str) -> Rig {
    let usual = Setup::default();
    Rig::with(Setup {
        settings: format!("{}{settings}", usual.settings),
        ..usual
    })
}

/// Until the daemon has nothing in hand: it cleans up after its answer.
fn quiet(rig: &Rig) {
    until(|| idle(rig).then_some(()));
}

fn no_more_faults(rig: &mut Rig) {
    rig.store.faults().clear();
    let (errno, times) = (0, 0);
    for fault in [
        Fault::XattrErrno { errno, times },
        Fault::ReadErrno { errno, times },
        Fault::WriteErrno { errno, times },
    ] {
        rig.client.inject(fault).unwrap();
    }
}

fn archives_fail(case: &Case, errno: i32) -> Told {
    if case.verb.sends() { Told::Errno(errno) } else { DONE }
}

/// The coordinator gives up what runs, without a word to the copytool.
fn time_out(rig: &mut Rig, fid: Fid) {
    rig.client.set(Tunable::LoopPeriodMs, 10).unwrap();
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 20).unwrap();
    rig.settle(fid);
    rig.client.set(Tunable::ActiveRequestTimeoutMs, 3_600_000).unwrap();
}

#[test]
fn without_a_fault_every_verb_is_done() {
    Row { sizes: BOTH, ..PLAIN }.holds();
}
