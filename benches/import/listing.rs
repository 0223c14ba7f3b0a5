//! A bucket that is only a listing: ListObjectsV2 of keys that are computed, on loopback.
//!
//! Keys are `dDDDDD/fNNNNNNNN.bin`, so that their order is that of their numbers, and a page costs the server little.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use percent_encoding::percent_decode_str;

/// Objects in a directory.
const IN_DIRECTORY: u64 = 1000;

pub(crate) fn key(n: u64) -> String {
    format!("d{:05}/f{n:08}.bin", n / IN_DIRECTORY)
}

/// Serves until the process ends.
pub(crate) fn serve(listener: &TcpListener, objects: u64) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that goes away is its own affair.
            let _gone = converse(&stream, objects);
        });
    }
}

fn converse(stream: &TcpStream, objects: u64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let target = request.split_whitespace().nth(1).unwrap_or_default();
        let body = page(&Query::of(target), objects);
        let mut writer = stream;
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

struct Query {
    after: String,
    by_directory: bool,
    limit: u64,
}

impl Query {
    fn of(target: &str) -> Self {
        let (_, text) = target.split_once('?').unwrap_or_default();
        let value = |name: &str| {
            let pair = text.split('&').filter_map(|pair| pair.split_once('='));
            let found = pair.into_iter().find(|(key, _)| *key == name)?.1;
            Some(percent_decode_str(found).decode_utf8_lossy().into_owned())
        };
        Self {
            // The token is the last key.
            after: value("continuation-token")
                .or_else(|| value("start-after"))
                .unwrap_or_default(),
            by_directory: value("delimiter").is_some(),
            limit: value("max-keys").and_then(|text| text.parse().ok()).unwrap_or(1000),
        }
    }
}

fn page(query: &Query, objects: u64) -> String {
    let mut xml = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
    if query.by_directory {
        for directory in (0..objects.div_ceil(IN_DIRECTORY)).take(1000) {
            write!(
                xml,
                "<CommonPrefixes><Prefix>d{directory:05}/</Prefix></CommonPrefixes>"
            )
            .unwrap();
        }
        xml.push_str("<IsTruncated>false</IsTruncated></ListBucketResult>");
        return xml;
    }
    let first = first_behind(&query.after, objects);
    let end = objects.min(first + query.limit);
    for n in first..end {
        write!(
            xml,
            "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;{n:032x}&quot;</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            key(n),
            n % 100_000 + 1
        )
        .unwrap();
    }
    let more = end < objects;
    if more {
        write!(xml, "<NextContinuationToken>{}</NextContinuationToken>", key(end - 1)).unwrap();
    }
    write!(xml, "<IsTruncated>{more}</IsTruncated></ListBucketResult>").unwrap();
    xml
}

fn first_behind(after: &str, objects: u64) -> u64 {
    let (mut low, mut high) = (0, objects);
    while low < high {
        let middle = low.midpoint(high);
        if key(middle).as_str() <= after {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
