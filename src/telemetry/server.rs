//! `/metrics`, `/status`, `/failures`, `/healthz` and `/readyz`, from a thread of its own: it answers while everything else is busy.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Failures, Mover, Sources};

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
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
    const JSON: &str = "application/json";
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/status") => ("200 OK", JSON, serde_json::to_string(&Mover::now(sources))?),
        ("GET" | "HEAD", "/failures") => {
            let after = query.strip_prefix("after=").and_then(|after| after.parse().ok());
            let failures = Failures::after(sources, after.unwrap_or(0));
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
            "/metrics, /status, /failures, /healthz, /readyz\n".to_owned(),
        ),
        _ => ("405 Method Not Allowed", TEXT, "GET\n".to_owned()),
    };
    let length = body.len();
    let body = if method == "HEAD" { String::new() } else { body };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
