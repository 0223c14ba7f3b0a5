//! A line that breaks: connections to the store are cut after some bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    pub(crate) cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// Cuts `cuts` connections, each after so many bytes in either direction, and leaves all later ones alone.
    pub(crate) fn start(endpoint: &str, cuts: i64, after: usize) -> Self {
        let store = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicI64::new(cuts));
        let made = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&made);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&store) else {
                    continue;
                };
                let budget = if left.fetch_sub(1, Ordering::Relaxed) > 0 {
                    after
                } else {
                    usize::MAX
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let counted = Arc::clone(&counted);
                    std::thread::spawn(move || pump(from, to, budget, &counted));
                }
            }
        });
        Self { endpoint, cuts: made }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut budget: usize, cuts: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n) = from.read(&mut buffer)
        && n > 0
    {
        let some = n.min(budget);
        if to.write_all(&buffer[..some]).is_err() {
            break;
        }
        budget -= some;
        if budget == 0 {
            cuts.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    // The other side may be gone already.
    let _gone = from.shutdown(Shutdown::Both);
    let _gone = to.shutdown(Shutdown::Both);
}
