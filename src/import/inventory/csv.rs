//! Data files as gzip'ed CSV.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;

use csv::{ByteRecord, ReaderBuilder};
use flate2::bufread::MultiGzDecoder;

use super::{Columns, InventoryError, bad_value, give, no_value, quoted, text};
use crate::store::Entry;

/// What the file and the rows are read by.
const BUFFER: usize = 64 * 1024;

/// No row is this long; one quote too many would make a row of all the rest of the file.
const ROW_MAX: usize = 1024 * 1024;

/// Days before each month of a year that is no leap year.
const DAYS_BEFORE: [i64; 13] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];

/// 1970-01-01, in days after 0001-01-01.
const EPOCH: i64 = 719_162;

/// Gives up when too much is read for one row.
struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the next row has no end"))?;
        Ok(read)
    }
}

pub(super) fn read(
    columns: &Columns,
    name: &str,
    file: File,
    each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), InventoryError> {
    let unpacked = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        // Rows are compared with the manifest, not with the first row.
        .flexible(true)
        .buffer_capacity(BUFFER)
        .from_reader(Bounded {
            inner: unpacked,
            left: ROW_MAX,
        });
    let mut record = ByteRecord::new();
    let mut row = 0;
    loop {
        reader.get_mut().left = ROW_MAX;
        match reader.read_byte_record(&mut record) {
            Ok(true) => row += 1,
            Ok(false) => return Ok(()),
            Err(error) => {
                return Err(InventoryError::Read {
                    file: name.to_owned(),
                    row,
                    error: error.into(),
                });
            }
        }
        if give(name, row, entry(columns, &record), each)?.is_break() {
            return Ok(());
        }
    }
}

/// The object of a row; `None` if it is not a current one.
fn entry(columns: &Columns, record: &ByteRecord) -> Result<Option<Entry>, String> {
    if record.len() != columns.count {
        return Err(format!(
            "{} columns, where the manifest names {}",
            record.len(),
            columns.count
        ));
    }
    let field = |column: usize| record.get(column).unwrap_or_default();
    let optional = |column: Option<usize>| column.map(field).filter(|value| !value.is_empty());

    // Both are left out of an inventory of current versions only.
    let latest = optional(columns.latest)
        .map(|value| flag(value, "IsLatest"))
        .transpose()?;
    let deleted = optional(columns.delete_marker)
        .map(|value| flag(value, "IsDeleteMarker"))
        .transpose()?;
    if latest == Some(false) || deleted == Some(true) {
        return Ok(None);
    }

    let key = field(columns.key);
    if key.is_empty() {
        return Err(no_value("Key"));
    }
    let size = field(columns.size);
    if size.is_empty() {
        return Err(no_value("Size"));
    }
    Ok(Some(Entry {
        key: decode(key).ok_or_else(|| bad_value("Key", key))?,
        size: number(size)
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| bad_value("Size", size))?,
        etag: optional(columns.etag)
            .map_or(Ok(None), |value| text(value, "ETag"))?
            .map(quoted),
        modified: optional(columns.modified)
            .map(|value| seconds(value).ok_or_else(|| bad_value("LastModifiedDate", value)))
            .transpose()?,
        class: optional(columns.class).map_or(Ok(None), |value| text(value, "StorageClass"))?,
    }))
}

fn flag(value: &[u8], column: &str) -> Result<bool, String> {
    if value.eq_ignore_ascii_case(b"true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case(b"false") {
        Ok(false)
    } else {
        Err(bad_value(column, value))
    }
}

/// A key from its URL encoding; `None`: a percent sign that starts nothing.
fn decode(mut encoded: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(encoded.len());
    while let Some((&byte, mut rest)) = encoded.split_first() {
        key.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (&[high, low], after) = rest.split_first_chunk()?;
                rest = after;
                nibble(high)? << 4 | nibble(low)?
            }
            plain => plain,
        });
        encoded = rest;
    }
    Some(key)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Digits only: no sign, no space.
fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(i64::from(digit))
    })
}

/// Seconds since 1970 of `2021-01-31T23:59:59.000Z`; the fraction may be missing and is dropped.
fn seconds(date: &[u8]) -> Option<i64> {
    let (whole, fraction) = date.strip_suffix(b"Z")?.split_first_chunk::<19>()?;
    if !fraction.is_empty() {
        number(fraction.strip_prefix(b".")?)?;
    }
    let [
        y1,
        y2,
        y3,
        y4,
        b'-',
        m1,
        m2,
        b'-',
        d1,
        d2,
        b'T',
        h1,
        h2,
        b':',
        n1,
        n2,
        b':',
        s1,
        s2,
    ] = *whole
    else {
        return None;
    };
    let within = |low: i64, digits: &[u8], high: i64| number(digits).filter(|found| (low..=high).contains(found));
    let year = within(1, &[y1, y2, y3, y4], 9999)?;
    let month = within(1, &[m1, m2], 12)?;
    let hour = within(0, &[h1, h2], 23)?;
    let minute = within(0, &[n1, n2], 59)?;
    let second = within(0, &[s1, s2], 59)?;

    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let index = usize::try_from(month).ok()?;
    let (before, after) = (DAYS_BEFORE.get(index - 1)?, DAYS_BEFORE.get(index)?);
    let day = within(1, &[d1, d2], after - before + i64::from(leap && month == 2))?;

    let years = year - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + before + i64::from(leap && month > 2) + day - 1;
    Some((((days - EPOCH) * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::tests::{EVERYTHING, collect, manifest};
    use super::*;
    use crate::import::inventory;

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn on_disk(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn told(schema: &str, text: &str) -> (Vec<Entry>, Result<(), InventoryError>) {
        collect(&manifest("CSV", schema).unwrap(), on_disk(&packed(text)))
    }

    /// As S3 encodes a key.
    fn encoded(key: &[u8]) -> String {
        key.iter().fold(String::new(), |text, byte| match byte {
            b' ' => text + "+",
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' | b'/' => {
                text + &char::from(*byte).to_string()
            }
            other => format!("{text}%{other:02X}"),
        })
    }

    #[test]
    fn every_kind_of_key_comes_back() {
        let keys: [&[u8]; 10] = [
            b"plain",
            b"a dir/with spaces",
            "Ünï/ファイル".as_bytes(),
            b"1+1=2",
            b"comma, \"quote\" and 'quote'",
            b"100%",
            b"%41",
            b"not \xff\xfe UTF-8",
            b"line\nbreak\r\n",
            b"directory/",
        ];
        let text: String = keys
            .iter()
            .map(|key| format!("\"lab\",\"{}\",\"17\"\n", encoded(key)))
            .collect();
        let (entries, result) = told("Bucket, Key, Size", &text);
        result.unwrap();
        let found: Vec<&[u8]> = entries.iter().map(|entry| entry.key.as_slice()).collect();
        assert_eq!(found, keys);
        assert!(entries.iter().all(|entry| entry.size == 17));
        assert_eq!(
            entries
                .first()
                .map(|entry| (&entry.etag, &entry.modified, &entry.class)),
            Some((&None, &None, &None))
        );
    }

    #[test]
    fn only_current_objects_are_told() {
        let text = concat!(
            r#""lab","new","v2","true","false","5368709120","2021-01-01T00:00:00.000Z","9b2c-640","STANDARD""#,
            "\n",
            r#""lab","new","v1","false","false","1","2020-01-01T00:00:00.000Z","aa","GLACIER""#,
            "\n",
            r#""lab","gone","v2","true","true","","2020-01-01T00:00:00.000Z","","""#,
            "\n",
            r#""lab","gone","v1","false","false","1","2020-01-01T00:00:00.000Z","aa","STANDARD""#,
            "\n",
            r#""lab","bare","","","","0","","","""#,
            "\n",
        );
        let (entries, result) = told(EVERYTHING, text);
        result.unwrap();
        assert_eq!(
            entries,
            [
                Entry {
                    key: b"new".to_vec(),
                    size: 5_368_709_120,
                    etag: Some("\"9b2c-640\"".to_owned()),
                    modified: Some(1_609_459_200),
                    class: Some("STANDARD".to_owned()),
                },
                Entry {
                    key: b"bare".to_vec(),
                    size: 0,
                    etag: None,
                    modified: None,
                    class: None,
                },
            ]
        );
    }

    #[test]
    fn a_file_may_be_empty_or_of_several_streams() {
        assert_eq!(told("Key, Size", "").0, []);
        let mut bytes = packed("\"a\",\"1\"\n\"b\",");
        bytes.extend(packed("\"2\"\n"));
        let (entries, result) = collect(&manifest("CSV", "Key, Size").unwrap(), on_disk(&bytes));
        result.unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries.last().map(|entry| entry.size), Some(2));
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error_that_names_it() {
        let text: String = (0..10_000).map(|n| format!("\"lab\",\"file{n}\",\"{n}\"\n")).collect();
        let bytes = packed(&text);
        let manifest = manifest("CSV", "Bucket, Key, Size").unwrap();
        let (whole, result) = collect(&manifest, on_disk(&bytes));
        result.unwrap();
        assert_eq!(whole.len(), 10_000);
        for length in [
            0,
            5,
            100,
            bytes.len() / 2,
            bytes.len() - 9,
            bytes.len() - 8,
            bytes.len() - 1,
        ] {
            let (entries, result) = collect(&manifest, on_disk(bytes.get(..length).unwrap()));
            let error = result.unwrap_err();
            assert!(matches!(error, InventoryError::Read { .. }), "{length}: {error}");
            assert!(error.to_string().contains("data/1"), "{error}");
            assert_eq!(entries.as_slice(), whole.get(..entries.len()).unwrap(), "{length}");
        }
    }

    #[test]
    fn what_is_not_gzip_or_is_damaged_is_an_error() {
        let manifest = manifest("CSV", "Key, Size").unwrap();
        let (_, result) = collect(&manifest, on_disk(b"\"a\",\"1\"\n"));
        assert!(matches!(result, Err(InventoryError::Read { row: 0, .. })), "{result:?}");
        let mut bytes = packed("\"a\",\"1\"\n");
        let checksum = bytes.len() - 8;
        *bytes.get_mut(checksum).unwrap() ^= 1;
        let (_, result) = collect(&manifest, on_disk(&bytes));
        assert!(matches!(result, Err(InventoryError::Read { .. })), "{result:?}");
    }

    #[test]
    fn a_bad_row_is_named() {
        let good = "\"lab\",\"a\",\"\",\"true\",\"false\",\"1\",\"\",\"\",\"\"\n";
        for (bad, what) in [
            ("\"lab\",\"a\"\n", "2 columns, where the manifest names 9"),
            (
                "\"lab\",\"\",\"\",\"true\",\"false\",\"1\",\"\",\"\",\"\"\n",
                "'Key' is empty",
            ),
            (
                "\"lab\",\"100%\",\"\",\"true\",\"false\",\"1\",\"\",\"\",\"\"\n",
                "'Key' can't be '100%'",
            ),
            (
                "\"lab\",\"%+1\",\"\",\"true\",\"false\",\"1\",\"\",\"\",\"\"\n",
                "'Key' can't be",
            ),
            (
                "\"lab\",\"a\",\"\",\"yes\",\"false\",\"1\",\"\",\"\",\"\"\n",
                "'IsLatest' can't be 'yes'",
            ),
            (
                "\"lab\",\"a\",\"\",\"true\",\"0\",\"1\",\"\",\"\",\"\"\n",
                "'IsDeleteMarker'",
            ),
            (
                "\"lab\",\"a\",\"\",\"true\",\"false\",\"\",\"\",\"\",\"\"\n",
                "'Size' is empty",
            ),
            (
                "\"lab\",\"a\",\"\",\"true\",\"false\",\"-1\",\"\",\"\",\"\"\n",
                "'Size' can't be '-1'",
            ),
            (
                "\"lab\",\"a\",\"\",\"true\",\"false\",\"1\",\"today\",\"\",\"\"\n",
                "'LastModifiedDate' can't be 'today'",
            ),
        ] {
            let (entries, result) = told(EVERYTHING, &format!("{good}{good}{bad}{good}"));
            assert_eq!(entries.len(), 2);
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("data/1, row 3: ") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_row_without_an_end_is_not_kept_in_memory() {
        let text = format!("\"a\",\"1\"\n\"b\",\"{}", "1\n".repeat(4 * ROW_MAX));
        let (entries, result) = told("Key, Size", &text);
        assert_eq!(entries.len(), 1);
        let error = result.unwrap_err();
        assert!(error.to_string().contains("no end"), "{error}");
        assert!(matches!(error, InventoryError::Read { row: 1, .. }));
    }

    #[test]
    fn reading_stops_when_told() {
        let manifest = manifest("CSV", "Key, Size").unwrap();
        let mut seen = 0;
        inventory::read(&manifest, "data/1", on_disk(&packed("a,1\nb,2\nc,x\n")), &mut |_| {
            seen += 1;
            if seen == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
        assert_eq!(seen, 2);
    }

    #[test]
    fn dates_become_seconds() {
        for (date, expected) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29T12:34:56.000Z", 951_827_696),
            ("2000-03-01T00:00:00.000Z", 951_868_800),
            ("2021-01-01T00:00:00.000Z", 1_609_459_200),
            ("2024-12-31T23:59:59.123Z", 1_735_689_599),
            ("2100-03-01T00:00:00.000Z", 4_107_542_400),
            ("9999-12-31T23:59:59.000Z", 253_402_300_799),
        ] {
            assert_eq!(seconds(date.as_bytes()), Some(expected), "{date}");
        }
        for bad in [
            "",
            "Z",
            "2021-01-01",
            "2021-01-01T00:00:00.000",
            "2021-01-01T00:00:00.Z",
            "2021-01-01 00:00:00.000Z",
            "2021-02-29T00:00:00.000Z",
            "2100-02-29T00:00:00.000Z",
            "2021-13-01T00:00:00.000Z",
            "2021-00-01T00:00:00.000Z",
            "2021-01-00T00:00:00.000Z",
            "2021-04-31T00:00:00.000Z",
            "2021-01-01T24:00:00.000Z",
            "2021-01-01T00:60:00.000Z",
            "2021-01-01T00:00:+1.000Z",
            "0000-01-01T00:00:00.000Z",
        ] {
            assert_eq!(seconds(bad.as_bytes()), None, "{bad}");
        }
    }
}
