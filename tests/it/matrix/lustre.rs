//! Faults of Lustre.

use std::fs;

use lhsm_sandbox::protocol::{Action, Fault, HsmControl};

use super::{BOTH, Case, DONE, LARGE, Left, PLAIN, Row, SMALL, Told, Verb, archives_fail, quiet, time_out};
use crate::rig::{BUCKET, PATIENCE, Rig, noise};

/// What the store had made before the coordinator was found not to take it. A copy that is replaced in place can't be
/// brought back; the new one is mapped, and the file is dirty.
fn left_unanswered(case: &Case) -> Left {
    match case.verb {
        Verb::Archive | Verb::Remove => Left::Nothing,
        Verb::Rearchive => Left::New,
        Verb::Restore => Left::Former,
    }
}

#[test]
fn a_file_that_changes_is_ebusy_at_the_end_and_no_copy() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            if !case.verb.sends() {
                return case.request(rig);
            }
            let gate = case.request_held(rig, case.last_op());
            // What was sent is neither the former copy nor the file any more.
            case.former = std::mem::take(&mut case.content);
            case.write(rig, b"changed".to_vec());
            gate.release();
        },
        told: |case| archives_fail(case, libc::EBUSY),
        ..PLAIN
    }
    .holds();
}

#[test]
fn an_action_that_timed_out_is_enoent_at_the_end_and_what_it_made_is_undone() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            let gate = case.request_held(rig, case.last_op());
            time_out(rig, case.fid);
            gate.release();
        },
        told: |_| Told::Nothing,
        left: |case, _| left_unanswered(case),
        ..PLAIN
    }
    .holds();
}

#[test]
fn an_action_that_was_purged_is_stopped_and_leaves_what_was() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            // Held until the bucket was looked at: what had arrived there could still be served.
            drop(case.request_held(rig, case.data_op()));
            rig.client.control(HsmControl::Purge).unwrap();
        },
        told: |_| Told::Nothing,
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_restart_of_the_mdt_ends_restores_well_and_gives_the_rest_up() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            let gate = case.request_held(rig, case.last_op());
            rig.client.inject(Fault::Restart).unwrap();
            if case.verb == Verb::Restore {
                assert!(rig.client.wait_started(1, PATIENCE).unwrap(), "it is sent again");
                return gate.release();
            }
            gate.release();
            quiet(rig);
            // It stays STARTED in the log until then.
            time_out(rig, case.fid);
        },
        told: |case| match case.verb {
            Verb::Restore => DONE,
            _ => Told::Nothing,
        },
        left: |case, _| left_unanswered(case),
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_pipe_that_ends_takes_no_action_in_hand_with_it() {
    Row {
        sizes: BOTH,
        settings: "[lustre]\nkeepalive = '100ms'\n",
        act: |rig, case| {
            let gate = case.request_held(rig, case.data_op());
            rig.client.inject(Fault::ClosePipes).unwrap();
            assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
            gate.release();
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_file_that_can_not_be_read_is_eio_and_the_former_copy_stays() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            let errno = libc::EIO;
            rig.client.inject(Fault::ReadErrno { errno, times: 1 }).unwrap();
            case.request(rig);
        },
        told: |case| archives_fail(case, libc::EIO),
        ..PLAIN
    }
    .holds();
}

fn full(rig: &mut Rig, case: &Case, errno: i32) {
    rig.client.inject(Fault::WriteErrno { errno, times: 1 }).unwrap();
    case.request(rig);
}

fn restores_fail(case: &Case, errno: i32) -> Told {
    match case.verb {
        Verb::Restore => Told::Errno(errno),
        _ => DONE,
    }
}

#[test]
fn a_restore_into_a_full_file_system_is_enospc_and_the_file_stays_released() {
    Row {
        sizes: BOTH,
        act: |rig, case| full(rig, case, libc::ENOSPC),
        told: |case| restores_fail(case, libc::ENOSPC),
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_restore_over_the_owners_quota_is_edquot_and_the_file_stays_released() {
    Row {
        sizes: BOTH,
        act: |rig, case| full(rig, case, libc::EDQUOT),
        told: |case| restores_fail(case, libc::EDQUOT),
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_file_unlinked_under_way_leaves_no_object_but_of_a_restore() {
    let mut rig = Rig::new();
    for size in [SMALL, LARGE] {
        for verb in Verb::ALL {
            let case = Case::new(&mut rig, verb, size);
            let gate = case.request_held(&mut rig, case.last_op());
            fs::remove_file(rig.mount().join(&case.name)).unwrap();
            gate.release();
            assert!(rig.client.wait(&[case.fid], PATIENCE).unwrap(), "{}", rig.log());
            quiet(&rig);
            let errno = if verb == Verb::Remove { 0 } else { libc::ENOENT };
            assert_eq!(case.told(&mut rig), (errno, 1), "{verb:?}; {}", rig.log());
            assert_eq!(rig.store.uploads(BUCKET), []);
            if verb == Verb::Restore {
                // Whoever unlinks a file decides about its copy; the archive before may just have seen the unlink.
                assert!(rig.keys().iter().all(|key| *key == case.key), "{:?}", rig.keys());
                rig.client.request(Action::Remove, 1, &[case.fid]).unwrap_err();
                rig.store.delete(BUCKET, &case.key);
            }
            assert_eq!(rig.keys(), Vec::<String>::new(), "{verb:?}; {}", rig.log());
        }
    }
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
}

#[test]
fn a_file_truncated_while_it_is_read_is_ebusy_and_the_former_copy_stays() {
    Row {
        sizes: &[LARGE],
        act: |rig, case| {
            if !case.verb.sends() {
                return case.request(rig);
            }
            let gate = case.request_held(rig, "CreateMultipartUpload");
            case.write(rig, noise(1 << 20));
            gate.release();
        },
        told: |case| archives_fail(case, libc::EBUSY),
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_file_renamed_under_way_keeps_its_copy() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            let gate = case.request_held(rig, case.last_op());
            let name = format!("{}-renamed", case.name);
            fs::rename(rig.mount().join(&case.name), rig.mount().join(&name)).unwrap();
            case.name = name;
            gate.release();
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_record_that_can_not_be_written_fails_the_archive_and_never_maps_what_is_gone() {
    Row {
        act: |rig, case| {
            let (errno, times) = (libc::ENOSPC, 1000);
            rig.client.inject(Fault::XattrErrno { errno, times }).unwrap();
            case.request(rig);
        },
        told: |case| archives_fail(case, libc::ENOSPC),
        left: |case, done| match case.verb {
            // Replaced in place; its record is that of the copy before, and the file is dirty.
            Verb::Rearchive => Left::New,
            _ => case.usually_left(done),
        },
        ..PLAIN
    }
    .holds();
}
