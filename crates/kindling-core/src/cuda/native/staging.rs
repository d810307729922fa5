//! Copies to the device that return at once: through memory the GPU can read by itself, a ring of pieces of it.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc;
use cudarc::driver::{CudaEvent, CudaStream, DriverError, PinnedHostSlice, result};

use super::failed;
use crate::Result;

/// Pieces of the ring. A step of training copies about a dozen times, so the host is some steps ahead at most.
const PIECES: usize = 48;
/// Largest copy that goes through the ring; a larger one waits for the device.
const MOST_BYTES: usize = 4 << 20;

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Staging {
    pieces: Vec<Option<Piece>>,
    next: usize,
    /// Bytes of the largest copy so far. A new piece has room for as much: giving one back for a larger one waits for the
    /// device, and would happen again and again as copies of all sizes go round.
    largest: usize,
}

/// Memory for one copy, in use until `copied` has come to pass.
#[derive(Debug)]
struct Piece {
    memory: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl Staging {
    /// Queues a copy of `from`, whose memory is free again on return.
    pub fn upload(&mut self, stream: &Arc<CudaStream>, pointer: u64, from: &[u8]) -> Result<()> {
        if from.len() > MOST_BYTES {
            // SAFETY: the callers own as many bytes at `pointer`, and `from` stays until the copy is done.
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
        // SAFETY: the callers own as many bytes at `pointer`; the piece is not written to before `copied`.
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
