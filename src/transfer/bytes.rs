//! Objects that are held in memory: small by nature, made and read with the same care as files' copies.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{NoLog, Transfer, TransferError, Upload};
use crate::store::{Condition, KeyAt, Location};

/// What is read at most; a sidecar holds extended attributes, which Linux limits to 64 KiB each.
const MOST: u64 = 16 << 20;

impl Transfer<'_> {
    /// Writes an object, in the bucket's own storage class: it is not a file's data.
    ///
    /// # Errors
    /// What an archive fails with.
    pub fn put_bytes(
        self,
        KeyAt { archive_id, key }: KeyAt<'_>,
        condition: Condition,
        body: &[u8],
        metadata: HashMap<String, String>,
    ) -> Result<(), TransferError> {
        let file = || -> std::io::Result<Arc<File>> {
            let mut file = File::from(memfd_create(c"lhsmtool-s3", MFdFlags::MFD_CLOEXEC)?);
            file.write_all(body)?;
            Ok(Arc::new(file))
        };
        let file = file().map_err(TransferError::Write)?;
        let to = Upload {
            archive_id,
            key: key.clone(),
            condition,
            metadata,
            is_data: false,
            log: Arc::new(NoLog),
        };
        self.alone().upload(&file, body.len() as u64, &to).map(drop)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// What a restore fails with.
    pub fn get_bytes(self, at: KeyAt<'_>) -> Result<Vec<u8>, TransferError> {
        let mut bytes = Vec::new();
        self.fetch_file(at)?
            .take(MOST)
            .read_to_end(&mut bytes)
            .map_err(TransferError::Write)?;
        Ok(bytes)
    }

    /// Some bytes of an object, by one request.
    ///
    /// # Errors
    /// [`StoreError::RangeIgnored`](crate::store::StoreError::RangeIgnored) where the store sends nothing but whole objects.
    pub fn get_range(self, from: &Location, offset: u64, length: u64) -> Result<Vec<u8>, TransferError> {
        let store = self.store(from.archive_id)?;
        self.ask(store, async |activity| {
            let mut body = store.get(from, offset, length).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = body.next().await {
                activity.note();
                bytes.extend_from_slice(&chunk?);
                if bytes.len() as u64 > length {
                    return Err(body.other_length("more", length).into());
                }
            }
            Ok(bytes)
        })
    }
}
