//! The least that moving the bytes can cost: one connection, one buffer, two system calls for each chunk.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

const CHUNK: usize = 256 << 10;

pub(crate) fn archive(address: &str, file: &str) {
    let mut file = File::open(file).unwrap();
    let length = file.metadata().unwrap().len();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "PUT /bench/object HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
    )
    .unwrap();
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        stream.write_all(&buffer[..n]).unwrap();
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.contains("200"));
}

pub(crate) fn restore(address: &str, file: &str, size: u64) {
    let mut file = File::create(file).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /bench/object-{size} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut buffer = vec![0; CHUNK];
    // The answer's head goes into the file, too: nobody reads it.
    let mut left = size;
    while left > 0 {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0);
        file.write_all(&buffer[..n]).unwrap();
        left = left.saturating_sub(n as u64);
    }
}
