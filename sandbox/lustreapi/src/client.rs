//! Conversations with the coordinator: one connection for each thread and mount.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use lhsm_sandbox_protocol::{Connection, Reply, Request, SOCKET, connect};

thread_local! {
    static CONNECTIONS: RefCell<HashMap<PathBuf, Connection>> = RefCell::default();
}

/// Asks the coordinator of `mount`. An errno is an answer, too.
pub(crate) fn ask(mount: &Path, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Reply, i32> {
    CONNECTIONS.with_borrow_mut(|connections| {
        let connection = match connections.entry(mount.to_owned()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(connect(mount).map_err(|_| libc::ENODEV)?),
        };
        let exchange = connection
            .send(request, fd)
            .and_then(|()| connection.receive::<Reply>());
        match exchange {
            Ok(Some((Reply::Errno(errno), _))) => Err(errno),
            Ok(Some((reply, _))) => Ok(reply),
            // The MDT is away. Whether it took the request is not known; neither is it on Lustre.
            Ok(None) | Err(_) => {
                connections.remove(mount);
                Err(libc::EIO)
            }
        }
    })
}

/// The same where only success matters.
pub(crate) fn tell(mount: &Path, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<(), i32> {
    ask(mount, request, fd).map(drop)
}

/// The sandbox that a path is in.
pub(crate) fn mount_of(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|dir| dir.join(SOCKET).exists())
        .map(Path::to_owned)
}

/// What a coordinator knows this node by: one agent for each client mount.
pub(crate) fn client_name(mount: &Path) -> String {
    std::env::var("LHSM_SANDBOX_CLIENT").unwrap_or_else(|_| mount.display().to_string())
}
