//! liblustreapi's C ABI over a sandbox: what a copytool opens in place of the real library.
//!
//! The same file is preloaded into the copytool (`LD_PRELOAD`), because a few things that a copytool
//! does are system calls and not calls of the library: the raw ioctls on the mount point, `trusted.*` and
//! `lustre.*` attributes, volatile files, the link count of an open file, reads and writes that are to fail. So
//! production code has no seam for the sandbox.
//!
//! It polices its caller: what would corrupt a real client or hang it for ever ends the process, loudly.

#![expect(
    unsafe_code,
    unreachable_pub,
    reason = "this crate is a C ABI: every function is called from C's side of the border"
)]

mod abi;
mod action;
mod changelog;
mod client;
mod import;
mod interpose;
mod io;
mod mdts;
mod police;
mod reference;
mod registration;
mod root;
mod user;
mod volatile;
