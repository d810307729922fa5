//! Reads, encodes and writes blocks concurrently.
//!
//! ```text
//! each thread:
//!   while the queue has room:
//!     lock the reader, read block i, unlock
//!     encode block i
//!     lock the queue, insert (i, ids)
//!     if no thread is writing:
//!       while the next block to be written is in the queue:
//!         take it out, unlock, write it, lock
//! ```
//!
//! 1. No thread is reserved for reading or writing. Each does whatever work there is, so n threads
//!    keep n cores busy.
//! 2. Blocks are written in the order of the text, so the result does not depend on the number of
//!    threads.
//! 3. The queue is bounded, so that blocks do not pile up behind one that takes long. The thread
//!    with that block never waits for room, so there is no deadlock.
//! 4. The ids of a long text are written while it is encoded. Its thread first waits until all
//!    blocks before it are written. No other thread writes in the meantime, since this block is
//!    next.
//! 5. An error takes the place of its block in the queue, so the first error in the order of the
//!    text is reported, whichever thread fails first.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::documents::{DocumentEncoder, Encoded};
use crate::corpus::blocks::{Block, BlockReader, LongBlock};
use crate::corpus::inputs::Input;
use crate::progress::Report;
use crate::{Error, Result};

/// Maximum number of queued blocks per thread.
const QUEUED: usize = 4;

/// Shared context for encoding every block.
pub(super) struct Shared<'a> {
    pub inputs: &'a [Input],
    pub encoder: &'a DocumentEncoder<'a>,
    pub threads: usize,
    pub report: Report<'a>,
}

/// Encodes all `blocks` and passes them to `write` in order.
pub(super) fn run(
    shared: &Shared<'_>,
    blocks: BlockReader<'_>,
    write: impl FnMut(&Encoded) -> Result<()> + Send,
) -> Result<()> {
    let pipeline = Pipeline {
        shared,
        blocks: Mutex::new(blocks),
        queue: Mutex::default(),
        has_room: Condvar::new(),
        written: Condvar::new(),
        write: Mutex::new(write),
        capacity: QUEUED * shared.threads,
    };
    std::thread::scope(|scope| {
        for _ in 1..shared.threads {
            // If the system allows no more threads, fewer do the work.
            if std::thread::Builder::new().spawn_scoped(scope, || pipeline.work()).is_err() {
                break;
            }
        }
        pipeline.work();
    });
    let queue = pipeline.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.failed.map_or(Ok(()), Err)
}

struct Pipeline<'a, W> {
    shared: &'a Shared<'a>,
    blocks: Mutex<BlockReader<'a>>,
    queue: Mutex<Queue>,
    /// Notified when the queue has room for another block.
    has_room: Condvar,
    /// Notified when all blocks that were ready have been written.
    written: Condvar,
    write: Mutex<W>,
    capacity: usize,
}

/// Encoded blocks that wait for the blocks before them.
#[derive(Default)]
struct Queue {
    blocks: BTreeMap<u64, Result<Encoded>>,
    /// The index of the next block to be written.
    next: u64,
    /// Whether some thread is writing.
    writing: bool,
    /// The first error in the order of the text.
    failed: Option<Error>,
    /// Buffers of written blocks, for reuse.
    free: Vec<Encoded>,
}

/// Stops the other threads if this one panics.
struct PanicGuard<'a>(&'a Mutex<Queue>, [&'a Condvar; 2]);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = Error::Internal("a thread that encodes text panicked".to_owned());
            lock(self.0).failed = Some(error);
            self.1.iter().for_each(|condition| condition.notify_all());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: FnMut(&Encoded) -> Result<()>> Pipeline<'_, W> {
    /// Encodes blocks until there are no more.
    fn work(&self) {
        let _guard = PanicGuard(&self.queue, [&self.has_room, &self.written]);
        while let Some(mut encoded) = self.free_buffers() {
            let (index, block) = {
                let mut blocks = lock(&self.blocks);
                let next = blocks.next(std::mem::take(&mut encoded.block.bytes));
                match next {
                    Ok(None) => return,
                    Ok(Some(block)) => (block.index, Ok(block)),
                    // No blocks follow this error.
                    Err(error) => (blocks.count(), Err(error)),
                }
            };
            let result = block.and_then(|block| {
                Error::catch("a thread that encodes text", || self.encode(block, &mut encoded))
            });
            let failed = result.is_err();
            self.finish(index, result.map(|()| encoded));
            if failed {
                return;
            }
        }
    }

    /// Waits for room in the queue, and returns buffers for a block, or `None` after an error.
    fn free_buffers(&self) -> Option<Encoded> {
        let mut queue = lock(&self.queue);
        while queue.failed.is_none() && queue.blocks.len() >= self.capacity {
            queue = self.has_room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.failed.is_some() { None } else { Some(queue.free.pop().unwrap_or_default()) }
    }

    fn encode(&self, block: Block, encoded: &mut Encoded) -> Result<()> {
        let Shared { inputs, encoder, report, .. } = *self.shared;
        let input = &inputs[block.input];
        let Some(LongBlock { text, done_before, done_after, total }) = &block.long else {
            return encoder.encode(block, input, encoded, &mut |_, _| Ok(()));
        };
        if !self.wait_until_next(block.index) {
            return Ok(());
        }
        let (length, done_before, total) = (text.len().max(1) as f64, *done_before, *total);
        let disk_bytes = (done_after - done_before) as f64;
        encoder.encode(block, input, encoded, &mut |ids, at| {
            let mut piece = Encoded { ids: std::mem::take(ids), ..Encoded::default() };
            (lock(&self.write))(&piece)?;
            piece.ids.clear();
            *ids = piece.ids;
            report(done_before + (at as f64 / length * disk_bytes) as u64, total)
        })
    }

    /// Waits until all blocks before `index` have been written. Returns false after an error.
    fn wait_until_next(&self, index: u64) -> bool {
        let mut queue = lock(&self.queue);
        while queue.failed.is_none() && (queue.next != index || queue.writing) {
            queue = self.written.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.failed.is_none()
    }

    /// Queues a block. Unless another thread is writing, writes all queued blocks that are next.
    fn finish(&self, index: u64, result: Result<Encoded>) {
        let mut queue = lock(&self.queue);
        queue.blocks.insert(index, result);
        if std::mem::replace(&mut queue.writing, true) {
            return;
        }
        loop {
            let next = queue.next;
            let Some(result) = queue.blocks.remove(&next) else {
                queue.writing = false;
                self.written.notify_all();
                return;
            };
            queue.next += 1;
            drop(queue);
            self.has_room.notify_one();
            let written = result.and_then(|encoded| {
                (lock(&self.write))(&encoded)?;
                Ok(encoded)
            });
            queue = lock(&self.queue);
            match written {
                Ok(encoded) => queue.free.push(encoded),
                Err(error) => {
                    queue.failed = Some(error);
                    self.has_room.notify_all();
                    self.written.notify_all();
                    return;
                }
            }
        }
    }
}
