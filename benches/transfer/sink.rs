//! A store that swallows and serves bytes: as much of S3 as the rivals ask for, and no disk. It runs in a
//! process of its own, so that its time is nobody's.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

const CHUNK: usize = 256 << 10;

/// What a GET serves, over and over: no zeros, or a restore could leave them out.
pub(crate) fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(CHUNK / 8)
    .flatten()
    .collect()
}

/// Serves until the process is killed.
pub(crate) fn serve(listener: &TcpListener, tls: Option<Arc<ServerConfig>>) {
    let bytes: Arc<[u8]> = pattern().into();
    for stream in listener.incoming().flatten() {
        let (bytes, tls) = (Arc::clone(&bytes), tls.clone());
        std::thread::spawn(move || {
            stream.set_nodelay(true).unwrap();
            // A client that goes away in the middle is its own affair.
            let _gone = match tls {
                None => converse(stream, &bytes),
                Some(config) => {
                    let connection = ServerConnection::new(config).unwrap();
                    converse(StreamOwned::new(connection, stream), &bytes)
                }
            };
        });
    }
}

/// Sizes of what was put, for whoever asks afterwards.
static PUT: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Head {
    /// Of the object, where the body is wrapped or in parts.
    object_size: Option<u64>,
    method: String,
    target: String,
    length: u64,
    chunked: bool,
    wants_continue: bool,
    range: Option<String>,
    checksum: Option<(String, String)>,
}

/// Reads a request's head; `None` at the end of the connection.
fn head(input: &mut impl io::BufRead) -> io::Result<Option<Head>> {
    let mut head = Head::default();
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    head.method = words.next().unwrap_or_default().to_owned();
    head.target = words.next().unwrap_or_default().to_owned();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(Some(head));
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "content-length" => head.length = value.parse().unwrap_or(0),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "x-amz-decoded-content-length" | "x-amz-mp-object-size" => head.object_size = value.parse().ok(),
            "expect" => head.wants_continue = true,
            "range" => head.range = Some(value.to_owned()),
            "x-amz-checksum-algorithm" | "x-amz-checksum-type" => {}
            name if name.starts_with("x-amz-checksum-") => head.checksum = Some((name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
}

/// Takes a body and gives its end, where a trailer may be.
fn swallow(input: &mut impl io::BufRead, head: &Head) -> io::Result<String> {
    let mut tail = Vec::new();
    if head.chunked {
        let mut line = String::new();
        loop {
            line.clear();
            input.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or("0"), 16).unwrap_or(0);
            skip(input, size, &mut tail)?;
            line.clear();
            input.read_line(&mut line)?;
            if size == 0 {
                return Ok(String::from_utf8_lossy(&tail).into_owned());
            }
        }
    }
    skip(input, head.length, &mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

fn skip(input: &mut impl io::BufRead, mut left: u64, tail: &mut Vec<u8>) -> io::Result<()> {
    while left > 0 {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let n = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= n as u64;
        if left < 512 {
            let keep = n.min(512);
            tail.extend_from_slice(&buffer[n - keep..n]);
        }
        input.consume(n);
    }
    Ok(())
}

fn converse(stream: impl Read + Write, bytes: &[u8]) -> io::Result<()> {
    let mut input = BufReader::with_capacity(CHUNK, stream);
    while let Some(mut head) = head(&mut input)? {
        if head.wants_continue {
            input.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            input.get_mut().flush()?;
        }
        let tail = swallow(&mut input, &head)?;
        if let Some(at) = tail.rfind("x-amz-checksum-") {
            let (name, value) = tail[at..].split_once(':').unwrap_or_default();
            let value = value.split("\r\n").next().unwrap_or_default().trim();
            head.checksum = Some((name.to_owned(), value.to_owned()));
        }
        let mut output = BufWriter::with_capacity(CHUNK, input.get_mut());
        answer(&mut output, &head, bytes)?;
        output.flush()?;
    }
    Ok(())
}

fn answer(output: &mut impl Write, head: &Head, bytes: &[u8]) -> io::Result<()> {
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let echo = head
        .checksum
        .as_ref()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .unwrap_or_default();
    let etag = "etag: \"00000000000000000000000000000000\"\r\n";
    let xml = |output: &mut dyn Write, body: &str| {
        write!(
            output,
            "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let size = head.object_size.unwrap_or(head.length);
    match (head.method.as_str(), query) {
        ("PUT", query) if !query.contains("uploadId") => drop(PUT.lock().unwrap().insert(path.to_owned(), size)),
        ("PUT", _) => *PUT.lock().unwrap().entry(format!("{path}?parts")).or_default() += size,
        ("POST", query) if query.contains("uploadId") => {
            let mut put = PUT.lock().unwrap();
            let parts = put.remove(&format!("{path}?parts")).unwrap_or_default();
            put.insert(path.to_owned(), parts);
        }
        _ => {}
    }
    match (head.method.as_str(), query) {
        ("PUT", _) => write!(output, "HTTP/1.1 200 OK\r\n{etag}{echo}content-length: 0\r\n\r\n"),
        ("POST", query) if query.contains("uploads") => xml(
            output,
            "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
        ),
        ("POST", query) if query.contains("uploadId") => {
            let sum = match &head.checksum {
                Some((_, value)) => format!("<ChecksumCRC64NVME>{value}</ChecksumCRC64NVME>"),
                None => String::new(),
            };
            xml(
                output,
                &format!("<CompleteMultipartUploadResult><ETag>\"0-1\"</ETag>{sum}</CompleteMultipartUploadResult>"),
            )
        }
        ("DELETE", _) => write!(output, "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", query) if query.contains("list-type") || path.matches('/').count() < 2 => xml(
            output,
            "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>",
        ),
        ("GET" | "HEAD", _) => {
            let Some(size) = size_of(path) else {
                return write!(output, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            };
            let (first, last, status) = range(head.range.as_deref(), size);
            let length = (last + 1).saturating_sub(first);
            let range = match status {
                206 => format!("content-range: bytes {first}-{last}/{size}\r\n"),
                _ => String::new(),
            };
            let reason = if status == 206 { "Partial Content" } else { "OK" };
            write!(
                output,
                "HTTP/1.1 {status} {reason}\r\n{etag}{range}content-length: {length}\r\naccept-ranges: bytes\r\n\
                 last-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n"
            )?;
            if head.method == "HEAD" {
                return Ok(());
            }
            let mut at = first;
            while at <= last && length > 0 {
                let start = usize::try_from(at % bytes.len() as u64).unwrap();
                let n = (bytes.len() - start).min(usize::try_from(last + 1 - at).unwrap_or(usize::MAX));
                output.write_all(&bytes[start..start + n])?;
                at += n as u64;
            }
            Ok(())
        }
        _ => write!(output, "HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n"),
    }
}

/// A served object says its size in its name: `…-1048576`.
fn size_of(path: &str) -> Option<u64> {
    let put = PUT.lock().unwrap().get(path).copied();
    put.or_else(|| path.rsplit_once('-')?.1.parse().ok())
}

fn range(header: Option<&str>, size: u64) -> (u64, u64, u16) {
    let whole = (0, size.saturating_sub(1), 200);
    let Some((first, last)) = header.and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return whole;
    };
    match first.parse() {
        Ok(first) => (
            first,
            last.parse().map_or(size - 1, |last: u64| last.min(size - 1)),
            206,
        ),
        Err(_) => whole,
    }
}
