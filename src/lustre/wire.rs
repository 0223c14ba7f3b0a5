//! The kernel's messages, parsed from plain bytes: no C type, nothing unsafe, nothing trusted.
//!
//! `kuc_hdr` (8 bytes, its length covers the message) > `hsm_action_list` (32) > file system name,
//! NUL-terminated and padded to 8 > items of 72 bytes and their data, each padded to 8. The kernel
//! writes to a pipe, so a message can come in pieces and several can come at once; liblustreapi before
//! 2.18 loses such messages (LU-20183), which is why the framing is ours.

use crate::action::{Item, Kind, Verb};
use crate::types::{ArchiveId, Cookie, Extent, Fid};

const HEADER: usize = 8;
const LIST: usize = 32;
const ITEM: usize = 72;

const KUC_MAGIC: u16 = 0x191c;
const TRANSPORT_GENERIC: u8 = 1;
const TRANSPORT_HSM: u8 = 2;
const MSG_SHUTDOWN: u16 = 1;
const MSG_ACTION_LIST: u16 = 100;
const HAL_VERSION: u32 = 1;
const REQ_BLOCKING: u64 = 4;

/// One whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Actions for one archive id.
    Actions {
        /// The file system that sent them.
        fsname: String,
        /// The archive; `None` for 0.
        archive_id: Option<ArchiveId>,
        /// In the order of the message.
        items: Vec<Item>,
    },
    /// The kernel drops this listener.
    Shutdown,
    /// A well-framed message of a kind that is not ours (another transport or type).
    Foreign {
        /// `kuc_transport`
        transport: u8,
        /// `kuc_msgtype`
        msgtype: u16,
    },
}

/// A stream that can't be followed any further. What came before it was delivered; what was in it is
/// lost to us and stays STARTED on the MDT.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// Not the start of a message.
    #[error("bad magic {0:#06x} where a message should start")]
    Magic(u16),
    /// Shorter than its own header.
    #[error("impossible message length {0}")]
    Length(u16),
    /// A version that this reader does not know.
    #[error("action list version {0}, expected {HAL_VERSION}")]
    Version(u32),
    /// The list or one of its items runs past the end of its message.
    #[error("{0} runs past the end of its message")]
    Overrun(&'static str),
    /// An item shorter than its fixed part.
    #[error("action item length {0}, at least {ITEM} expected")]
    ItemLength(u32),
    /// The name is not text.
    #[error("file system name is not UTF-8")]
    FsName,
    /// The reader panicked over it.
    #[error("a message that this reader can't take; please report it, with the log's words")]
    Defect,
}

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
pub struct Framer {
    pending: Vec<u8>,
    taken: usize,
}

impl Framer {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.taken);
        self.taken = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message, `None` until more bytes have come.
    ///
    /// # Errors
    /// The stream is damaged; there is no way to find the next message in it.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let rest = self.pending.get(self.taken..).unwrap_or_default();
        let Some(length) = message_length(rest)? else {
            return Ok(None);
        };
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let parsed = parse(message)?;
        self.taken += length;
        Ok(Some(parsed))
    }

    /// Bytes of a message that is not whole yet.
    #[must_use]
    pub fn partial(&self) -> usize {
        self.pending.len() - self.taken
    }
}

fn message_length(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    // The magic is checked as soon as it is there: waiting for a whole header of garbage could be for ever.
    let Some(magic) = bytes.first_chunk().map(|b| u16::from_le_bytes(*b)) else {
        return Ok(None);
    };
    if magic != KUC_MAGIC {
        return Err(WireError::Magic(magic));
    }
    if bytes.len() < HEADER {
        return Ok(None);
    }
    let length = Reader::new(bytes, "header").skip(6)?.u16()?;
    if usize::from(length) < HEADER {
        return Err(WireError::Length(length));
    }
    Ok(Some(usize::from(length)))
}

/// Parses one whole message.
///
/// # Errors
/// What is wrong with it.
pub fn parse(message: &[u8]) -> Result<Message, WireError> {
    let mut header = Reader::new(message, "header");
    let magic = header.u16()?;
    if magic != KUC_MAGIC {
        return Err(WireError::Magic(magic));
    }
    let transport = header.u8()?;
    let msgtype = header.skip(1)?.u16()?;
    let length = header.u16()?;
    if usize::from(length) != message.len() {
        return Err(WireError::Length(length));
    }
    match (transport, msgtype) {
        (TRANSPORT_GENERIC, MSG_SHUTDOWN) => Ok(Message::Shutdown),
        (TRANSPORT_HSM, MSG_ACTION_LIST) => action_list(header.rest),
        _ => Ok(Message::Foreign { transport, msgtype }),
    }
}

fn action_list(bytes: &[u8]) -> Result<Message, WireError> {
    let mut list = Reader::new(bytes, "action list");
    let version = list.u32()?;
    if version != HAL_VERSION {
        return Err(WireError::Version(version));
    }
    let count = list.u32()?;
    let flags = list.skip(8)?.u64()?;
    let archive_id = ArchiveId::new(list.u32()?);
    list.skip(4)?;
    debug_assert_eq!(bytes.len() - list.rest.len(), LIST);
    let fsname = list.c_string()?;

    // `count` comes from outside: it bounds the loop, not the allocation.
    let mut items = Vec::with_capacity((list.rest.len() / ITEM).min(count as usize));
    for _ in 0..count {
        items.push(item(&mut list, archive_id, flags & REQ_BLOCKING != 0)?);
    }
    Ok(Message::Actions {
        fsname,
        archive_id,
        items,
    })
}

fn item(list: &mut Reader<'_>, archive_id: Option<ArchiveId>, blocking: bool) -> Result<Item, WireError> {
    list.what = "action item";
    let length = Reader::new(list.rest, list.what).u32()?;
    let Some(data_length) = (length as usize).checked_sub(ITEM) else {
        return Err(WireError::ItemLength(length));
    };
    list.skip(4)?;
    let kind = match list.u32()? {
        20 => Kind::Do(Verb::Archive),
        21 => Kind::Do(Verb::Restore),
        22 => Kind::Do(Verb::Remove),
        23 => Kind::Cancel,
        other => Kind::Unknown(other),
    };
    let fid = list.fid()?;
    let dfid = list.fid()?;
    let extent = Extent {
        offset: list.u64()?,
        length: list.u64()?,
    };
    let cookie = Cookie(list.u64()?);
    let gid = list.u64()?;
    let data = list.bytes(data_length)?.into();
    list.align(length as usize);
    Ok(Item {
        kind,
        fid,
        dfid,
        cookie,
        archive_id,
        extent,
        gid,
        blocking,
        data,
    })
}

/// Little-endian fields off the front of a slice (Lustre swabs nothing on this path: both ends are one
/// machine, and only little-endian ones are supported).
struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    const fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(WireError::Overrun(self.what))?;
        self.rest = tail;
        Ok(head)
    }

    fn skip(&mut self, n: usize) -> Result<&mut Self, WireError> {
        self.bytes(n)?;
        Ok(self)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(WireError::Overrun(self.what))?;
        self.rest = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn fid(&mut self) -> Result<Fid, WireError> {
        Ok(Fid {
            seq: self.u64()?,
            oid: self.u32()?,
            ver: self.u32()?,
        })
    }

    /// A NUL-terminated text and its padding to 8.
    fn c_string(&mut self) -> Result<String, WireError> {
        let end = self
            .rest
            .iter()
            .position(|b| *b == 0)
            .ok_or(WireError::Overrun("file system name"))?;
        let text = self.bytes(end + 1)?;
        let text = text
            .split_last()
            .and_then(|(_, text)| std::str::from_utf8(text).ok())
            .ok_or(WireError::FsName)?
            .to_owned();
        self.align(end + 1);
        Ok(text)
    }

    /// Passes the padding behind `length` bytes. The last item's may be missing: nothing follows it.
    fn align(&mut self, length: usize) {
        let padding = length.next_multiple_of(8) - length;
        self.rest = self.rest.get(padding..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn captures() -> Vec<(String, Vec<u8>, serde_json::Value)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/captures");
        let index: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
        index
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, fields)| {
                let bytes = std::fs::read(dir.join(name)).unwrap();
                (name.clone(), bytes, fields.clone())
            })
            .collect()
    }

    #[test]
    fn every_captured_message_reads_as_its_index_says() {
        let captures = captures();
        assert_eq!(captures.len(), 30);
        for (name, bytes, fields) in captures {
            let Message::Actions {
                fsname,
                archive_id,
                items,
            } = parse(&bytes).unwrap()
            else {
                panic!("{name} is not an action list");
            };
            compare(&name, &fields, &fsname, archive_id, &items);
        }
    }

    fn compare(name: &str, fields: &serde_json::Value, fsname: &str, archive_id: Option<ArchiveId>, items: &[Item]) {
        assert_eq!(fsname, fields["fsname"], "{name}");
        let id = archive_id.map_or(0, ArchiveId::get);
        assert_eq!(u64::from(id), fields["archive_id"], "{name}");
        let expected = fields["items"].as_array().unwrap();
        assert_eq!(items.len(), expected.len(), "{name}");
        for (item, want) in items.iter().zip(expected) {
            let kind = match want["action"].as_str().unwrap() {
                "ARCHIVE" => Kind::Do(Verb::Archive),
                "RESTORE" => Kind::Do(Verb::Restore),
                "REMOVE" => Kind::Do(Verb::Remove),
                "CANCEL" => Kind::Cancel,
                other => panic!("{name}: action {other}"),
            };
            assert_eq!(item.kind, kind, "{name}");
            assert_eq!(item.fid.to_string(), want["fid"], "{name}");
            assert_eq!(item.dfid.to_string(), want["dfid"], "{name}");
            assert_eq!(item.cookie.to_string(), want["cookie"], "{name}");
            assert_eq!(item.gid, want["gid"], "{name}");
            assert_eq!(item.extent.offset, want["offset"], "{name}");
            assert_eq!(item.extent.length, want["length"], "{name}");
            let hex: String = item.data.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, want["data"], "{name}");
            assert_eq!(item.blocking, fields["hal_flags"].as_u64().unwrap() & 4 != 0, "{name}");
        }
    }

    proptest! {
        #[test]
        fn messages_cut_anywhere_come_out_whole(cuts in prop::collection::vec(1usize..6000, 1..40)) {
            let captures = captures();
            let stream: Vec<u8> = captures.iter().flat_map(|(_, b, _)| b.clone()).collect();
            let want: Vec<Message> = captures.iter().map(|(_, b, _)| parse(b).unwrap()).collect();
            let mut framer = Framer::default();
            let mut got = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                framer.push(now);
                rest = later;
                while let Some(message) = framer.next_message().unwrap() {
                    got.push(message);
                }
            }
            prop_assert_eq!(framer.partial(), 0);
            prop_assert_eq!(got, want);
        }

        #[test]
        fn any_bytes_end_in_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(parse(&bytes));
            let mut framer = Framer::default();
            framer.push(&bytes);
            while let Ok(Some(_)) = framer.next_message() {}
        }

        #[test]
        fn a_damaged_message_never_panics_and_never_invents_items(
            index in 0usize..30, at in 0usize..5088, byte: u8
        ) {
            let (_, mut bytes, _) = captures().swap_remove(index);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(Message::Actions { items, .. }) = parse(&bytes) {
                prop_assert!(items.len() * ITEM <= bytes.len());
            }
        }
    }

    #[test]
    fn garbage_is_refused_at_its_second_byte() {
        let mut framer = Framer::default();
        framer.push(&[0xff]);
        assert_eq!(framer.next_message(), Ok(None));
        framer.push(&[0xff]);
        assert_eq!(framer.next_message(), Err(WireError::Magic(0xffff)));
    }

    #[test]
    fn a_shutdown_message_is_understood() {
        let message = [0x1c, 0x19, 1, 0, 1, 0, 8, 0];
        assert_eq!(parse(&message), Ok(Message::Shutdown));
    }
}
