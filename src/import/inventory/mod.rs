//! An S3 Inventory: the store's own list of a bucket, so that a billion objects need no listing.
//!
//! `manifest.json` names the data files. They are read one at a time from local disk, row by row, so memory does not
//! grow with them. Nothing here compares a data file with the size and MD5 of the manifest: who downloads it has to, as
//! damage in Parquet can look like other rows.

mod csv;
mod parquet;

use std::fs::File;
use std::ops::ControlFlow;

use crate::store::Entry;

/// What errors call the manifest.
const MANIFEST: &str = "manifest.json";

/// No inventory, or not one that can be read.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// Not the JSON of a manifest.
    #[error("{MANIFEST} is not an inventory's manifest: {0}")]
    Manifest(serde_json::Error),
    /// The third format that S3 has.
    #[error("the inventory is in ORC, which can't be read here; have it written as CSV or Parquet")]
    Orc,
    /// A format that S3 did not have.
    #[error("the inventory is in the unknown format '{0}'; CSV and Parquet can be read")]
    UnknownFormat(String),
    /// An object can't be told without it.
    #[error("{file}: the inventory has no column '{column}'; add the field to its configuration")]
    NoColumn {
        /// Which file should have named it.
        file: String,
        /// The column's name in the inventory's format.
        column: &'static str,
    },
    /// Not what S3 writes.
    #[error("{file}: column '{column}' has an unexpected type: {found}")]
    ColumnType {
        /// The data file.
        file: String,
        /// The column's name in the inventory's format.
        column: &'static str,
        /// The type that the file has instead.
        found: String,
    },
    /// Damaged, cut short or a bad disk.
    #[error("{file}: can't read on after row {row}: {error}")]
    Read {
        /// The data file.
        file: String,
        /// Rows up to here were read; the first is 1.
        row: u64,
        /// What the disk or the decompression says.
        error: std::io::Error,
    },
    /// Its index at the end could not be read.
    #[error("{file}: not a readable Parquet file: {error}")]
    Footer {
        /// The data file.
        file: String,
        /// What the decoder says.
        error: ::parquet::errors::ParquetError,
    },
    /// A page could not be read.
    #[error("{file}: can't read on after row {row}: {error}")]
    Page {
        /// The data file.
        file: String,
        /// Rows up to here were read; the first is 1.
        row: u64,
        /// What the decoder says.
        error: ::parquet::errors::ParquetError,
    },
    /// A row that tells no object.
    #[error("{file}, row {row}: {what}")]
    Row {
        /// The data file.
        file: String,
        /// The first is 1.
        row: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// What `manifest.json` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The bucket that is listed.
    pub source_bucket: String,
    /// The bucket that holds the data files.
    pub destination_bucket: String,
    /// How to read them.
    pub format: Format,
    /// They list disjoint parts of the bucket.
    pub files: Vec<DataFile>,
}

/// How data files are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Format {
    /// Gzip, no header line.
    Csv {
        /// What the header would say.
        columns: Columns,
    },
    /// Tells its own columns.
    Parquet,
}

/// Where a CSV row has what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Columns {
    count: usize,
    key: usize,
    size: usize,
    latest: Option<usize>,
    delete_marker: Option<usize>,
    modified: Option<usize>,
    etag: Option<usize>,
    class: Option<usize>,
}

/// A part of the inventory.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
pub struct DataFile {
    /// Its key in the destination bucket.
    pub key: String,
    /// Bytes of the data file, as the manifest says.
    pub size: u64,
    /// Hexadecimal.
    #[serde(rename = "MD5checksum")]
    pub md5: Option<String>,
}

/// The JSON.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    source_bucket: String,
    destination_bucket: String,
    file_format: String,
    #[serde(default)]
    file_schema: String,
    files: Vec<DataFile>,
}

impl Manifest {
    /// Reads the JSON.
    ///
    /// # Errors
    /// It is no manifest, or one of an inventory that can't be read.
    pub fn parse(json: &[u8]) -> Result<Self, InventoryError> {
        let raw: Raw = serde_json::from_slice(json).map_err(InventoryError::Manifest)?;
        let format = match raw.file_format.to_ascii_uppercase().as_str() {
            "CSV" => Format::Csv {
                columns: Columns::parse(&raw.file_schema)?,
            },
            "PARQUET" => Format::Parquet,
            "ORC" => return Err(InventoryError::Orc),
            _ => return Err(InventoryError::UnknownFormat(raw.file_format)),
        };
        Ok(Self {
            destination_bucket: bucket_name(raw.destination_bucket),
            source_bucket: bucket_name(raw.source_bucket),
            format,
            files: raw.files,
        })
    }
}

impl Columns {
    fn parse(schema: &str) -> Result<Self, InventoryError> {
        let names: Vec<&str> = schema.split(',').map(str::trim).collect();
        let find = |wanted: &str| names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
        let need = |column: &'static str| {
            find(column).ok_or_else(|| InventoryError::NoColumn {
                file: MANIFEST.to_owned(),
                column,
            })
        };
        Ok(Self {
            count: names.len(),
            key: need("Key")?,
            size: need("Size")?,
            latest: find("IsLatest"),
            delete_marker: find("IsDeleteMarker"),
            modified: find("LastModifiedDate"),
            etag: find("ETag"),
            class: find("StorageClass"),
        })
    }
}

/// Gives each current object of a data file on local disk to `each`, which may stop it.
///
/// `name` is what errors call the file.
///
/// # Errors
/// The file can't be read, or a row tells no object. The objects before it were given.
pub fn read(
    manifest: &Manifest,
    name: &str,
    file: File,
    each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), InventoryError> {
    match &manifest.format {
        Format::Csv { columns } => csv::read(columns, name, file, each),
        Format::Parquet => parquet::read(name, file, each),
    }
}

/// Gives a row's object, if it is a current one, to `each`.
fn give(
    file: &str,
    row: u64,
    entry: Result<Option<Entry>, String>,
    each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, InventoryError> {
    let entry = entry.map_err(|what| InventoryError::Row {
        file: file.to_owned(),
        row,
        what,
    })?;
    Ok(entry.map_or(ControlFlow::Continue(()), each))
}

/// From an ARN, whatever its partition.
fn bucket_name(mut text: String) -> String {
    if text.starts_with("arn:")
        && let Some(colon) = text.rfind(':')
    {
        text.drain(..=colon);
    }
    text
}

/// Text of a column; `None` if there is none.
fn text(bytes: &[u8], column: &str) -> Result<Option<String>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad_value(column, bytes))?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// As a listing would tell it: inventories leave the quotes out.
fn quoted(etag: String) -> String {
    if etag.ends_with('"') {
        etag
    } else {
        format!("\"{etag}\"")
    }
}

fn no_value(column: &str) -> String {
    format!("column '{column}' is empty")
}

fn bad_value(column: &str, value: &[u8]) -> String {
    format!("column '{column}' can't be '{}'", value.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const EVERYTHING: &str =
        "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass";

    pub(super) fn manifest(format: &str, schema: &str) -> Result<Manifest, InventoryError> {
        let json = serde_json::json!({
            "sourceBucket": "lab",
            "destinationBucket": "arn:aws-cn:s3:::lab-inventory",
            "version": "2016-11-30",
            "creationTimestamp": "1514944800000",
            "fileFormat": format,
            "fileSchema": schema,
            "files": [
                { "key": "lab/all/data/1.csv.gz", "size": 2_147_483_647, "MD5checksum": "f11166069f1990abeb9c97ace9cdfabc" },
                { "key": "lab/all/data/2.csv.gz", "size": 7 },
            ],
        });
        Manifest::parse(json.to_string().as_bytes())
    }

    /// What a data file tells, up to the error if there is one.
    pub(super) fn collect(manifest: &Manifest, file: File) -> (Vec<Entry>, Result<(), InventoryError>) {
        let mut entries = Vec::new();
        let result = read(manifest, "data/1", file, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        });
        (entries, result)
    }

    #[test]
    fn a_manifest_says_where_and_what_the_data_files_are() {
        let manifest = manifest("CSV", EVERYTHING).unwrap();
        assert_eq!(manifest.source_bucket, "lab");
        assert_eq!(manifest.destination_bucket, "lab-inventory");
        assert_eq!(
            manifest.format,
            Format::Csv {
                columns: Columns {
                    count: 9,
                    key: 1,
                    size: 5,
                    latest: Some(3),
                    delete_marker: Some(4),
                    modified: Some(6),
                    etag: Some(7),
                    class: Some(8),
                }
            }
        );
        assert_eq!(
            manifest.files,
            [
                DataFile {
                    key: "lab/all/data/1.csv.gz".to_owned(),
                    size: 2_147_483_647,
                    md5: Some("f11166069f1990abeb9c97ace9cdfabc".to_owned()),
                },
                DataFile {
                    key: "lab/all/data/2.csv.gz".to_owned(),
                    size: 7,
                    md5: None,
                },
            ]
        );
    }

    #[test]
    fn a_parquet_manifest_needs_no_schema() {
        assert_eq!(manifest("Parquet", "").unwrap().format, Format::Parquet);
    }

    #[test]
    fn inventories_that_cant_be_read_are_refused() {
        let orc = manifest("ORC", "struct<bucket:string,key:string>").unwrap_err();
        assert!(matches!(orc, InventoryError::Orc));
        assert!(orc.to_string().contains("CSV or Parquet"), "{orc}");
        let unknown = manifest("Avro", "").unwrap_err().to_string();
        assert!(unknown.contains("'Avro'"), "{unknown}");
        let no_json = Manifest::parse(b"{").unwrap_err().to_string();
        assert!(no_json.contains("manifest.json"), "{no_json}");
    }

    #[test]
    fn a_schema_without_a_needed_column_is_refused_by_its_name() {
        for (schema, column) in [("Bucket, Size", "'Key'"), ("Bucket, Key", "'Size'"), ("", "'Key'")] {
            let error = manifest("CSV", schema).unwrap_err().to_string();
            assert!(error.contains(column) && error.contains("manifest.json"), "{error}");
        }
    }

    #[test]
    fn an_etag_gets_its_quotes_once() {
        assert_eq!(quoted("d41d-2".to_owned()), "\"d41d-2\"");
        assert_eq!(quoted("\"d41d\"".to_owned()), "\"d41d\"");
    }
}
