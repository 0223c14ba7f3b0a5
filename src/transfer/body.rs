//! A range of an open file as an HTTP body: read as it is sent, checksummed on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use http_body::{Frame, SizeHint};

use super::retry::Activity;
use super::sparse::{Segment, Segments};
use super::{Part, TransferError};
use crate::store::Checksum;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What is known of a body after it was sent: the client consumes the body itself.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    digest: Digest,
    error: Option<TransferError>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            digest: Digest::new(CrcAlgorithm::Crc64Nvme),
            error: None,
        })))
    }

    /// Of what was sent.
    pub(super) fn checksum(&self) -> Checksum {
        Checksum(self.lock().digest.finalize())
    }

    /// Why the file could not be read: to the client it is only a broken request.
    pub(super) fn take_error(&self) -> Option<TransferError> {
        self.lock().error.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The body. Reading blocks, which is what this thread is for.
#[derive(Debug)]
pub(super) struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    chunk: usize,
    segments: Segments,
    buffer: BytesMut,
    meter: Meter,
    activity: Arc<Activity>,
}

impl FileBody {
    pub(super) fn new(file: Arc<File>, part: Part, chunk: usize, meter: Meter, activity: Arc<Activity>) -> Self {
        Self {
            file,
            at: part.offset,
            end: part.offset + part.length,
            chunk,
            segments: Segments::default(),
            buffer: BytesMut::new(),
            meter,
            activity,
        }
    }

    fn read(&mut self) -> Result<Bytes, TransferError> {
        match self.segments.at(&self.file, self.at, self.end) {
            Segment::Hole(length) => {
                let n = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
                Ok(Bytes::from_static(ZEROS.get(..n).unwrap_or(&ZEROS)))
            }
            Segment::Data(length) => {
                let n = usize::try_from(length).unwrap_or(usize::MAX).min(self.chunk);
                self.buffer.resize(n, 0);
                loop {
                    match self.file.read_at(&mut self.buffer, self.at) {
                        Ok(0) => return Err(TransferError::Changed),
                        Ok(n) => return Ok(self.buffer.split_to(n).freeze()),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(TransferError::Read(error)),
                    }
                }
            }
        }
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        match self.read() {
            Ok(bytes) => {
                self.at += bytes.len() as u64;
                self.activity.note();
                self.meter.lock().digest.update(&bytes);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => {
                let text = error.to_string();
                self.meter.lock().error = Some(error);
                Poll::Ready(Some(Err(io::Error::other(text))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
