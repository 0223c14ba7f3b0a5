//! The layout xattr of a released file (`lustre.lov`), made fit for the volatile file that takes its
//! place. Without it a restored file gets the directory's default and loses its stripes.
//!
//! Offsets as seen on 2.17.0: plain layouts (V1, V3) have their pattern at byte 4; a composite one has
//! a table of 48-byte entries from byte 32, each with its blob's offset at +24.

const MAGIC_V1: u32 = 0x0bd1_0bd0;
const MAGIC_V3: u32 = 0x0bd3_0bd0;
const MAGIC_COMPOSITE: u32 = 0x0bd6_0bd0;
const PATTERN: usize = 4;
const STRIPE_SIZE: usize = 24;
const STRIPE_COUNT: usize = 28;
const STRIPE_OFFSET: usize = 30;
const ANY_OST: u16 = 0xffff;
/// Bytes of a plain layout before its objects (`struct lov_user_md_v1`).
const HEADER: usize = 32;
const PATTERN_STRIPED: u32 = 1;
const PATTERN_RELEASED: u32 = 0x8000_0000;
const PATTERN_MDT: u32 = 0x100;
const ENTRY_COUNT: usize = 14;
const MIRROR_COUNT: usize = 16;
const ENTRIES: usize = 32;
const ENTRY: usize = 48;
const ENTRY_BLOB: usize = 24;

/// What the volatile file of a restore gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreLayout {
    /// These bytes as its `lustre.lov`, before the first write.
    Kept(Vec<u8>),
    /// The same, for a layout that can't be had again: a plain one with the stripes of its last component. The MDT
    /// refuses to swap data that it keeps itself (ENOTSUP at end), and a directory's default may ask for just that.
    Plain(Vec<u8>),
    /// The directory's default, for the reason given.
    Default(&'static str),
}

/// Clears the released bit of every component.
#[must_use]
pub fn for_restore(mut layout: Vec<u8>) -> RestoreLayout {
    const DAMAGED: RestoreLayout = RestoreLayout::Default("its layout can't be read");
    let Some(magic) = word(&layout, 0) else {
        return DAMAGED;
    };
    let blobs = match magic {
        MAGIC_V1 | MAGIC_V3 => Some(vec![0]),
        MAGIC_COMPOSITE => component_blobs(&layout),
        _ => return RestoreLayout::Default("its layout is of a kind unknown here"),
    };
    let Some(blobs) = blobs else {
        return DAMAGED;
    };
    let patterns: Option<Vec<u32>> = blobs.iter().map(|blob| word(&layout, blob + PATTERN)).collect();
    let Some(patterns) = patterns else {
        return DAMAGED;
    };
    if patterns.iter().any(|pattern| pattern & PATTERN_MDT != 0) {
        let on_osts = patterns.iter().rposition(|pattern| pattern & PATTERN_MDT == 0);
        let stripes = on_osts.and_then(|n| layout.get(*blobs.get(n)? + STRIPE_SIZE..)?.first_chunk());
        return RestoreLayout::Plain(plain(stripes.copied().unwrap_or_default()));
    }
    for (blob, pattern) in blobs.into_iter().zip(patterns) {
        let at = blob + PATTERN;
        if let Some(bytes) = layout.get_mut(at..at + 4) {
            bytes.copy_from_slice(&(pattern & !PATTERN_RELEASED).to_le_bytes());
        }
        // What a released component has here is its generation; on 2.15 it would be taken for the first OST.
        if magic == MAGIC_COMPOSITE
            && let Some(bytes) = layout.get_mut(blob + STRIPE_OFFSET..blob + STRIPE_OFFSET + 2)
        {
            bytes.copy_from_slice(&ANY_OST.to_le_bytes());
        }
    }
    RestoreLayout::Kept(layout)
}

/// Stripe size and count of a plain layout; `None` for any other.
#[must_use]
pub fn plain_stripes(layout: &[u8]) -> Option<(u64, u16)> {
    let magic = word(layout, 0)?;
    let count = u16::from_le_bytes(*layout.get(STRIPE_COUNT..)?.first_chunk()?);
    let plain = matches!(magic, MAGIC_V1 | MAGIC_V3) && word(layout, PATTERN)? & PATTERN_MDT == 0;
    plain.then_some((u64::from(word(layout, STRIPE_SIZE)?), count))
}

/// Whether this is a composite layout (PFL) that a file of another file system can get, too: neither data on the MDT
/// nor mirrors, whose copies a restore would have to make.
#[must_use]
pub fn is_portable_composite(layout: &[u8]) -> bool {
    let mirrors = layout
        .get(MIRROR_COUNT..)
        .and_then(<[u8]>::first_chunk)
        .map(|bytes| u16::from_le_bytes(*bytes));
    word(layout, 0) == Some(MAGIC_COMPOSITE)
        && mirrors == Some(0)
        && matches!(for_restore(layout.to_vec()), RestoreLayout::Kept(_))
}

/// Of that stripe size and count; 0 is the file system's default.
fn plain(stripes: [u8; STRIPE_OFFSET - STRIPE_SIZE]) -> Vec<u8> {
    let mut layout = Vec::with_capacity(HEADER);
    layout.extend(MAGIC_V1.to_le_bytes());
    layout.extend(PATTERN_STRIPED.to_le_bytes());
    layout.resize(STRIPE_SIZE, 0);
    layout.extend(stripes);
    layout.extend(ANY_OST.to_le_bytes());
    layout
}

fn component_blobs(layout: &[u8]) -> Option<Vec<usize>> {
    let count = u16::from_le_bytes(*layout.get(ENTRY_COUNT..)?.first_chunk()?);
    (0..usize::from(count))
        .map(|i| {
            let offset = word(layout, ENTRIES + i * ENTRY + ENTRY_BLOB)?;
            usize::try_from(offset).ok()
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(pattern: u32) -> Vec<u8> {
        let mut bytes = vec![0u8; 80];
        bytes[..4].copy_from_slice(&MAGIC_V1.to_le_bytes());
        bytes[4..8].copy_from_slice(&pattern.to_le_bytes());
        bytes
    }

    fn composite(patterns: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0u8; ENTRIES + patterns.len() * (ENTRY + 80)];
        bytes[..4].copy_from_slice(&MAGIC_COMPOSITE.to_le_bytes());
        bytes[ENTRY_COUNT..ENTRY_COUNT + 2].copy_from_slice(&u16::try_from(patterns.len()).unwrap().to_le_bytes());
        for (i, pattern) in patterns.iter().enumerate() {
            let blob = ENTRIES + patterns.len() * ENTRY + i * 80;
            let at = ENTRIES + i * ENTRY + ENTRY_BLOB;
            bytes[at..at + 4].copy_from_slice(&u32::try_from(blob).unwrap().to_le_bytes());
            bytes[blob..blob + 80].copy_from_slice(&plain(*pattern));
        }
        bytes
    }

    #[test]
    fn the_released_bit_goes_and_the_stripes_stay() {
        assert_eq!(for_restore(plain(0x8000_0001)), RestoreLayout::Kept(plain(1)));
        let RestoreLayout::Kept(kept) = for_restore(composite(&[0x8000_0001, 0x8000_0001])) else {
            panic!("kept");
        };
        let mut want = composite(&[1, 1]);
        for blob in component_blobs(&want).unwrap() {
            want[blob + STRIPE_OFFSET..blob + STRIPE_OFFSET + 2].fill(0xff);
        }
        assert_eq!(kept, want);
    }

    #[test]
    fn data_on_the_mdt_is_restored_into_the_stripes_behind_it() {
        let mut layout = composite(&[0x8000_0100, 0x8000_0001]);
        let behind = component_blobs(&layout).unwrap()[1];
        layout[behind + STRIPE_SIZE..behind + STRIPE_SIZE + 4].copy_from_slice(&(1u32 << 20).to_le_bytes());
        layout[behind + STRIPE_COUNT] = 2;
        let RestoreLayout::Plain(made) = for_restore(layout) else {
            panic!("plain");
        };
        assert_eq!((made.len(), plain_stripes(&made)), (HEADER, Some((1 << 20, 2))));
        assert_eq!(made[STRIPE_OFFSET..], ANY_OST.to_le_bytes());
        // Nothing but data on the MDT.
        let RestoreLayout::Plain(made) = for_restore(plain(0x8000_0100)) else {
            panic!("plain");
        };
        assert_eq!(plain_stripes(&made), Some((0, 0)));
    }

    #[test]
    fn only_a_composite_layout_without_mirrors_and_data_on_the_mdt_goes_to_another_file_system() {
        assert!(is_portable_composite(&composite(&[0x8000_0001, 1])));
        assert!(!is_portable_composite(&plain(1)));
        assert!(!is_portable_composite(&composite(&[0x100, 1])));
        let mut mirrored = composite(&[1, 1]);
        mirrored[MIRROR_COUNT] = 1;
        assert!(!is_portable_composite(&mirrored));
        assert!(!is_portable_composite(&composite(&[1, 1])[..150]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_layout_or_the_default(mut bytes in prop::collection::vec(any::<u8>(), 0..300), c: bool) {
            if bytes.len() > 4 && c {
                bytes[..4].copy_from_slice(&MAGIC_COMPOSITE.to_le_bytes());
            }
            drop(for_restore(bytes));
        }
    }
}
