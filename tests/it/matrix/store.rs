//! A store that does not answer, does not want to, or not to the end.

use super::{BOTH, Case, FOR_EVER, IMPATIENT, PLAIN, Row, SMALL, Told, Verb, rig};
use crate::rig::{PATIENCE, Rig, until};

/// Every operation that a verb needs fails once or twice. `HeadObject` only when told to: its answer has no body.
fn burst(rig: &Rig, status: u16, code: &str, heads: u32) {
    for (op, times) in [
        ("PutObject", 2),
        ("UploadPart", 2),
        ("GetObject", 2),
        ("CreateMultipartUpload", 1),
        ("CompleteMultipartUpload", 1),
        ("DeleteObject", 1),
        ("HeadObject", heads),
    ] {
        rig.store.faults().fail(op, status, code, times);
    }
}

#[test]
fn a_store_that_does_not_answer_is_cut_off_and_asked_again() {
    Row {
        sizes: BOTH,
        settings: "stall_timeout = '200ms'\n",
        act: |rig, case| {
            let op = case.data_op();
            let before = rig.store.stats().count(op);
            let gate = case.request_held(rig, op);
            let parts = if case.is_large() && op != "HeadObject" { 3 } else { 1 };
            // More than it has parts: one of them is asked for again.
            until(|| (rig.store.stats().count(op) > before + parts).then_some(()));
            gate.release();
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_connection_that_is_reset_is_made_anew() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            for (op, times) in [("PutObject", 2), ("UploadPart", 2), ("GetObject", 2), ("HeadObject", 1)] {
                rig.store.faults().reset(op, times);
            }
            for op in ["CreateMultipartUpload", "CompleteMultipartUpload", "DeleteObject"] {
                rig.store.faults().reset(op, 1);
            }
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn an_answer_that_gets_lost_is_found_out_about() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            for op in ["PutObject", "UploadPart", "CompleteMultipartUpload", "DeleteObject"] {
                rig.store.faults().lose_answer(op, 1);
            }
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_burst_of_500_is_waited_out() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            burst(rig, 500, "InternalError", 1);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_burst_of_503_is_waited_out() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            burst(rig, 503, "ServiceUnavailable", 1);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_slow_down_is_obeyed_and_waited_out() {
    Row {
        act: |rig, case| {
            burst(rig, 503, "SlowDown", 1);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_store_that_stays_away_is_given_up_with_etimedout() {
    Row {
        settings: IMPATIENT,
        act: |rig, case| {
            rig.store.faults().fail("*", 503, "ServiceUnavailable", FOR_EVER);
            case.request(rig);
        },
        told: |_| Told::Errno(libc::ETIMEDOUT),
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_denial_is_eacces_at_once() {
    Row {
        act: |rig, case| {
            rig.store.faults().fail("*", 403, "AccessDenied", FOR_EVER);
            case.request(rig);
        },
        told: |_| Told::Errno(libc::EACCES),
        ..PLAIN
    }
    .holds();
}

#[test]
fn credentials_that_have_expired_are_asked_with_again() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            burst(rig, 403, "ExpiredToken", 0);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_clock_that_is_off_is_waited_out() {
    Row {
        act: |rig, case| {
            burst(rig, 403, "RequestTimeTooSkewed", 0);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_store_whose_name_is_not_known_is_given_up_with_etimedout_and_nothing_is_lost() {
    let mut rig = rig(IMPATIENT);
    let cases = Verb::ALL.map(|verb| Case::new(&mut rig, verb, SMALL));
    let before = rig.keys();
    assert_eq!(rig.stop(), Some(0));

    let mut spawn = rig.spawn();
    let config = std::fs::read_to_string(&spawn.config).unwrap();
    let config = config.replace(&rig.store.endpoint(), "http://store.invalid:9000");
    std::fs::write(&spawn.config, config).unwrap();
    // No proxy looks the name up for us, and a resolver that does not answer is not waited for.
    for (name, value) in [("NO_PROXY", "*"), ("RES_OPTIONS", "timeout:1 attempts:1")] {
        spawn.environment.push((name.into(), value.into()));
    }
    rig.daemon = Some(spawn.start().unwrap());
    assert!(rig.client.wait_agents(1, PATIENCE).unwrap(), "{}", rig.log());
    for case in &cases {
        case.request(&mut rig);
    }
    for case in &cases {
        rig.settle(case.fid);
        assert_eq!(case.told(&mut rig), (libc::ETIMEDOUT, 1), "{}", rig.log());
        let states = rig.client.state(case.fid).unwrap().states;
        assert_eq!(states, case.states(false), "{:?}", case.verb);
    }
    assert_eq!(rig.keys(), before);
    assert_eq!(rig.stop(), Some(0));

    rig.start();
    let [archive, restore, rearchive, remove] = &cases;
    for case in [archive, rearchive] {
        rig.archive(case.fid);
        rig.release(case.fid);
    }
    for case in [archive, restore, rearchive] {
        assert!(rig.restore(&case.name, case.fid) == case.content, "{}", rig.log());
    }
    assert_eq!(rig.act(remove.verb.action(), remove.fid).states, 0);
    assert_eq!(rig.keys().len(), 3);
}

#[test]
fn a_body_that_ends_too_soon_is_read_on() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            rig.store.faults().truncate_body("GetObject", 4000, 3);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}
