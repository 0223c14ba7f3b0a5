//! `/metrics`, `/healthz` and `/readyz`, from a thread of its own: it answers while everything else is busy.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::metrics::Sources;

/// For a client that is slow; there is one at a time.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_REQUEST: usize = 8192;

/// The running thread; dropping it ends it.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or not this node's.
    pub fn start(listen: SocketAddr, sources: Sources) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "metrics");
        let ending = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ending);
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            for stream in listener.incoming() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                let answered = stream.and_then(|stream| answer(stream, &sources));
                if let Err(error) = answered {
                    tracing::debug!(%error, "a request for metrics was not answered");
                }
            }
        })?;
        Ok(Self {
            address,
            ending,
            thread: Some(thread),
        })
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let woken = TcpStream::connect_timeout(&self.address, PATIENCE).is_ok();
        if woken
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metrics thread panicked");
        }
    }
}

fn answer(mut stream: TcpStream, sources: &Sources) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < LONGEST_REQUEST {
        match stream.read(&mut buffer)? {
            0 => break,
            n => request.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            let mut body = String::new();
            match prometheus_client::encoding::text::encode(&mut body, &sources.registry()) {
                Ok(()) => (
                    "200 OK",
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    body,
                ),
                Err(error) => ("500 Internal Server Error", TEXT, error.to_string()),
            }
        }
        ("GET" | "HEAD", "/healthz") => ("200 OK", TEXT, "ok\n".to_owned()),
        ("GET" | "HEAD", "/readyz") if sources.is_ready() => ("200 OK", TEXT, "ready\n".to_owned()),
        ("GET" | "HEAD", "/readyz") => ("503 Service Unavailable", TEXT, "not registered\n".to_owned()),
        ("GET" | "HEAD", _) => ("404 Not Found", TEXT, "/metrics, /healthz, /readyz\n".to_owned()),
        _ => ("405 Method Not Allowed", TEXT, "GET\n".to_owned()),
    };
    let length = body.len();
    let body = if method == "HEAD" { String::new() } else { body };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
