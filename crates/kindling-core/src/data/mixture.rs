//! The batches of a run from one store, or from a mixture of several.
//!
//! In a mixture, the store of each row is drawn by weight from (seed, row), and each store proceeds
//! through its own windows. A batch depends only on the seed and the step, not on earlier calls,
//! prefetching or threads. So nothing is saved for resuming; going to step n counts the rows of
//! each store before it (10 ns per row).

use std::sync::{Arc, Mutex, PoisonError};

use super::batch::Batch;
use super::token_store::TokenStore;
use super::window_order::{BatchSpec, WindowOrder, WindowStarts, check_shape, starts};
use crate::random::{Purpose, uniform};
use crate::{Error, Result};

/// Options for all batches of a run.
#[derive(Debug, Clone, Copy)]
pub struct LoaderOptions {
    /// Windows per batch.
    pub batch_size: usize,
    /// Tokens per window.
    pub seq_length: usize,
    /// The seed of the run.
    pub seed: u64,
    /// Batches per step.
    pub accumulate: u32,
    pub order: WindowOrder,
    /// Batches prefetched on a separate thread; 0 disables it.
    pub prefetch: usize,
}

/// The step and the micro-batch of a batch.
pub(super) type BatchIndex = (u64, u32);

/// One store of a mixture.
#[derive(Debug)]
struct MixturePart {
    store: Arc<TokenStore>,
    starts: WindowStarts,
    /// The sum of the normalized weights up to and including this part's. A draw below it, but not
    /// below that of the previous part, selects this part.
    below: f64,
}

/// The stores of a run.
#[derive(Debug)]
pub(super) struct Mixture {
    parts: Vec<MixturePart>,
    pub options: LoaderOptions,
    /// A number of rows from the start of the run, and how many of them belong to each part.
    counted: Mutex<(u64, Vec<u64>)>,
}

impl Mixture {
    pub fn new(stores: Vec<(Arc<TokenStore>, f64)>, options: LoaderOptions) -> Result<Self> {
        check_shape(options.batch_size, options.seq_length)?;
        if stores.is_empty() || options.accumulate == 0 {
            return Err(Error::argument(
                "a loader needs at least one store and one batch per step (accumulate)",
            ));
        }
        if let Some((_, weight)) =
            stores.iter().find(|(_, weight)| !(weight.is_finite() && *weight > 0.0))
        {
            return Err(Error::argument(format!(
                "the weight of a store is {weight}; it must be above 0"
            )));
        }
        let total: f64 = stores.iter().map(|(_, weight)| weight).sum();
        let (mut below, mut parts) = (0.0, Vec::with_capacity(stores.len()));
        for (store, weight) in stores {
            below += weight / total;
            let starts = WindowStarts::new(store.len(), options.seq_length, options.seed)?;
            parts.push(MixturePart { store, starts, below });
        }
        let counted = Mutex::new((0, vec![0; parts.len()]));
        Ok(Self { parts, options, counted })
    }

    /// Returns the index of the batch after this one.
    pub fn following(&self, (step, micro_batch): BatchIndex) -> BatchIndex {
        if micro_batch + 1 < self.options.accumulate {
            (step, micro_batch + 1)
        } else {
            (step + 1, 0)
        }
    }

    /// Loads a batch.
    pub fn batch(&self, index: BatchIndex) -> Result<Batch> {
        let spec = self.spec(index);
        if let [part] = &self.parts[..] {
            return part.store.batch(&spec);
        }
        let mut batch = Batch::zeros(spec.batch_size, spec.seq_length)?;
        for (row, (number, start)) in self.windows(index)?.into_iter().enumerate() {
            self.parts[number].store.read_window(start, batch.row_mut(row))?;
        }
        Ok(batch)
    }

    /// Returns, for each window of a batch, the index of its store and the token at which it
    /// starts.
    pub fn windows(&self, index: BatchIndex) -> Result<Vec<(usize, u64)>> {
        let spec = self.spec(index);
        if let [part] = &self.parts[..] {
            let starts = starts(part.store.len(), &spec)?;
            return Ok(starts.into_iter().map(|start| (0, start)).collect());
        }
        let (first, rows) = (spec.first_row()?, spec.batch_size as u64);
        let mut counts = self.counts(first);
        let windows = (first..first + rows).map(|row| {
            let number = self.part_of(row);
            let start = self.parts[number].starts.start(spec.order, counts[number], 0);
            counts[number] += 1;
            (number, start)
        });
        let windows = windows.collect();
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = (first + rows, counts);
        Ok(windows)
    }

    fn spec(&self, (step, micro_batch): BatchIndex) -> BatchSpec {
        let LoaderOptions { batch_size, seq_length, seed, accumulate, order, .. } = self.options;
        BatchSpec { batch_size, seq_length, seed, step, micro_batch, accumulate, order }
    }

    /// Returns the index of the part that `row` of the run belongs to.
    fn part_of(&self, row: u64) -> usize {
        let draw = uniform(self.options.seed, Purpose::Mixture, row, 0);
        self.parts[..self.parts.len() - 1].partition_point(|part| part.below <= draw)
    }

    /// Returns how many of the rows before `row` belong to each part.
    fn counts(&self, row: u64) -> Vec<u64> {
        let (mut counted, mut counts) =
            self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if counted > row {
            counted = 0;
            counts.fill(0);
        }
        for row in counted..row {
            counts[self.part_of(row)] += 1;
        }
        counts
    }
}
