//! Where log lines go in the end. A line that can't be written is counted, and told of once one can be.

use std::io::{self, Write};
use std::time::SystemTime;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Lines for `out`, whatever happens to it.
#[derive(Debug)]
pub(super) struct Sink<W> {
    out: W,
    json: bool,
    /// What was written last is a part of a line.
    torn: bool,
    /// Lines that were lost and not told of.
    untold: u64,
    why: String,
}

impl<W: Write> Sink<W> {
    pub(super) const fn new(out: W) -> Self {
        Self {
            out,
            json: false,
            torn: false,
            untold: 0,
            why: String::new(),
        }
    }

    pub(super) fn set_format(&mut self, format: LogFormat) {
        self.json = format == LogFormat::Json;
    }

    /// So many lines never came here.
    pub(super) fn refused(&mut self, lines: u64, why: &str) {
        if lines > 0 {
            self.untold += lines;
            why.clone_into(&mut self.why);
        }
    }

    /// Writes whole lines, after a word about those that were lost before; without any, that word alone. How many of
    /// these were lost.
    pub(super) fn put(&mut self, lines: &[u8]) -> u64 {
        if self.untold > 0 {
            let mut notice = Vec::new();
            if self.torn {
                notice.push(b'\n');
            }
            let text = format!("{} lines of this log were lost: {}", self.untold, self.why);
            notice.extend(line(self.json, &text));
            if let Err((_, error)) = self.write(&notice) {
                return self.lost(lines, &error);
            }
            self.untold = 0;
        }
        match self.write(lines) {
            Ok(()) => 0,
            Err((written, error)) => self.lost(lines.get(written..).unwrap_or_default(), &error),
        }
    }

    fn lost(&mut self, rest: &[u8], error: &io::Error) -> u64 {
        let lost = lines_of(rest);
        self.refused(lost, &error.to_string());
        lost
    }

    /// # Errors
    /// How much was written, and why no more.
    fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        let result = loop {
            let rest = bytes.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match self.out.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if let Some(last) = bytes.get(..written).and_then(<[u8]>::last) {
            self.torn = *last != b'\n';
        }
        result.map_err(|error| (written, error))
    }
}

/// As many as there are ends of lines.
pub(super) fn lines_of(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// A line of the log's own, which no filter takes away.
pub(super) fn line(json: bool, text: &str) -> Vec<u8> {
    let time = humantime::format_rfc3339_micros(SystemTime::now());
    let line = if json {
        let time = time.to_string();
        let target = module_path!();
        serde_json::json!({"timestamp": time, "level": "ERROR", "fields": {"message": text}, "target": target})
            .to_string()
    } else {
        format!("{time} ERROR {}: {text}", module_path!())
    };
    let mut line = line.into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for so many bytes.
    #[derive(Debug, Default)]
    struct Device {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for Device {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            if n == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            self.room -= n;
            self.written.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(sink: &Sink<Device>) -> Vec<String> {
        let text = String::from_utf8(sink.out.written.clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_that_a_full_device_lost_are_told_of_with_the_reason_once_there_is_room() {
        let mut sink = Sink::new(Device::default());
        sink.out.room = 8;
        assert_eq!(sink.put(b"first\nsecond\nthird\n"), 2);
        assert_eq!(sink.put(b"fourth\n"), 1);
        // With nothing more to say it is tried, too.
        assert_eq!(sink.put(b""), 0);
        sink.out.room = 1000;
        assert_eq!(sink.put(b"fifth\n"), 0);
        assert_eq!(sink.put(b"sixth\n"), 0);
        let lines = written(&sink);
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(
            (lines[0].as_str(), lines[1].as_str()),
            ("first", "se"),
            "a part of a line ends"
        );
        assert!(lines[2].contains("ERROR") && lines[2].contains("3 lines of this log were lost: No space left"));
        assert_eq!((lines[3].as_str(), lines[4].as_str()), ("fifth", "sixth"));
    }

    #[test]
    fn a_notice_that_is_lost_itself_is_given_again() {
        let mut sink = Sink::new(Device::default());
        assert_eq!(sink.put(b"lost\n"), 1);
        sink.out.room = 20;
        assert_eq!(sink.put(b"lost, too\n"), 1);
        sink.out.room = 1000;
        sink.set_format(LogFormat::Json);
        sink.put(b"");
        let lines = written(&sink);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let notice: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        let message = notice["fields"]["message"].as_str().unwrap();
        assert!(message.starts_with("2 lines"), "{message}");
    }
}
