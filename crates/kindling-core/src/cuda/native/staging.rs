//! Asynchronous uploads through a ring of pinned buffers.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, DriverError, PinnedHostSlice, result};

use super::error::failed;
use crate::Result;

/// Number of buffers in the ring. A training step uploads about a dozen times, so the host runs at
/// most a few steps ahead.
const PIECES: usize = 48;
/// Largest upload that goes through the ring. A larger one waits for the device.
const MOST_BYTES: usize = 4 << 20;

/// The ring of pinned buffers.
#[derive(Debug, Default)]
pub(super) struct Staging {
    pieces: Vec<Option<Piece>>,
    next: usize,
    /// Size of the largest upload so far. A new buffer is at least this large: replacing a small
    /// one waits for the device, and would recur as uploads of all sizes pass through the ring.
    largest: usize,
}

/// A pinned buffer, in use until `copied` has fired.
#[derive(Debug)]
struct Piece {
    memory: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl Staging {
    /// Queues a copy of `from`, which may be reused on return.
    pub fn upload(&mut self, stream: &Arc<CudaStream>, pointer: u64, from: &[u8]) -> Result<()> {
        if from.len() > MOST_BYTES {
            // SAFETY: the caller owns that many bytes at `pointer`, and `from` outlives the copy.
            return unsafe { result::memcpy_htod_async(pointer, from, stream.cu_stream()) }
                .and_then(|()| stream.synchronize())
                .map_err(failed);
        }
        self.queue(stream, pointer, from).map_err(failed)
    }

    fn queue(
        &mut self,
        stream: &Arc<CudaStream>,
        pointer: u64,
        from: &[u8],
    ) -> Result<(), DriverError> {
        self.pieces.resize_with(PIECES, || None);
        self.largest = self.largest.max(from.len());
        let place = &mut self.pieces[self.next];
        self.next = (self.next + 1) % PIECES;
        if let Some(piece) = place {
            piece.copied.synchronize()?;
        }
        let piece = match place.take().filter(|piece| piece.memory.len() >= from.len()) {
            Some(piece) => place.insert(piece),
            None => place.insert(Piece::new(stream, self.largest)?),
        };
        let memory = piece.memory.as_mut_slice()?;
        memory[..from.len()].copy_from_slice(from);
        // SAFETY: the caller owns that many bytes at `pointer`; the buffer is not written before
        // `copied` fires.
        unsafe { result::memcpy_htod_async(pointer, &memory[..from.len()], stream.cu_stream()) }?;
        piece.copied.record(stream)
    }
}

impl Piece {
    fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self, DriverError> {
        let context = stream.context();
        // SAFETY: the memory is written before it is read.
        let memory = unsafe { context.alloc_pinned::<u8>(bytes.next_power_of_two().max(4096)) }?;
        Ok(Self { memory, copied: context.new_event(None)? })
    }
}
