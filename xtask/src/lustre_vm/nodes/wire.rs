//! What a node reaches on this machine, by way of a port of its own that can be cut.
//!
//! A guest's interface for ssh is also its way to the store and the ledger, and can't be cut without ssh. So these go
//! through here. What is cut is silent, as a network is: nothing is refused or ended, and what was sent meanwhile
//! arrives afterwards, as TCP's retransmissions would bring it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Of all connections of a node.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_cut: Mutex<bool>,
    joined: Condvar,
}

impl Gate {
    /// Nothing gets through from now on, in neither direction.
    pub(super) fn cut(&self) {
        *self.is_cut.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Everything does again, and what waited.
    pub(super) fn join(&self) {
        *self.is_cut.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.joined.notify_all();
    }

    /// Waits while it is cut: until it is joined, or this process ends.
    fn pass(&self) {
        let is_cut = self.is_cut.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.joined.wait_while(is_cut, |is_cut| *is_cut);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Where a wire leads.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A port of this machine's loopback.
    Port(u16),
    Socket(PathBuf),
}

/// Takes connections on a port of loopback and leads them to the place, through the gate; the port. Its threads end with
/// this process.
pub(super) fn lead(to: Place, gate: &Arc<Gate>) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let gate = Arc::clone(gate);
    drop(std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let (to, gate) = (to.clone(), Arc::clone(&gate));
            drop(std::thread::spawn(move || {
                gate.pass();
                let led = match &to {
                    Place::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port))
                        .and_then(|far| far.set_nodelay(true).map(|()| far))
                        .and_then(|far| between(near, far, &gate)),
                    Place::Socket(path) => UnixStream::connect(path).and_then(|far| between(near, far, &gate)),
                };
                if let Err(error) = led {
                    eprintln!("a connection to {to:?}: {error}");
                }
            }));
        }
    }));
    Ok(port)
}

/// Both directions of a connection, until both have ended.
fn between(near: TcpStream, far: impl Duplex, gate: &Arc<Gate>) -> io::Result<()> {
    near.set_nodelay(true)?;
    let (there, back) = ((near.twin()?, far.twin()?), (far, near));
    let its_gate = Arc::clone(gate);
    drop(std::thread::spawn(move || pump(there.0, there.1, &its_gate)));
    pump(back.0, back.1, gate);
    Ok(())
}

/// One direction, and its end.
fn pump(mut from: impl Duplex, mut to: impl Duplex, gate: &Gate) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer);
        gate.pass();
        let Ok(n @ 1..) = read else {
            // Nobody minds if the other end is gone already.
            let _gone = to.shut(Shutdown::Write);
            return;
        };
        if to.write_all(buffer.get(..n).unwrap_or_default()).is_err() {
            let _gone = from.shut(Shutdown::Both);
            return;
        }
    }
}

trait Duplex: Read + Write + Send + Sized + 'static {
    /// Another value for the same connection.
    fn twin(&self) -> io::Result<Self>;
    fn shut(&self, how: Shutdown) -> io::Result<()>;
}

impl Duplex for TcpStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

impl Duplex for UnixStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_sent_while_it_is_cut_arrives_afterwards() {
        let far = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gate = Arc::new(Gate::default());
        let port = lead(Place::Port(far.local_addr().unwrap().port()), &gate).unwrap();
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (mut taken, _) = far.accept().unwrap();
        let mut byte = [0; 1];
        near.write_all(b"a").unwrap();
        taken.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"a");

        gate.cut();
        near.write_all(b"b").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        taken.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let nothing = taken.read(&mut byte).unwrap_err();
        assert!(
            matches!(nothing.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            "{nothing}"
        );

        gate.join();
        taken.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        taken.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"b");
        taken.write_all(b"c").unwrap();
        drop(taken);
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"c");
    }
}
