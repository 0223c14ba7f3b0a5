//! Messages, byte by byte as the kernel writes them (captures of a real 2.17.0 are compared in a test).

use lhsm_sandbox_protocol::{Action, Fid};

/// The largest message that was captured.
pub(super) const LARGEST: usize = 5088;
const HEADER: usize = 8 + 32;
const ITEM: usize = 72;

/// One item to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireItem<'a> {
    pub(super) action: Action,
    pub(super) fid: Fid,
    /// The same, but for a file that is gone.
    pub(super) dfid: Fid,
    pub(super) cookie: u64,
    pub(super) data: &'a [u8],
}

/// Bytes that an item takes in a message.
pub(super) const fn item_size(data: &[u8]) -> usize {
    (ITEM + data.len()).next_multiple_of(8)
}

/// Bytes that a message has besides its items.
pub(super) const fn overhead(fsname: &str) -> usize {
    HEADER + (fsname.len() + 1).next_multiple_of(8)
}

pub(super) fn message(fsname: &str, archive_id: u32, flags: u64, items: &[WireItem<'_>]) -> Vec<u8> {
    let mut list = Vec::new();
    list.extend(1u32.to_le_bytes());
    list.extend(u32::try_from(items.len()).unwrap_or(u32::MAX).to_le_bytes());
    list.extend(0u64.to_le_bytes());
    list.extend(flags.to_le_bytes());
    list.extend(archive_id.to_le_bytes());
    list.extend(0u32.to_le_bytes());
    list.extend(fsname.as_bytes());
    list.push(0);
    pad(&mut list);
    for item in items {
        let length = u32::try_from(ITEM + item.data.len()).unwrap_or(u32::MAX);
        list.extend(length.to_le_bytes());
        list.extend(item.action.number().to_le_bytes());
        for fid in [item.fid, item.dfid] {
            list.extend(fid.seq.to_le_bytes());
            list.extend(fid.oid.to_le_bytes());
            list.extend(fid.ver.to_le_bytes());
        }
        list.extend(0u64.to_le_bytes());
        list.extend(u64::MAX.to_le_bytes());
        list.extend(item.cookie.to_le_bytes());
        list.extend(0u64.to_le_bytes());
        list.extend(item.data);
        pad(&mut list);
    }
    let length = u16::try_from(8 + list.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(usize::from(length));
    message.extend(0x191cu16.to_le_bytes());
    message.extend([2, 0]);
    message.extend(100u16.to_le_bytes());
    message.extend(length.to_le_bytes());
    message.extend(list);
    message
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/../tests/data/captures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn item<'a>(action: Action, fid: &str, cookie: u64, data: &'a [u8]) -> WireItem<'a> {
        WireItem {
            action,
            fid: fid.parse().unwrap(),
            dfid: fid.parse().unwrap(),
            cookie,
            data,
        }
    }

    /// Rebuilds a captured message from the fields of its index.
    #[test]
    fn messages_are_byte_for_byte_those_of_a_real_kernel() {
        let index: serde_json::Value = serde_json::from_slice(&capture("index.json")).unwrap();
        for (name, fields) in index.as_object().unwrap() {
            let unhex = |text: &str| -> Vec<u8> {
                (0..text.len())
                    .step_by(2)
                    .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
                    .collect()
            };
            let items = fields["items"].as_array().unwrap();
            let datas: Vec<_> = items.iter().map(|i| unhex(i["data"].as_str().unwrap())).collect();
            let items: Vec<_> = items
                .iter()
                .zip(&datas)
                .map(|(i, data)| {
                    let action = match i["action"].as_str().unwrap() {
                        "ARCHIVE" => Action::Archive,
                        "RESTORE" => Action::Restore,
                        "REMOVE" => Action::Remove,
                        _ => Action::Cancel,
                    };
                    let cookie = i["cookie"].as_str().unwrap().trim_start_matches("0x");
                    item(
                        action,
                        i["fid"].as_str().unwrap(),
                        u64::from_str_radix(cookie, 16).unwrap(),
                        data,
                    )
                })
                .collect();
            let id = u32::try_from(fields["archive_id"].as_u64().unwrap()).unwrap();
            let built = message("lustre", id, fields["hal_flags"].as_u64().unwrap(), &items);
            assert_eq!(built, capture(name), "{name}");
        }
    }
}
