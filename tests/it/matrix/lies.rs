//! A store that says what is not so: of bytes, ETags, checksums, lists, and uploads.

use super::{
    BOTH, Case, DONE, FOR_EVER, IMPATIENT, LARGE, Left, PLAIN, Row, Told, Verb, archives_fail, no_more_faults, quiet,
    rig,
};
use crate::recovery::{dies_completing, ends_well};
use crate::rig::{BUCKET, Rig, noise};

#[test]
fn wrong_bytes_are_never_a_restored_file_and_are_read_or_sent_again() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            rig.store.faults().corrupt_body(1);
            for op in ["PutObject", "UploadPart"] {
                rig.store.faults().fail(op, 400, "BadDigest", 2);
            }
            case.request(rig);
        },
        told: |_| DONE,
        ..PLAIN
    }
    .holds();
}

#[test]
fn bytes_that_come_wrong_time_and_again_are_eio_and_the_file_stays_released() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            rig.store.faults().corrupt_body(FOR_EVER);
            case.request(rig);
        },
        told: |case| match case.verb {
            Verb::Restore => Told::Errno(libc::EIO),
            _ => DONE,
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn bytes_that_arrive_wrong_time_and_again_are_eio_and_leave_the_former_copy() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            for op in ["PutObject", "UploadPart"] {
                rig.store.faults().fail(op, 400, "BadDigest", FOR_EVER);
            }
            case.request(rig);
        },
        told: |case| archives_fail(case, libc::EIO),
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_wrong_etag_of_an_object_loses_no_copy() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            for op in ["PutObject", "CompleteMultipartUpload", "GetObject"] {
                rig.store.faults().wrong_etag(op, 1);
            }
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_wrong_etag_of_a_part_fails_the_archive_and_leaves_the_former_copy() {
    Row {
        sizes: &[LARGE],
        act: |rig, case| {
            rig.store.faults().wrong_etag("UploadPart", 1);
            case.request(rig);
        },
        told: |case| archives_fail(case, libc::EINVAL),
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_checksum_that_lies_once_has_the_bytes_sent_again() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            for op in ["PutObject", "UploadPart", "GetObject"] {
                rig.store.faults().wrong_checksum(op, 2);
            }
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_checksum_that_goes_on_lying_is_eio_and_its_object_is_nobodys_copy() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            for op in ["PutObject", "UploadPart"] {
                rig.store.faults().wrong_checksum(op, FOR_EVER);
            }
            case.request(rig);
        },
        told: |case| archives_fail(case, libc::EIO),
        left: |case, done| match case.verb {
            // It took the place of the former one, which the file's record names: the next archive replaces it. The file
            // is dirty, so its data is here.
            Verb::Rearchive if !case.is_large() => Left::New,
            _ => case.usually_left(done),
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn a_checksum_of_the_whole_that_lies_is_eio_and_its_object_is_nobodys_copy() {
    Row {
        sizes: &[LARGE],
        act: |rig, case| {
            rig.store.faults().wrong_checksum("CompleteMultipartUpload", 1);
            case.request(rig);
        },
        told: |case| archives_fail(case, libc::EIO),
        left: |case, done| match case.verb {
            Verb::Rearchive => Left::New,
            _ => case.usually_left(done),
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn lists_that_repeat_themselves_touch_no_verb() {
    Row {
        sizes: BOTH,
        act: |rig, case| {
            for op in ["ListParts", "ListMultipartUploads", "ListObjectsV2"] {
                rig.store.faults().repeat(op);
            }
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn lists_that_repeat_themselves_keep_no_daemon_from_starting_and_going_on() {
    let mut rig = Rig::new();
    let content = noise(LARGE);
    let fid = rig.file("large", &content);
    dies_completing(&mut rig, fid);
    for op in ["ListParts", "ListMultipartUploads", "ListObjectsV2"] {
        rig.store.faults().repeat(op);
    }
    rig.start();
    ends_well(&mut rig, &[fid]);
    assert!(rig.store.object_body(BUCKET, "large") == Some(content));
    assert_eq!(rig.store.stats().count("UploadPart"), 3, "{}", rig.log());
    assert!(rig.store.stats().count("ListParts") < 10, "{}", rig.log());
    rig.assert_settled();
    assert_eq!(rig.stop(), Some(0));
    // They are listed beside the work.
    assert!(rig.store.stats().count("ListMultipartUploads") < 10);
}

#[test]
fn an_error_in_the_body_of_a_good_answer_is_waited_out() {
    Row {
        sizes: &[LARGE],
        act: |rig, case| {
            let op = "CompleteMultipartUpload";
            rig.store.faults().fail(op, 200, "InternalError", 2);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn an_error_in_the_body_of_a_good_answer_is_never_taken_for_success() {
    Row {
        sizes: &[LARGE],
        settings: IMPATIENT,
        act: |rig, case| {
            let op = "CompleteMultipartUpload";
            rig.store.faults().fail(op, 200, "InternalError", FOR_EVER);
            case.request(rig);
        },
        told: |case| archives_fail(case, libc::ETIMEDOUT),
        ..PLAIN
    }
    .holds();
}

#[test]
fn an_upload_that_vanishes_is_begun_anew() {
    Row {
        sizes: &[LARGE],
        act: |rig, case| {
            rig.store.faults().lose_upload("UploadPart", 1);
            rig.store.faults().lose_upload("CompleteMultipartUpload", 1);
            case.request(rig);
        },
        ..PLAIN
    }
    .holds();
}

#[test]
fn uploads_that_keep_vanishing_are_given_up_with_etimedout() {
    for op in ["UploadPart", "CompleteMultipartUpload"] {
        let mut rig = rig("");
        for verb in [Verb::Archive, Verb::Rearchive] {
            let case = Case::new(&mut rig, verb, LARGE);
            rig.store.faults().lose_upload(op, FOR_EVER);
            let before = rig.store.stats().count("CreateMultipartUpload");
            case.request(&mut rig);
            rig.settle(case.fid);
            quiet(&rig);
            case.check(&mut rig, Told::Errno(libc::ETIMEDOUT), case.usually_left(false));
            assert_eq!(rig.store.stats().count("CreateMultipartUpload"), before + 3);
            no_more_faults(&mut rig);
            case.afterwards(&mut rig, false);
        }
        assert_eq!(rig.stop(), Some(0));
    }
}
