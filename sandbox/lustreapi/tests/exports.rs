//! The library as a copytool's loader sees it.

use std::ffi::{CString, c_char, c_int, c_void};

use lhsm_sandbox::protocol::{Action, states};
use lhsm_sandbox::{Client, Mdt, Options, process};

#[test]
#[expect(unsafe_code, reason = "loads a library")]
fn every_function_that_a_copytool_needs_is_exported() {
    // SAFETY: our own library; it has no constructors.
    let library = unsafe { libloading::Library::new(process::artifact(process::LIBRARY).unwrap()) }.unwrap();
    for name in [
        "llapi_hsm_copytool_register",
        "llapi_hsm_copytool_unregister",
        "llapi_hsm_copytool_get_fd",
        "llapi_hsm_action_begin",
        "llapi_hsm_action_end",
        "llapi_hsm_action_progress",
        "llapi_hsm_action_get_dfid",
        "llapi_hsm_action_get_fd",
        "llapi_hsm_copytool_recv",
        "llapi_hsm_import",
        "llapi_hsm_log_error",
        "llapi_hsm_register_event_fifo",
        "llapi_hsm_unregister_event_fifo",
        "llapi_error",
        "llapi_error_callback_set",
        "llapi_fid2path_at",
        "llapi_fid_parse",
        "llapi_msg_set_level",
        "llapi_parse_size",
        "llapi_search_fsname",
        "llapi_fid2path",
        "llapi_hsm_state_get",
        "llapi_hsm_state_set",
        "llapi_get_mdt_index_by_fid",
        "ioctl",
        "close",
        "lgetxattr",
        "llistxattr",
        "lsetxattr",
        "lremovexattr",
        "fsetxattr",
        "fsync",
        "openat",
        "pread64",
        "pwrite64",
        "statx",
        "llapi_getname",
        "llapi_get_obd_count",
        "llapi_create_volatile_idx",
        "llapi_fd2fid",
        "llapi_path2fid",
        "llapi_get_data_version",
    ] {
        // SAFETY: only looked up, not called.
        let found = unsafe { library.get::<*const ()>(name) };
        assert!(found.is_ok(), "{name}");
    }
}

type Register = unsafe extern "C" fn(*mut *mut c_void, *const c_char, c_int, *mut c_int, c_int) -> c_int;
type Unregister = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
type Receive = unsafe extern "C" fn(*mut c_void, *mut *mut u8, *mut c_int) -> c_int;
type Begin = unsafe extern "C" fn(*mut *mut c_void, *const c_void, *const u8, c_int, c_int, bool) -> c_int;
type End = unsafe extern "C" fn(*mut *mut c_void, *const [u64; 2], c_int, c_int) -> c_int;

/// The calls of lhsmtool_posix' main loop, in its order, with its structs' offsets.
#[test]
#[expect(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    reason = "calls C functions as C does"
)]
fn the_reference_copytools_loop_archives_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("lustre");
    let _mdt = Mdt::start(Options::new(&mount)).unwrap();
    let mut client = Client::new(&mount).unwrap();
    std::fs::write(mount.join("file"), b"data").unwrap();
    let fid = client.fid(&mount.join("file")).unwrap();
    // SAFETY: our own library, called with the signatures of lustreapi.h; every pointer outlives its call.
    unsafe {
        let library = libloading::Library::new(process::artifact(process::LIBRARY).unwrap()).unwrap();
        let register = library.get::<Register>("llapi_hsm_copytool_register").unwrap();
        let unregister = library.get::<Unregister>("llapi_hsm_copytool_unregister").unwrap();
        let receive = library.get::<Receive>("llapi_hsm_copytool_recv").unwrap();
        let begin = library.get::<Begin>("llapi_hsm_action_begin").unwrap();
        let end = library.get::<End>("llapi_hsm_action_end").unwrap();

        let path = CString::new(mount.to_str().unwrap()).unwrap();
        let mut ct = std::ptr::null_mut();
        assert_eq!(register(&raw mut ct, path.as_ptr(), 1, [1].as_mut_ptr(), 0), 0);
        client.request(Action::Archive, 1, &[fid]).unwrap();

        let (mut hal, mut size) = (std::ptr::null_mut(), 0);
        assert_eq!(receive(ct, &raw mut hal, &raw mut size), 0);
        assert_eq!(size, 112, "hsm_action_list 32 + name 8 + item 72");
        let item = hal.add(40);
        assert_eq!(item.add(4).cast::<u32>().read_unaligned(), 20, "HSMA_ARCHIVE");

        let mut action = std::ptr::null_mut();
        assert_eq!(begin(&raw mut action, ct, item, -1, 0, false), 0);
        assert_eq!(end(&raw mut action, &[0, 4], 0, 0), 0);
        assert_eq!(unregister(&raw mut ct), 0);
    }
    assert_eq!(client.state(fid).unwrap().states, states::EXISTS | states::ARCHIVED);
}
