//! Reading, encoding and writing at the same time: every thread takes the next block, encodes it, and whoever finishes the
//! block whose turn it is writes it, with those after it that are ready. No thread only waits, so two cores do the work of
//! two, and the order of the blocks alone decides what is written.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Report;
use super::blocks::{Block, Blocks, Long};
use super::documents::{Documents, Encoded};
use super::inputs::Input;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Blocks for each thread that may wait for their turn.
const WAITING: usize = 4;

/// What the threads share.
struct Pipeline<'a, W> {
    blocks: Mutex<Blocks<'a>>,
    turns: Mutex<Turns>,
    /// Told when there is room for more blocks.
    room: Condvar,
    /// Told when it may be the turn of a block that is written while it is encoded.
    turn: Condvar,
    write: Mutex<W>,
    most: usize,
}

/// Blocks that wait for their turn.
#[derive(Default)]
struct Turns {
    waiting: BTreeMap<u64, Result<Encoded>>,
    next: u64,
    writing: bool,
    /// The first error in the order of the text.
    failed: Option<Error>,
    /// Buffers to be used again.
    free: Vec<Encoded>,
}

/// What is the same for every block.
pub(super) struct Work<'a> {
    pub inputs: &'a [Input],
    pub documents: &'a Documents<'a>,
    pub tokenizer: &'a Tokenizer,
    pub threads: usize,
    pub report: Report<'a>,
}

/// Encodes all `blocks`; `write` gets them in order.
pub(super) fn run(
    work: &Work<'_>,
    blocks: Blocks<'_>,
    write: impl FnMut(&Encoded) -> Result<()> + Send,
) -> Result<()> {
    work.tokenizer.expect_much_text();
    let pipeline = Pipeline {
        blocks: Mutex::new(blocks),
        turns: Mutex::default(),
        room: Condvar::new(),
        turn: Condvar::new(),
        write: Mutex::new(write),
        most: WAITING * work.threads,
    };
    std::thread::scope(|scope| {
        for _ in 1..work.threads {
            scope.spawn(|| pipeline.work(work));
        }
        pipeline.work(work);
    });
    let turns = pipeline.turns.into_inner().unwrap_or_else(PoisonError::into_inner);
    turns.failed.map_or(Ok(()), Err)
}

/// Ends the other threads' waiting if one panics.
struct Guard<'a>(&'a Mutex<Turns>, [&'a Condvar; 2]);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(self.0).failed =
                Some(Error::Internal("a thread that encodes panicked".to_owned()));
            self.1.iter().for_each(|told| told.notify_all());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: FnMut(&Encoded) -> Result<()>> Pipeline<'_, W> {
    fn work(&self, work: &Work<'_>) {
        let _guard = Guard(&self.turns, [&self.room, &self.turn]);
        while let Some(mut encoded) = self.free() {
            let (index, block) = {
                let mut blocks = lock(&self.blocks);
                let next = blocks.next(std::mem::take(&mut encoded.block.bytes));
                match next {
                    Ok(None) => return,
                    Ok(Some(block)) => (block.index, Ok(block)),
                    // No later block can be had: this error is the last in the order.
                    Err(error) => (blocks.count(), Err(error)),
                }
            };
            let result = block.and_then(|block| self.encode(work, block, &mut encoded));
            let last = result.is_err();
            self.hand_in(index, result.map(|()| encoded));
            if last {
                return;
            }
        }
    }

    /// Buffers for one more block, once there is room; none after an error.
    fn free(&self) -> Option<Encoded> {
        let mut turns = lock(&self.turns);
        while turns.failed.is_none() && turns.waiting.len() >= self.most {
            turns = self.room.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        if turns.failed.is_some() { None } else { Some(turns.free.pop().unwrap_or_default()) }
    }

    fn encode(&self, work: &Work<'_>, block: Block, encoded: &mut Encoded) -> Result<()> {
        let input = &work.inputs[block.input];
        let Some(Long { text, disk: (before, after, total) }) = &block.long else {
            return work.documents.encode(
                block,
                input,
                work.tokenizer,
                encoded,
                &mut |_, _| Ok(()),
            );
        };
        // What is encoded of a long text is written at once, so nothing may be before it.
        if !self.wait_for_turn(block.index) {
            return Ok(());
        }
        let (length, before, disk, total) =
            (text.len().max(1) as f64, *before, (after - before) as f64, *total);
        work.documents.encode(block, input, work.tokenizer, encoded, &mut |ids, at| {
            let mut piece = Encoded { ids: std::mem::take(ids), ..Encoded::default() };
            (lock(&self.write))(&piece)?;
            piece.ids.clear();
            *ids = piece.ids;
            (work.report.0)(before + (at as f64 / length * disk) as u64, total)
        })
    }

    /// Waits until all before block `index` are written; false after an error.
    fn wait_for_turn(&self, index: u64) -> bool {
        let mut turns = lock(&self.turns);
        while turns.failed.is_none() && (turns.next != index || turns.writing) {
            turns = self.turn.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        turns.failed.is_none()
    }

    /// Hands in a block, and writes all whose turn it is unless another thread does.
    fn hand_in(&self, index: u64, result: Result<Encoded>) {
        let mut turns = lock(&self.turns);
        turns.waiting.insert(index, result);
        if std::mem::replace(&mut turns.writing, true) {
            return;
        }
        loop {
            let next = turns.next;
            let Some(result) = turns.waiting.remove(&next) else {
                turns.writing = false;
                self.turn.notify_all();
                return;
            };
            turns.next += 1;
            drop(turns);
            self.room.notify_one();
            let written = result.and_then(|encoded| {
                (lock(&self.write))(&encoded)?;
                Ok(encoded)
            });
            turns = lock(&self.turns);
            match written {
                Ok(encoded) => turns.free.push(encoded),
                Err(error) => {
                    turns.failed = Some(error);
                    self.room.notify_all();
                    self.turn.notify_all();
                    return;
                }
            }
        }
    }
}
