//! Data files as Parquet.
//!
//! Only the wanted columns are read, a batch of rows at a time; in memory is one page of each.

use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type, Int96Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{FileReader as _, RowGroupReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::{InventoryError, bad_value, give, no_value, quoted, text};
use crate::store::Entry;

/// Rows that are read at a time.
const BATCH: usize = 1024;

/// Where the file has what.
struct Places {
    key: usize,
    size: usize,
    latest: Option<usize>,
    delete_marker: Option<usize>,
    modified: Option<(usize, Clock)>,
    etag: Option<usize>,
    class: Option<usize>,
}

/// How a date is written.
#[derive(Clone, Copy)]
enum Clock {
    /// Ticks since 1970, so many in a second.
    Ticks(i64),
    /// The old 96 bits.
    Int96,
}

/// A column of a row group, and a batch of it.
struct Column<T: DataType> {
    reader: ColumnReaderImpl<T>,
    /// The level that says that a row has a value; 0 where every row has one.
    present: i16,
    levels: std::vec::IntoIter<i16>,
    values: std::vec::IntoIter<T::T>,
}

enum Dates {
    Ticks(Column<Int64Type>, i64),
    Int96(Column<Int96Type>),
}

/// The wanted columns of a row group.
struct Group {
    key: Column<ByteArrayType>,
    size: Column<Int64Type>,
    latest: Option<Column<BoolType>>,
    delete_marker: Option<Column<BoolType>>,
    modified: Option<Dates>,
    etag: Option<Column<ByteArrayType>>,
    class: Option<Column<ByteArrayType>>,
}

pub(super) fn read(
    name: &str,
    file: File,
    each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), InventoryError> {
    let footer = |error| InventoryError::Footer {
        file: name.to_owned(),
        error,
    };
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(footer)?;
    let places = Places::find(name, reader.metadata().file_metadata().schema_descr())?;
    let mut row = 0;
    for index in 0..reader.num_row_groups() {
        let page = |row| {
            move |error| InventoryError::Page {
                file: name.to_owned(),
                row,
                error,
            }
        };
        let source = guarded(|| reader.get_row_group(index)).map_err(page(row))?;
        let mut left = usize::try_from(source.metadata().num_rows()).map_err(|error| footer(error.into()))?;
        let mut group = guarded(|| Group::open(&*source, &places)).map_err(page(row))?;
        while left > 0 {
            let batch = left.min(BATCH);
            guarded(|| group.fill(batch)).map_err(page(row))?;
            left -= batch;
            for _ in 0..batch {
                row += 1;
                if give(name, row, group.take(), each)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Damaged data makes the decoder panic here and there. What it worked on is not used again.
fn guarded<T>(decode: impl FnOnce() -> ParquetResult<T>) -> ParquetResult<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ParquetError::General(
            "the data is damaged (the decoder panicked)".to_owned(),
        ))
    })
}

impl Places {
    fn find(file: &str, schema: &SchemaDescriptor) -> Result<Self, InventoryError> {
        let find = |column: &'static str, wanted: Type| {
            let Some(place) = place(schema, column) else {
                return Ok(None);
            };
            let found = &*schema.column(place);
            if found.physical_type() == wanted {
                Ok(Some(place))
            } else {
                Err(unexpected(file, column, found))
            }
        };
        let need = |column: &'static str, wanted: Type| {
            find(column, wanted)?.ok_or_else(|| InventoryError::NoColumn {
                file: file.to_owned(),
                column,
            })
        };
        let modified = match place(schema, "last_modified_date") {
            None => None,
            Some(place) => {
                let found = &*schema.column(place);
                let clock = clock(found).ok_or_else(|| unexpected(file, "last_modified_date", found))?;
                Some((place, clock))
            }
        };
        Ok(Self {
            key: need("key", Type::BYTE_ARRAY)?,
            size: need("size", Type::INT64)?,
            latest: find("is_latest", Type::BOOLEAN)?,
            delete_marker: find("is_delete_marker", Type::BOOLEAN)?,
            modified,
            etag: find("e_tag", Type::BYTE_ARRAY)?,
            class: find("storage_class", Type::BYTE_ARRAY)?,
        })
    }
}

/// Of a plain column: one value a row, in no group.
fn place(schema: &SchemaDescriptor, name: &str) -> Option<usize> {
    schema
        .columns()
        .iter()
        .position(|column| column.max_rep_level() == 0 && matches!(column.path().parts(), [only] if only == name))
}

fn clock(column: &ColumnDescriptor) -> Option<Clock> {
    match column.physical_type() {
        Type::INT96 => Some(Clock::Int96),
        Type::INT64 => match (column.logical_type_ref(), column.converted_type()) {
            (Some(LogicalType::Timestamp(stamp)), _) => Some(Clock::Ticks(match stamp.unit {
                TimeUnit::MILLIS => 1_000,
                TimeUnit::MICROS => 1_000_000,
                TimeUnit::NANOS => 1_000_000_000,
            })),
            (_, ConvertedType::TIMESTAMP_MICROS) => Some(Clock::Ticks(1_000_000)),
            // Without a note it is milliseconds all the same.
            _ => Some(Clock::Ticks(1_000)),
        },
        _ => None,
    }
}

fn unexpected(file: &str, column: &'static str, found: &ColumnDescriptor) -> InventoryError {
    InventoryError::ColumnType {
        file: file.to_owned(),
        column,
        found: found.physical_type().to_string(),
    }
}

impl<T: DataType> Column<T> {
    fn open(group: &dyn RowGroupReader, place: usize) -> ParquetResult<Self> {
        let about = group.metadata().schema_descr().column(place);
        Ok(Self {
            present: about.max_def_level(),
            reader: ColumnReaderImpl::new(about, group.get_column_page_reader(place)?),
            levels: Vec::new().into_iter(),
            values: Vec::new().into_iter(),
        })
    }

    /// The next batch; what is left of the last one is dropped.
    fn fill(&mut self, rows: usize) -> ParquetResult<()> {
        let mut levels = Vec::with_capacity(rows);
        let mut values = Vec::with_capacity(rows);
        let (found, _, _) = self.reader.read_records(rows, Some(&mut levels), None, &mut values)?;
        if found != rows {
            return Err(ParquetError::EOF(
                "a column has fewer rows than its row group".to_owned(),
            ));
        }
        self.levels = levels.into_iter();
        self.values = values.into_iter();
        Ok(())
    }

    /// The next row's value.
    fn take(&mut self) -> Option<T::T> {
        if self.present > 0 && self.levels.next() != Some(self.present) {
            return None;
        }
        self.values.next()
    }
}

impl Dates {
    fn open(group: &dyn RowGroupReader, place: usize, clock: Clock) -> ParquetResult<Self> {
        Ok(match clock {
            Clock::Ticks(second) => Self::Ticks(Column::open(group, place)?, second),
            Clock::Int96 => Self::Int96(Column::open(group, place)?),
        })
    }

    fn fill(&mut self, rows: usize) -> ParquetResult<()> {
        match self {
            Self::Ticks(column, _) => column.fill(rows),
            Self::Int96(column) => column.fill(rows),
        }
    }

    fn take(&mut self) -> Option<i64> {
        match self {
            Self::Ticks(column, second) => Some(column.take()?.div_euclid(*second)),
            Self::Int96(column) => Some(column.take()?.to_seconds()),
        }
    }
}

impl Group {
    fn open(group: &dyn RowGroupReader, places: &Places) -> ParquetResult<Self> {
        Ok(Self {
            key: Column::open(group, places.key)?,
            size: Column::open(group, places.size)?,
            latest: places.latest.map(|place| Column::open(group, place)).transpose()?,
            delete_marker: places
                .delete_marker
                .map(|place| Column::open(group, place))
                .transpose()?,
            modified: places
                .modified
                .map(|(place, clock)| Dates::open(group, place, clock))
                .transpose()?,
            etag: places.etag.map(|place| Column::open(group, place)).transpose()?,
            class: places.class.map(|place| Column::open(group, place)).transpose()?,
        })
    }

    fn fill(&mut self, rows: usize) -> ParquetResult<()> {
        self.key.fill(rows)?;
        self.size.fill(rows)?;
        for column in [&mut self.latest, &mut self.delete_marker].into_iter().flatten() {
            column.fill(rows)?;
        }
        for column in [&mut self.etag, &mut self.class].into_iter().flatten() {
            column.fill(rows)?;
        }
        self.modified.as_mut().map_or(Ok(()), |dates| dates.fill(rows))
    }

    /// The next row's object; `None` if it is not a current one.
    fn take(&mut self) -> Result<Option<Entry>, String> {
        // Every column has to move on, whatever the row is.
        let key = self.key.take();
        let size = self.size.take();
        let latest = self.latest.as_mut().and_then(Column::take);
        let deleted = self.delete_marker.as_mut().and_then(Column::take);
        let modified = self.modified.as_mut().and_then(Dates::take);
        let etag = self.etag.as_mut().and_then(Column::take);
        let class = self.class.as_mut().and_then(Column::take);

        if latest == Some(false) || deleted == Some(true) {
            return Ok(None);
        }
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| no_value("key"))?;
        let size = size.ok_or_else(|| no_value("size"))?;
        let told = |value: Option<ByteArray>, column: &str| value.map_or(Ok(None), |value| text(value.data(), column));
        Ok(Some(Entry {
            key: key.data().to_vec(),
            size: u64::try_from(size).map_err(|_| bad_value("size", size.to_string().as_bytes()))?,
            etag: told(etag, "e_tag")?.map(quoted),
            modified,
            class: told(class, "storage_class")?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::Int96;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
    use parquet::schema::parser::parse_message_type;

    use super::super::tests::{collect, manifest};
    use super::*;

    const SCHEMA: &str = "message s3.inventory {
        required binary bucket (UTF8);
        required binary key (UTF8);
        optional binary version_id (UTF8);
        optional boolean is_latest;
        optional boolean is_delete_marker;
        optional int64 size;
        optional int64 last_modified_date (TIMESTAMP_MILLIS);
        optional binary e_tag (UTF8);
        optional binary storage_class (UTF8);
    }";

    /// A column of a row group.
    enum Data {
        Bytes(Vec<Option<&'static [u8]>>),
        Flags(Vec<Option<bool>>),
        Numbers(Vec<Option<i64>>),
        Old(Vec<Option<Int96>>),
    }

    fn put<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, rows: Vec<Option<T::T>>) {
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        let values: Vec<T::T> = rows.into_iter().flatten().collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<T>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
    }

    fn written(schema: &str, compression: Compression, groups: Vec<Vec<Data>>) -> File {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = SerializedFileWriter::new(file.try_clone().unwrap(), schema, properties).unwrap();
        for columns in groups {
            let mut group = writer.next_row_group().unwrap();
            for column in columns {
                match column {
                    Data::Bytes(rows) => put::<ByteArrayType>(
                        &mut group,
                        rows.into_iter().map(|row| row.map(ByteArray::from)).collect(),
                    ),
                    Data::Flags(rows) => put::<BoolType>(&mut group, rows),
                    Data::Numbers(rows) => put::<Int64Type>(&mut group, rows),
                    Data::Old(rows) => put::<Int96Type>(&mut group, rows),
                }
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
        file.rewind().unwrap();
        file
    }

    fn told(file: File) -> (Vec<Entry>, Result<(), InventoryError>) {
        collect(&manifest("Parquet", SCHEMA).unwrap(), file)
    }

    fn text(value: &'static str) -> Option<&'static [u8]> {
        Some(value.as_bytes())
    }

    fn sample() -> Vec<Vec<Data>> {
        vec![
            vec![
                Data::Bytes(vec![text("lab"); 4]),
                Data::Bytes(vec![
                    text("a b+c%20,\"Ü\""),
                    text("old"),
                    text("gone"),
                    Some(b"not \xff UTF-8/"),
                ]),
                Data::Bytes(vec![text("v"), text("v"), text("v"), None]),
                Data::Flags(vec![Some(true), Some(false), Some(true), None]),
                Data::Flags(vec![Some(false), Some(false), Some(true), None]),
                Data::Numbers(vec![Some(5_368_709_120), Some(1), None, Some(0)]),
                Data::Numbers(vec![Some(1_609_459_200_999), Some(0), Some(0), None]),
                Data::Bytes(vec![text("9b2c-640"), text("aa"), None, None]),
                Data::Bytes(vec![text("STANDARD"), text("GLACIER"), None, None]),
            ],
            vec![
                Data::Bytes(vec![text("lab")]),
                Data::Bytes(vec![text("last")]),
                Data::Bytes(vec![None]),
                Data::Flags(vec![Some(true)]),
                Data::Flags(vec![Some(false)]),
                Data::Numbers(vec![Some(3)]),
                Data::Numbers(vec![Some(-1)]),
                Data::Bytes(vec![text("bb")]),
                Data::Bytes(vec![text("GLACIER")]),
            ],
        ]
    }

    #[test]
    fn only_current_objects_are_told_and_keys_stay_as_they_are() {
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(parquet::basic::GzipLevel::default()),
        ] {
            let (entries, result) = told(written(SCHEMA, compression, sample()));
            result.unwrap();
            assert_eq!(
                entries,
                [
                    Entry {
                        key: "a b+c%20,\"Ü\"".as_bytes().to_vec(),
                        size: 5_368_709_120,
                        etag: Some("\"9b2c-640\"".to_owned()),
                        modified: Some(1_609_459_200),
                        class: Some("STANDARD".to_owned()),
                    },
                    Entry {
                        key: b"not \xff UTF-8/".to_vec(),
                        size: 0,
                        etag: None,
                        modified: None,
                        class: None,
                    },
                    Entry {
                        key: b"last".to_vec(),
                        size: 3,
                        etag: Some("\"bb\"".to_owned()),
                        modified: Some(-1),
                        class: Some("GLACIER".to_owned()),
                    },
                ]
            );
        }
    }

    #[test]
    fn rows_of_several_batches_stay_together() {
        let rows = 3 * BATCH + 7;
        let number = |row: usize| i64::try_from(row).unwrap();
        let file = written(
            "message m { optional binary e_tag; required binary key; required int64 size; }",
            Compression::SNAPPY,
            vec![vec![
                Data::Bytes((0..rows).map(|row| (row % 3 == 0).then_some(&b"tag"[..])).collect()),
                Data::Bytes(vec![text("k"); rows]),
                Data::Numbers((0..rows).map(|row| Some(number(row))).collect()),
            ]],
        );
        let (entries, result) = told(file);
        result.unwrap();
        assert_eq!(entries.len(), rows);
        for (row, entry) in entries.iter().enumerate() {
            assert_eq!(entry.size, u64::try_from(row).unwrap());
            assert_eq!(entry.etag.is_some(), row % 3 == 0, "{row}");
        }
    }

    #[test]
    fn dates_come_in_several_types() {
        let mut old = Int96::new();
        // Noon of 1970-01-02, as nanoseconds and a Julian day.
        let noon = 12 * 3600 * 1_000_000_000_u64;
        old.set_data(
            u32::try_from(noon & u64::from(u32::MAX)).unwrap(),
            u32::try_from(noon >> 32).unwrap(),
            2_440_589,
        );
        for (kind, date, expected) in [
            ("int64 last_modified_date", Data::Numbers(vec![Some(1_999)]), 1),
            (
                "int64 last_modified_date (TIMESTAMP(MILLIS,true))",
                Data::Numbers(vec![Some(1_999)]),
                1,
            ),
            (
                "int64 last_modified_date (TIMESTAMP_MICROS)",
                Data::Numbers(vec![Some(1_999_999)]),
                1,
            ),
            (
                "int64 last_modified_date (TIMESTAMP(NANOS,true))",
                Data::Numbers(vec![Some(1_999_999_999)]),
                1,
            ),
            ("int96 last_modified_date", Data::Old(vec![Some(old)]), 129_600),
        ] {
            let schema = format!("message m {{ required binary key; required int64 size; optional {kind}; }}");
            let columns = vec![Data::Bytes(vec![text("k")]), Data::Numbers(vec![Some(1)]), date];
            let (entries, result) = told(written(&schema, Compression::UNCOMPRESSED, vec![columns]));
            result.unwrap();
            let dates: Vec<Option<i64>> = entries.iter().map(|entry| entry.modified).collect();
            assert_eq!(dates, [Some(expected)], "{kind}");
        }
    }

    #[test]
    fn a_column_that_is_missing_or_odd_is_an_error_that_names_it() {
        for (schema, what) in [
            ("message m { required int64 size; }", "no column 'key'"),
            ("message m { required binary key; }", "no column 'size'"),
            (
                "message m { required group key { required binary key; } required int64 size; }",
                "no column 'key'",
            ),
            (
                "message m { repeated binary key; required int64 size; }",
                "no column 'key'",
            ),
            (
                "message m { required binary key; required binary size; }",
                "'size' has an unexpected type: BYTE_ARRAY",
            ),
            (
                "message m { required binary key; required int64 size; optional binary last_modified_date; }",
                "'last_modified_date' has an unexpected type: BYTE_ARRAY",
            ),
        ] {
            let (_, result) = told(written(schema, Compression::UNCOMPRESSED, Vec::new()));
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("data/1: ") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_bad_row_is_named() {
        for (key, size, etag, what) in [
            (text("k"), None, None, "'size' is empty"),
            (text("k"), Some(-5), None, "'size' can't be '-5'"),
            (text(""), Some(1), None, "'key' is empty"),
            (None, Some(1), None, "'key' is empty"),
            (text("k"), Some(1), Some(&b"\xff"[..]), "'e_tag' can't be '\\xff'"),
        ] {
            let (entries, result) = told(written(
                "message m { optional binary key; optional int64 size; optional binary e_tag; }",
                Compression::UNCOMPRESSED,
                vec![vec![
                    Data::Bytes(vec![text("good"), key]),
                    Data::Numbers(vec![Some(1), size]),
                    Data::Bytes(vec![None, etag]),
                ]],
            ));
            assert_eq!(entries.len(), 1);
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("data/1, row 2: ") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_cut_short_or_damaged_is_an_error_that_names_it() {
        let mut bytes = Vec::new();
        written(SCHEMA, Compression::SNAPPY, sample())
            .read_to_end(&mut bytes)
            .unwrap();
        for length in [0, 4, bytes.len() / 2, bytes.len() - 1] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes.get(..length).unwrap()).unwrap();
            let error = told(file).1.unwrap_err();
            assert!(matches!(error, InventoryError::Footer { .. }), "{error}");
            assert!(error.to_string().starts_with("data/1: "), "{error}");
        }
        // The index is whole, the pages are not.
        bytes.get_mut(4..200).unwrap().fill(0);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let error = told(file).1.unwrap_err();
        assert!(matches!(error, InventoryError::Page { row: 0, .. }), "{error}");
    }

    #[test]
    fn no_damage_ends_in_a_panic() {
        let mut bytes = Vec::new();
        written(SCHEMA, Compression::SNAPPY, sample())
            .read_to_end(&mut bytes)
            .unwrap();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            *damaged.get_mut(place).unwrap() ^= 0xff;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&damaged).unwrap();
            // Not every damage shows.
            if let (_, Err(error)) = told(file) {
                assert!(error.to_string().starts_with("data/1"), "{error}");
            }
        }
    }
}
