//! What ends a copytool that breaks a rule, and what the coordinator believes of one that does not know better.
//!
//! Each case runs in a process of its own: a broken rule aborts it.

#![expect(
    clippy::unwrap_used,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "calls C functions as C does, with the signatures of lustreapi.h; fails by panicking"
)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use lhsm_sandbox::protocol::{Action, ActionState, Fault, Fid, HsmControl, states};
use lhsm_sandbox::{Client, Mdt, Options, process};

type Register = unsafe extern "C" fn(*mut *mut c_void, *const c_char, c_int, *mut c_int, c_int) -> c_int;
type Unregister = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
type Receive = unsafe extern "C" fn(*mut c_void, *mut *mut u8, *mut c_int) -> c_int;
type Begin = unsafe extern "C" fn(*mut *mut c_void, *const c_void, *const u8, c_int, c_int, bool) -> c_int;
type End = unsafe extern "C" fn(*mut *mut c_void, *const [u64; 2], c_int, c_int) -> c_int;
type GetFd = unsafe extern "C" fn(*const c_void) -> c_int;
type Progress = unsafe extern "C" fn(*mut c_void, *const [u64; 2], u64, c_int) -> c_int;

const PATIENCE: Duration = Duration::from_secs(20);

/// A copytool written in the manner of C, registered with a sandbox that has one file.
struct Copytool {
    library: libloading::Library,
    ct: *mut c_void,
    client: Client,
    fid: Fid,
    _mdt: Mdt,
    dir: tempfile::TempDir,
}

impl Copytool {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("lustre");
        let mdt = Mdt::start(Options::new(&mount)).unwrap();
        let mut client = Client::new(&mount).unwrap();
        std::fs::write(mount.join("file"), b"data").unwrap();
        let fid = client.fid(&mount.join("file")).unwrap();
        let library = unsafe { libloading::Library::new(process::artifact(process::LIBRARY).unwrap()) }.unwrap();
        let mut copytool = Self {
            library,
            ct: std::ptr::null_mut(),
            client,
            fid,
            _mdt: mdt,
            dir,
        };
        copytool.register();
        copytool
    }

    fn get<T>(&self, name: &str) -> libloading::Symbol<'_, T> {
        unsafe { self.library.get(name) }.unwrap()
    }

    fn register(&mut self) {
        let path = CString::new(self.dir.path().join("lustre").to_str().unwrap()).unwrap();
        let mut ct = std::ptr::null_mut();
        let rc = unsafe {
            self.get::<Register>("llapi_hsm_copytool_register")(&raw mut ct, path.as_ptr(), 1, [1].as_mut_ptr(), 0)
        };
        assert_eq!(rc, 0);
        self.ct = ct;
    }

    fn unregister(&mut self) -> c_int {
        let mut ct = self.ct;
        unsafe { self.get::<Unregister>("llapi_hsm_copytool_unregister")(&raw mut ct) }
    }

    /// Asks for an action, receives it and begins it.
    fn begin(&mut self, action: Action) -> *mut c_void {
        self.client.request(action, 1, &[self.fid]).unwrap();
        let (mut hal, mut size) = (std::ptr::null_mut(), 0);
        let mut handle = std::ptr::null_mut();
        unsafe {
            assert_eq!(
                self.get::<Receive>("llapi_hsm_copytool_recv")(self.ct, &raw mut hal, &raw mut size),
                0
            );
            let begin = self.get::<Begin>("llapi_hsm_action_begin");
            assert_eq!(begin(&raw mut handle, self.ct, hal.add(40), -1, 0, false), 0);
        }
        handle
    }

    fn end(&self, handle: *mut c_void, errval: c_int) -> c_int {
        let mut handle = handle;
        unsafe { self.get::<End>("llapi_hsm_action_end")(&raw mut handle, &[0, 4], 0, errval) }
    }

    fn archive_and_release(&mut self) {
        let handle = self.begin(Action::Archive);
        assert_eq!(self.end(handle, 0), 0);
        self.client.release(self.fid).unwrap();
    }

    fn last(&mut self) -> ActionState {
        assert!(self.client.wait(&[self.fid], PATIENCE).unwrap());
        self.client.actions().unwrap().last().unwrap().state
    }

    fn states(&mut self) -> u32 {
        self.client.state(self.fid).unwrap().states
    }
}

/// Name, what it does, and what the library says before it aborts; none: it returns well.
type Case = (&'static str, fn(), Option<&'static str>);

const CASES: &[Case] = &[
    ("an action ended twice", ended_twice, Some("which has ended")),
    ("progress after the end", progress_after_end, Some("which has ended")),
    (
        "a descriptor of the restored file left open at the end",
        descriptor_left_open,
        Some("with another descriptor of its volatile file open"),
    ),
    (
        "the message pipe closed behind the library's back",
        pipe_closed,
        Some("the message pipe"),
    ),
    (
        "an action left open at unregister",
        unregister_with_debts,
        Some("1 actions begun and not ended"),
    ),
    (
        "registering with a stopped coordinator",
        register_while_stopped,
        Some("while the coordinator is stopped"),
    ),
    ("a fsync that fails inside end is swallowed", swallowed_fsync, None),
    ("ECANCELED unasked is recorded as a success", unasked_cancel, None),
    ("a short restore is taken as the whole file", short_restore, None),
];

fn ended_twice() {
    let mut tool = Copytool::new();
    let handle = tool.begin(Action::Archive);
    assert_eq!(tool.end(handle, 0), 0);
    tool.end(handle, 0);
}

fn progress_after_end() {
    let mut tool = Copytool::new();
    let handle = tool.begin(Action::Archive);
    assert_eq!(tool.end(handle, 0), 0);
    unsafe { tool.get::<Progress>("llapi_hsm_action_progress")(handle, &[0, 0], 4, 0) };
}

fn descriptor_left_open() {
    let mut tool = Copytool::new();
    tool.archive_and_release();
    let handle = tool.begin(Action::Restore);
    assert!(unsafe { tool.get::<GetFd>("llapi_hsm_action_get_fd")(handle) } >= 0);
    tool.end(handle, 0);
}

fn pipe_closed() {
    let mut tool = Copytool::new();
    let pipe = unsafe { tool.get::<unsafe extern "C" fn(*mut c_void) -> c_int>("llapi_hsm_copytool_get_fd")(tool.ct) };
    nix::unistd::close(pipe).unwrap();
    tool.unregister();
}

fn unregister_with_debts() {
    let mut tool = Copytool::new();
    tool.begin(Action::Archive);
    tool.unregister();
}

fn register_while_stopped() {
    let mut tool = Copytool::new();
    tool.client.control(HsmControl::Shutdown).unwrap();
    tool.register();
}

fn swallowed_fsync() {
    let mut tool = Copytool::new();
    tool.archive_and_release();
    let handle = tool.begin(Action::Restore);
    let errno = libc::EIO;
    tool.client.inject(Fault::SyncErrno { errno, times: 1 }).unwrap();
    assert_eq!(tool.end(handle, 0), 0, "the caller hears nothing");
    assert_eq!(tool.last(), ActionState::Failed);
    assert_ne!(tool.states() & states::RELEASED, 0);
}

fn unasked_cancel() {
    let mut tool = Copytool::new();
    let handle = tool.begin(Action::Archive);
    assert_eq!(tool.end(handle, libc::ECANCELED), 0);
    assert_eq!(tool.last(), ActionState::Succeed);
    assert_eq!(tool.states() & states::ARCHIVED, 0);
}

fn short_restore() {
    let mut tool = Copytool::new();
    tool.archive_and_release();
    let handle = tool.begin(Action::Restore);
    assert_eq!(tool.end(handle, 0), 0);
    assert_eq!(tool.last(), ActionState::Succeed);
    assert_eq!(tool.states() & states::RELEASED, 0);
    assert_eq!(std::fs::read(tool.dir.path().join("lustre/file")).unwrap(), b"");
}

fn main() -> ExitCode {
    if let Ok(wanted) = std::env::var("POLICE_CASE") {
        let (_, case, _) = CASES.iter().find(|(name, ..)| *name == wanted).unwrap();
        case();
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, _, said) in CASES {
        let output = Command::new(std::env::current_exe().unwrap())
            .env("POLICE_CASE", name)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let held = match said {
            Some(said) => output.status.signal() == Some(libc::SIGABRT) && errors.contains(said),
            None => output.status.success(),
        };
        println!("case {name} ... {}", if held { "ok" } else { "FAILED" });
        if !held {
            println!("{}\n{errors}", output.status);
            failed += 1;
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
