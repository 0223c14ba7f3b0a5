//! A client for the tests, which signs and speaks HTTP itself: what it sees is what is on the wire.

use std::collections::BTreeMap;
use std::time::SystemTime;

use s3s::crypto::{Checksum as _, Sha256};
use s3s::dto::{Timestamp, TimestampFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::checksum::Kind;
use crate::sums::Hasher;
use crate::{Config, Server};

/// The bucket of the tests.
pub(crate) const BUCKET: &str = "/lhsm-sandbox";

/// A server with the default configuration, or one that is changed a little.
pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Client {
    let mut config = Config::default();
    change(&mut config);
    let (access, secret) = (config.access_key.clone(), config.secret_key.clone());
    Client {
        server: Server::start(config).await.unwrap(),
        access,
        secret,
    }
}

/// The text of a checksum, as a client computes it.
pub(crate) fn checksum(kind: Kind, body: &[u8]) -> String {
    let mut hasher = Hasher::new(Some(kind));
    hasher.update(body);
    hasher.finish().get(kind).unwrap().base64()
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The contents of all elements of a name.
    pub(crate) fn all(&self, element: &str) -> Vec<String> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let text = self.text();
        let found = text
            .split(&open)
            .skip(1)
            .filter_map(|rest| Some(rest.split_once(&close)?.0));
        found.map(|content| content.replace("&quot;", "\"")).collect()
    }

    pub(crate) fn element(&self, element: &str) -> String {
        self.all(element).into_iter().next().unwrap_or_default()
    }

    /// The status, and the code of the error if it is one.
    pub(crate) fn outcome(&self) -> (u16, String) {
        (self.status, self.element("Code"))
    }

    pub(crate) fn assert_ok(self) -> Self {
        assert!(self.status < 300, "{} {}", self.status, self.text());
        self
    }
}

/// A request body.
pub(crate) enum Body<'a> {
    Plain(&'a [u8]),
    /// With a checksum after it, as SDKs send what they stream.
    Trailer(&'a [u8], Kind, &'a str),
    /// The same with its right checksum, in chunks of this size.
    Pieces(&'a [u8], usize),
}

/// A body in aws-chunked framing.
fn framed(bytes: &[u8], size: usize, kind: Kind, text: &str) -> Vec<u8> {
    let mut framed = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        framed.extend(format!("{:x}\r\n", piece.len()).bytes());
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend(format!("0\r\n{}:{text}\r\n\r\n", kind.header()).bytes());
    framed
}

/// A client of one server. Cloned, it is another client of the same.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) server: Server,
    pub(crate) access: String,
    pub(crate) secret: String,
}

impl Client {
    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], Body::Plain(b"")).await
    }

    pub(crate) async fn put(&self, target: &str, body: &[u8]) -> Reply {
        self.send("PUT", target, &[], Body::Plain(body)).await
    }

    pub(crate) async fn delete(&self, target: &str) -> Reply {
        self.send("DELETE", target, &[], Body::Plain(b"")).await
    }

    /// Sends a request; its query has to be sorted and encoded as a signature wants it.
    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Body<'_>) -> Reply {
        let mut headers: BTreeMap<String, String> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut add = |name: &str, value: String| drop(headers.insert(name.to_owned(), value));
        let chunked = match body {
            Body::Plain(_) => None,
            Body::Trailer(bytes, kind, text) => Some((bytes, bytes.len(), kind, text.to_owned())),
            Body::Pieces(bytes, size) => Some((bytes, size, Kind::Crc64Nvme, checksum(Kind::Crc64Nvme, bytes))),
        };
        let bytes = match (body, chunked) {
            (Body::Plain(bytes), _) => {
                add("x-amz-content-sha256", hex(&Sha256::checksum(bytes)));
                bytes.to_vec()
            }
            (_, Some((bytes, size, kind, text))) => {
                add("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned());
                add("x-amz-trailer", kind.header().to_owned());
                add("x-amz-decoded-content-length", bytes.len().to_string());
                add("content-encoding", "aws-chunked".to_owned());
                framed(bytes, size, kind, &text)
            }
            (_, None) => Vec::new(),
        };
        add("content-length", bytes.len().to_string());
        add("host", self.server.address().to_string());
        self.sign(method, target, &mut headers);
        let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        for (name, value) in &headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        parse(&answer)
    }

    fn sign(&self, method: &str, target: &str, headers: &mut BTreeMap<String, String>) {
        let mut stamp = Vec::new();
        Timestamp::from(SystemTime::now())
            .format(TimestampFormat::DateTime, &mut stamp)
            .unwrap();
        let stamp: String = String::from_utf8(stamp)
            .unwrap()
            .replace(['-', ':'], "")
            .chars()
            .take(15)
            .collect();
        let (date, stamp) = (stamp[..8].to_owned(), format!("{stamp}Z"));
        headers.insert("x-amz-date".to_owned(), stamp.clone());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let names: Vec<&str> = headers.keys().map(String::as_str).collect();
        let names = names.join(";");
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let payload = &headers["x-amz-content-sha256"];
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
        let scope = format!("{date}/us-east-1/s3/aws4_request");
        let hash = hex(&Sha256::checksum(canonical.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hash}");
        let secret = format!("AWS4{}", self.secret).into_bytes();
        let key = scope
            .split('/')
            .fold(secret, |key, part| hmac(&key, part.as_bytes()).to_vec());
        let signature = hex(&hmac(&key, text.as_bytes()));
        let access = &self.access;
        let value =
            format!("AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}");
        headers.insert("authorization".to_owned(), value);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::checksum(&[&pad(0x36)[..], message].concat());
    Sha256::checksum(&[&pad(0x5c)[..], &inner].concat())
}

fn parse(answer: &[u8]) -> Reply {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an answer with headers");
    // A header need not be UTF-8.
    let head: String = answer[..end].iter().map(|&byte| char::from(byte)).collect();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let body = &answer[end + 4..];
    let chunked = headers.get("transfer-encoding").is_some_and(|it| it == "chunked");
    let body = if chunked { joined(body) } else { body.to_vec() };
    Reply { status, headers, body }
}

/// What came in chunks, as far as it came.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let rest = &body[end + 2..];
        joined.extend_from_slice(&rest[..size.min(rest.len())]);
        if size == 0 {
            break;
        }
        body = rest.get(size + 2..).unwrap_or_default();
    }
    joined
}
