//! A range of an open file as an HTTP body: read as it is sent, summed up on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::chunk::{ChunkLease, ChunkPool};
use super::retry::Activity;
use super::sparse::{Segment, Segments};
use super::{Part, TransferError};
use crate::store::{Checksum, ChecksumKind, Limits, Payload, Proof, ProofDigest};

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The file that is archived.
#[derive(Debug)]
pub(super) struct Source {
    file: Arc<File>,
    /// Fewer blocks than bytes: to look for holes in any other file would cost a scan of it for each part.
    sparse: bool,
}

impl Source {
    pub(super) fn new(file: &Arc<File>) -> Self {
        let sparse = file.metadata().is_ok_and(|stat| stat.blocks() * 512 < stat.size());
        Self {
            file: Arc::clone(file),
            sparse,
        }
    }
}

/// What is known of a body after it was sent: the client consumes the body itself.
#[derive(Clone, Debug)]
pub(super) struct BodyMeter(Arc<Mutex<BodyState>>);

#[derive(Debug)]
struct BodyState {
    prover: ProofDigest,
    error: Option<TransferError>,
}

impl BodyMeter {
    fn new(kind: ChecksumKind) -> Self {
        Self(Arc::new(Mutex::new(BodyState {
            prover: ProofDigest::new(kind),
            error: None,
        })))
    }

    /// Of what was sent.
    pub(super) fn checksum(&self) -> Checksum {
        self.lock().prover.checksum()
    }

    /// What the store is to compare with.
    pub(super) fn proof(&self) -> Option<Proof> {
        self.lock().prover.proof()
    }

    /// Why the file could not be read: to the client it is only a broken request.
    pub(super) fn take_error(&self) -> Option<TransferError> {
        self.lock().error.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BodyState> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The body. Reading blocks, which is what this thread is for.
#[derive(Debug)]
pub(super) struct FileBody {
    /// Not kept open by it: a request that was dropped lives on in its connection until that is used again, which may
    /// be hours, and a file that is open can't be released.
    file: Weak<File>,
    sparse: bool,
    at: u64,
    end: u64,
    segments: Segments,
    chunk: usize,
    flight: ChunkLease,
    limits: Arc<Limits>,
    /// Until there is bandwidth.
    nap: Option<Pin<Box<Sleep>>>,
    meter: BodyMeter,
    activity: Arc<Activity>,
}

/// How a store wants a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// What it compares.
    pub(super) kind: ChecksumKind,
    /// It takes the checksum behind the bytes.
    pub(super) chunked: bool,
}

/// A part of `source` to be sent, and what will be known of it.
///
/// # Errors
/// A part that fits into one chunk is read here, and one whose checksum must be known before.
pub(super) fn payload(
    source: &Source,
    part: Part,
    Form { kind, chunked }: Form,
    chunks: &ChunkPool,
    limits: &Arc<Limits>,
    activity: &Arc<Activity>,
) -> Result<(BodyMeter, Payload<FileBody>), TransferError> {
    let meter = BodyMeter::new(kind);
    let small = usize::try_from(part.length)
        .ok()
        .filter(|length| *length <= chunks.size());
    if let (Some(length), Some(mut chunk)) = (small, chunks.flight().take(Waker::noop())) {
        source
            .file
            .read_exact_at(chunk.room(length), part.offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => TransferError::Changed,
                _ => TransferError::Read(error),
            })?;
        let bytes = chunk.into_bytes(length);
        meter.lock().prover.update(&bytes);
        let proof = meter.proof();
        return Ok((meter, Payload::Whole(bytes, proof)));
    }
    let body = FileBody {
        file: Arc::downgrade(&source.file),
        sparse: source.sparse,
        at: part.offset,
        end: part.offset + part.length,
        segments: Segments::default(),
        chunk: chunks.size(),
        flight: chunks.flight(),
        limits: Arc::clone(limits),
        nap: None,
        meter: meter.clone(),
        activity: Arc::clone(activity),
    };
    if !chunked && kind != ChecksumKind::None {
        let payload = Payload::Proven {
            proof: proof_of(&body, kind, activity)?,
            body,
            length: part.length,
        };
        return Ok((meter, payload));
    }
    let at_end = meter.clone();
    let payload = Payload::Stream {
        body,
        length: part.length,
        proof: Box::new(move || at_end.proof()),
    };
    Ok((meter, payload))
}

/// Of the bytes that a body is about to send, which are then in the page cache.
fn proof_of(body: &FileBody, kind: ChecksumKind, activity: &Activity) -> Result<Option<Proof>, TransferError> {
    let file = body.file.upgrade().ok_or_else(nobody)?;
    let mut prover = ProofDigest::new(kind);
    let mut buffer = vec![0; body.chunk];
    let mut at = body.at;
    while at < body.end {
        let most = usize::try_from(body.end - at).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        match file.read_at(room, at) {
            Ok(0) => return Err(TransferError::Changed),
            Ok(n) => {
                prover.update(room.get(..n).unwrap_or_default());
                at += n as u64;
                activity.note();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TransferError::Read(error)),
        }
    }
    Ok(prover.proof())
}

fn nobody() -> TransferError {
    TransferError::Read(io::Error::other("nobody sends it any more"))
}

impl FileBody {
    /// For the next chunk; a time to wait when there is none.
    fn take_bandwidth(&self) -> Option<Pin<Box<Sleep>>> {
        let next = (self.end - self.at).min(self.chunk as u64);
        let wait = self.limits.upload.take(next).err()?;
        self.activity.note();
        Some(Box::pin(tokio::time::sleep(wait)))
    }

    /// `None`: the chunks are all on their way.
    fn read(&mut self, waker: &Waker) -> Result<Option<Bytes>, TransferError> {
        let file = self.file.upgrade().ok_or_else(nobody)?;
        let left = self.end - self.at;
        let segment = match self.sparse {
            true => self.segments.at(&file, self.at, self.end),
            false => Segment::Data(left),
        };
        let clip = |length: u64, most: usize| usize::try_from(length).unwrap_or(usize::MAX).min(most);
        match segment {
            Segment::Hole(length) => {
                let n = clip(length, ZEROS.len());
                Ok(Some(Bytes::from_static(ZEROS.get(..n).unwrap_or(&ZEROS))))
            }
            Segment::Data(length) => {
                let Some(mut chunk) = self.flight.take(waker) else {
                    return Ok(None);
                };
                let n = clip(length, self.chunk);
                loop {
                    match file.read_at(chunk.room(n), self.at) {
                        Ok(0) => return Err(TransferError::Changed),
                        Ok(n) => return Ok(Some(chunk.into_bytes(n))),
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

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        while let Some(nap) = &mut self.nap {
            ready!(nap.as_mut().poll(context));
            self.nap = self.take_bandwidth();
        }
        match self.read(context.waker()) {
            Ok(None) => Poll::Pending,
            Ok(Some(bytes)) => {
                self.at += bytes.len() as u64;
                self.activity.note();
                self.nap = self.take_bandwidth();
                self.meter.lock().prover.update(&bytes);
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
