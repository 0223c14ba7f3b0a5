//! Bytes as gzip has them, without being made smaller: what a store unpacks has to be packed.

/// The most that one block holds.
const BLOCK: usize = 0xffff;

/// A gzip file of one member, in stored blocks.
pub(crate) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut blocks = bytes.chunks(BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        packed.push(u8::from(blocks.peek().is_none()));
        packed.extend(length.to_le_bytes());
        packed.extend((!length).to_le_bytes());
        packed.extend_from_slice(block);
    }
    packed.extend(crc32(bytes).to_le_bytes());
    packed.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    packed
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_of_the_catalogue_and_the_blocks_have_all_bytes() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let bytes = vec![7; BLOCK + 1];
        let packed = packed(&bytes);
        assert_eq!(packed.len(), 10 + 5 + BLOCK + 5 + 1 + 8);
        assert_eq!(packed[10..15], [0, 0xff, 0xff, 0, 0]);
        assert_eq!(packed[15 + BLOCK..20 + BLOCK], [1, 1, 0, 0xfe, 0xff]);
    }
}
