//! Files that commands write: reports, and what they go on from.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// A file for lines, begun anew or gone on with.
///
/// # Errors
/// It can't be made.
pub fn open_lines(path: &Path, append: bool) -> io::Result<File> {
    File::options()
        .create(true)
        .write(true)
        .append(append)
        .truncate(!append)
        .open(path)
}

/// Replaces a file's content at once or not at all.
///
/// # Errors
/// The directory takes no file, or its disk none of the bytes.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
