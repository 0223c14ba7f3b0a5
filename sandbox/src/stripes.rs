//! `lfs setstripe` and `lfs getstripe -v`: layouts as `lustre.lov` holds them, plain (V1) or of components.

use std::fmt;
use std::path::PathBuf;

const PLAIN: u32 = 0x0bd1_0bd0;
const COMPOSITE: u32 = 0x0bd6_0bd0;
const RAID0: u32 = 1;
const RELEASED: u32 = 0x8000_0000;
const HEADER: usize = 32;
const ENTRY: usize = 48;
const BLOB: usize = 32;
const DEFAULT_SIZE: u32 = 1 << 20;

/// A run of a file with its stripes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Component {
    /// Behind its last byte; `u64::MAX`: the end of the file.
    pub end: u64,
    /// Stripes; 65535: as many as there are OSTs.
    pub count: u16,
    /// Bytes of a stripe before the next OST.
    pub size: u32,
}

/// How a file lies on its OSTs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stripes {
    /// One: a plain layout, unless it has an end.
    pub components: Vec<Component>,
}

impl Stripes {
    /// From the arguments of `lfs setstripe`: `[-E END] [-c COUNT] [-S SIZE] … FILE`.
    ///
    /// # Errors
    /// The argument that is not understood.
    pub fn parse(arguments: &[String]) -> Result<(Self, PathBuf), String> {
        let mut components: Vec<Component> = Vec::new();
        let mut plain = Component {
            end: u64::MAX,
            count: 1,
            size: DEFAULT_SIZE,
        };
        let mut words = arguments.iter();
        let mut file = None;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("'{word}' needs a value"));
            match word.as_str() {
                "-E" | "--component-end" => {
                    let end = bytes(value()?)?;
                    components.push(Component { end, ..plain });
                }
                "-c" | "--stripe-count" => {
                    let text = value()?;
                    let count: i32 = text.parse().map_err(|_| format!("'{text}' is no count"))?;
                    let count = u16::try_from(count).unwrap_or(u16::MAX);
                    components.last_mut().unwrap_or(&mut plain).count = count;
                }
                "-S" | "--stripe-size" => {
                    let text = value()?;
                    let size = bytes(text)?;
                    let size = u32::try_from(size).map_err(|_| format!("'{text}' is no size of a stripe"))?;
                    components.last_mut().unwrap_or(&mut plain).size = size;
                }
                option if option.starts_with('-') => return Err(format!("'{option}' is not known here")),
                name => file = Some(PathBuf::from(name)),
            }
        }
        if components.is_empty() {
            components.push(plain);
        } else if components.last().is_none_or(|last| last.end != u64::MAX) {
            return Err("the last component must end with the file: -E -1".into());
        }
        Ok((Self { components }, file.ok_or("no file")?))
    }

    /// `lustre.lov`, before the file has objects.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if let [only] = self.components.as_slice() {
            return only.blob();
        }
        let table = HEADER + ENTRY * self.components.len();
        let mut bytes = vec![0; table + BLOB * self.components.len()];
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        put(&mut bytes, 0, &COMPOSITE.to_le_bytes());
        put(&mut bytes, 4, &length.to_le_bytes());
        put(
            &mut bytes,
            14,
            &u16::try_from(self.components.len()).unwrap_or(0).to_le_bytes(),
        );
        let mut start = 0u64;
        for (n, component) in (0u32..).zip(&self.components) {
            let (at, blob) = (HEADER + ENTRY * n as usize, table + BLOB * n as usize);
            put(&mut bytes, at, &(n + 1).to_le_bytes());
            put(&mut bytes, at + 8, &start.to_le_bytes());
            put(&mut bytes, at + 16, &component.end.to_le_bytes());
            put(&mut bytes, at + 24, &u32::try_from(blob).unwrap_or(0).to_le_bytes());
            put(&mut bytes, at + 28, &32u32.to_le_bytes());
            put(&mut bytes, blob, &component.blob());
            start = component.end;
        }
        bytes
    }

    /// From `lustre.lov`; `None` for another kind.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let components = match word(bytes, 0)? {
            PLAIN => vec![Component::from_blob(bytes, u64::MAX)?],
            COMPOSITE => (0..u16::from_le_bytes(*bytes.get(14..)?.first_chunk()?))
                .map(|n| {
                    let at = HEADER + ENTRY * usize::from(n);
                    let end = u64::from_le_bytes(*bytes.get(at + 16..)?.first_chunk()?);
                    let blob = usize::try_from(word(bytes, at + 24)?).ok()?;
                    Component::from_blob(bytes.get(blob..)?, end)
                })
                .collect::<Option<_>>()?,
            _ => return None,
        };
        Some(Self { components })
    }
}

impl Component {
    fn blob(self) -> Vec<u8> {
        let mut bytes = vec![0; BLOB];
        put(&mut bytes, 0, &PLAIN.to_le_bytes());
        put(&mut bytes, 4, &RAID0.to_le_bytes());
        put(&mut bytes, 24, &self.size.to_le_bytes());
        put(&mut bytes, 28, &self.count.to_le_bytes());
        put(&mut bytes, 30, &u16::MAX.to_le_bytes());
        bytes
    }

    fn from_blob(bytes: &[u8], end: u64) -> Option<Self> {
        let pattern = word(bytes, 4)? & !RELEASED;
        (pattern == RAID0).then_some(())?;
        Some(Self {
            end,
            size: word(bytes, 24)?,
            count: u16::from_le_bytes(*bytes.get(28..)?.first_chunk()?),
        })
    }
}

/// The lines of `lfs getstripe -v` that tell a layout.
impl fmt::Display for Stripes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = self.components.len() == 1;
        if !is_plain {
            writeln!(f, "  lcm_entry_count:   {}", self.components.len())?;
        }
        let mut start = 0;
        for component in &self.components {
            if !is_plain {
                writeln!(f, "    lcme_extent.e_start: {start}")?;
                match component.end {
                    u64::MAX => writeln!(f, "    lcme_extent.e_end:   EOF")?,
                    end => writeln!(f, "    lcme_extent.e_end:   {end}")?,
                }
            }
            writeln!(f, "      lmm_stripe_count:  {}", component.count.cast_signed())?;
            writeln!(f, "      lmm_stripe_size:   {}", component.size)?;
            start = component.end;
        }
        Ok(())
    }
}

/// As `lfs` has sizes: a suffix is a power of 1,024, and -1 the end of the file.
fn bytes(text: &str) -> Result<u64, String> {
    if matches!(text, "-1" | "eof") {
        return Ok(u64::MAX);
    }
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return Err(format!("'{text}' is no size")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is no size"))?;
    Ok(number << shift)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Stripes, PathBuf), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Stripes::parse(&words)
    }

    #[test]
    fn what_is_asked_for_is_what_is_shown() {
        let (plain, file) = parse("-c 2 -S 4M /lustre/file").unwrap();
        assert_eq!(file, PathBuf::from("/lustre/file"));
        assert_eq!(Stripes::from_bytes(&plain.to_bytes()), Some(plain.clone()));
        assert_eq!(
            plain.to_string(),
            "      lmm_stripe_count:  2\n      lmm_stripe_size:   4194304\n"
        );
        let (composite, _) = parse("-E 4M -c 1 -E -1 -c -1 file").unwrap();
        assert_eq!(Stripes::from_bytes(&composite.to_bytes()), Some(composite.clone()));
        let shown = composite.to_string();
        assert!(
            shown.contains("e_end:   4194304\n") && shown.contains("count:  -1\n"),
            "{shown}"
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, what) in [
            ("-c x file", "'x'"),
            ("-S 1Q file", "'1Q'"),
            ("--mirror file", "'--mirror'"),
            ("-E 4M file", "-E -1"),
            ("-c 1", "no file"),
            ("-c", "needs a value"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(what), "{line}: {error}");
        }
    }
}
