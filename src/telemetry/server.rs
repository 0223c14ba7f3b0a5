//! `/metrics`, `/status`, `/fleet`, `/failures`, `/healthz` and `/readyz`, from threads of their own: they answer while everything
//! else is busy.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};

use super::{TelemetrySources, mover};
use crate::thread::{Supervisor, Threads, guarded};

/// For a client, from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(5);
/// One client each. Clients that send a byte a second hold up the others for [`PATIENCE`], all of these together.
const THREADS: usize = 4;
/// After a client that could not be taken.
const REFUSED: Duration = Duration::from_millis(100);
const LONGEST_REQUEST: usize = 8192;

/// The running threads; dropping it ends them.
#[derive(Debug)]
pub struct MetricsServer {
    threads: Threads,
    address: SocketAddr,
}

impl MetricsServer {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or not this node's.
    pub fn start(supervisor: &Supervisor, listen: SocketAddr, sources: &TelemetrySources) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "metrics");
        let ending = Arc::new(AtomicBool::new(false));
        let (listening, end) = (listener.try_clone()?, Arc::clone(&ending));
        let mut threads = Threads::new(move || {
            end.store(true, Ordering::SeqCst);
            // Each of them waits for a connection; there is none any more, at once and for all of them.
            if let Err(error) = shutdown(listening.as_raw_fd(), Shutdown::Both) {
                tracing::error!(%error, "the metrics' threads can't be woken");
            }
        });
        for n in 0..THREADS {
            let (listener, sources, until) = (listener.try_clone()?, sources.clone(), Arc::clone(&ending));
            threads.add(supervisor, format!("metrics-{n}"), move || {
                serve(&listener, &sources, &until);
            })?;
        }
        Ok(Self { threads, address })
    }

    /// Host and port where other nodes find it, as far as this one knows; of a listener on loopback only its own node does.
    #[must_use]
    pub fn address_for_others(&self) -> String {
        if self.address.ip().is_unspecified() {
            format!("{}:{}", mover::host(), self.address.port())
        } else {
            self.address.to_string()
        }
    }

    /// The threads; one that answers a client ends when it has.
    pub const fn threads(&mut self) -> &mut Threads {
        &mut self.threads
    }
}

fn serve(listener: &TcpListener, sources: &TelemetrySources, until: &AtomicBool) {
    for stream in listener.incoming() {
        if until.load(Ordering::SeqCst) {
            return;
        }
        let answered = match stream {
            Ok(stream) => guarded(|| answer(stream, sources)).unwrap_or_else(|panic| Err(io::Error::other(panic))),
            Err(error) => {
                // There may be no descriptor for it, and it waits.
                std::thread::park_timeout(REFUSED);
                Err(error)
            }
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "a request for metrics was not answered");
        }
    }
}

/// # Errors
/// Nothing is left.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// What a client asks for, as far as it said so in time.
fn request(stream: &mut TcpStream, until: Instant) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < LONGEST_REQUEST {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            n => request.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    Ok(request)
}

fn send(stream: &mut TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => bytes = bytes.get(n..).unwrap_or_default(),
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream, sources: &TelemetrySources) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let request = request(&mut stream, until)?;
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    const TEXT: &str = "text/plain; charset=utf-8";
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
    const JSON: &str = "application/json";
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/status") => ("200 OK", JSON, serde_json::to_string(&mover::now(sources))?),
        ("GET" | "HEAD", "/fleet") => match sources.ledger.as_ref().map(|ledger| ledger.fleet()) {
            Some(Some(fleet)) => ("200 OK", JSON, serde_json::to_string(&fleet)?),
            Some(None) => (
                "503 Service Unavailable",
                TEXT,
                "the ledger is away: how other movers are is not known\n".to_owned(),
            ),
            None => ("404 Not Found", TEXT, "there is no ledger\n".to_owned()),
        },
        ("GET" | "HEAD", "/failures") => {
            let after = query.strip_prefix("after=").and_then(|after| after.parse().ok());
            let failures = mover::failures_after(sources, after.unwrap_or(0));
            ("200 OK", JSON, serde_json::to_string(&failures)?)
        }
        ("GET" | "HEAD", "/metrics") => {
            let mut body = String::new();
            // Who does not ask for OpenMetrics may know only the text format before it.
            let open = line.to_ascii_lowercase().contains("application/openmetrics-text");
            let encoded = if open {
                prometheus_client::encoding::text::encode(&mut body, &sources.registry())
            } else {
                prometheus_client::encoding::prometheus_text::encode(&mut body, &sources.registry())
            };
            match encoded {
                Ok(()) if open => ("200 OK", OPENMETRICS, body),
                Ok(()) => ("200 OK", PROMETHEUS, body),
                Err(error) => ("500 Internal Server Error", TEXT, error.to_string()),
            }
        }
        ("GET" | "HEAD", "/healthz") => ("200 OK", TEXT, "ok\n".to_owned()),
        ("GET" | "HEAD", "/readyz") if sources.is_ready() => ("200 OK", TEXT, "ready\n".to_owned()),
        ("GET" | "HEAD", "/readyz") => ("503 Service Unavailable", TEXT, "not registered\n".to_owned()),
        ("GET" | "HEAD", _) => (
            "404 Not Found",
            TEXT,
            "/metrics, /status, /fleet, /failures, /healthz, /readyz\n".to_owned(),
        ),
        _ => ("405 Method Not Allowed", TEXT, "GET\n".to_owned()),
    };
    let length = body.len();
    let body = if method == "HEAD" { String::new() } else { body };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    send(&mut stream, answer.as_bytes(), until)
}
