//! Conversations with the coordinator: one connection for each thread and mount.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lhsm_sandbox_protocol::{Connection, Reply, Request, SOCKET, connect};

thread_local! {
    static CONNECTIONS: RefCell<HashMap<PathBuf, Connection>> = RefCell::default();
}

/// Asks the coordinator of `mount`. An errno is an answer, too.
pub(crate) fn ask(mount: &Path, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Reply, i32> {
    CONNECTIONS.with_borrow_mut(|connections| {
        let connection = match connections.entry(mount.to_owned()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(open(mount)?),
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

/// Begins a conversation, as a process of this node.
fn open(mount: &Path) -> Result<Connection, i32> {
    let mut connection = connect(mount).map_err(|_| libc::ENODEV)?;
    let own = Request::Node(client_name(mount));
    let said = connection.send(&own, None).and_then(|()| connection.receive::<Reply>());
    match said {
        Ok(Some((Reply::Errno(errno), _))) => Err(errno),
        Ok(Some(_)) => Ok(connection),
        Ok(None) | Err(_) => Err(libc::EIO),
    }
}

/// The same where only success matters.
pub(crate) fn tell(mount: &Path, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<(), i32> {
    ask(mount, request, fd).map(drop)
}

/// What was found last: a changelog's device names no mount.
static LAST: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The sandbox that a path is in.
pub(crate) fn mount_of(path: &Path) -> Option<PathBuf> {
    let mount = path.ancestors().find(|dir| dir.join(SOCKET).exists())?;
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.as_deref() != Some(mount) {
        *last = Some(mount.to_owned());
    }
    Some(mount.to_owned())
}

/// The sandbox that this process had to do with.
pub(crate) fn last_mount() -> Option<PathBuf> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What a coordinator knows this node by: one agent for each client mount.
pub(crate) fn client_name(mount: &Path) -> String {
    std::env::var("LHSM_SANDBOX_CLIENT").unwrap_or_else(|_| mount.display().to_string())
}
