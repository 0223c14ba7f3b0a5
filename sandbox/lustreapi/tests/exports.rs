//! The library as a copytool's loader sees it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its setup too")]

use std::path::PathBuf;

fn library() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("liblustreapi_sandbox.so"))
        .find(|path| path.exists())
        .unwrap()
}

#[test]
#[expect(unsafe_code, reason = "loads a library")]
fn every_function_that_a_copytool_needs_is_exported() {
    // SAFETY: our own library; it has no constructors.
    let library = unsafe { libloading::Library::new(library()) }.unwrap();
    for name in [
        "llapi_hsm_copytool_register",
        "llapi_hsm_copytool_unregister",
        "llapi_hsm_copytool_get_fd",
        "llapi_hsm_action_begin",
        "llapi_hsm_action_end",
        "llapi_hsm_action_progress",
        "llapi_hsm_action_get_dfid",
        "llapi_hsm_action_get_fd",
        "llapi_search_fsname",
        "llapi_fid2path",
        "llapi_hsm_state_get",
        "llapi_hsm_state_set",
        "llapi_get_mdt_index_by_fid",
        "ioctl",
        "lgetxattr",
        "lsetxattr",
        "lremovexattr",
        "fsetxattr",
        "statx",
    ] {
        // SAFETY: only looked up, not called.
        let found = unsafe { library.get::<*const ()>(name) };
        assert!(found.is_ok(), "{name}");
    }
}
