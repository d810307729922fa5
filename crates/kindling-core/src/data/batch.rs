//! A batch: token ids `x` and targets, both (`batch_size`, `seq_length`), row-major.

use crate::buffer::zeroed_vec;
use crate::{Error, Result};

/// Maximum number of tokens in a batch from a store.
const LARGEST: usize = i32::MAX as usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub x: Vec<u32>,
    /// The token after each of `x`, or -100 where the loss ignores it.
    pub targets: Vec<i32>,
    pub batch_size: usize,
    pub seq_length: usize,
}

impl Batch {
    /// Creates a batch of `batch_size` rows of equal length.
    ///
    /// # Errors
    /// Returns `ERR_SHAPE_MISMATCH` if the arrays differ in length, and `ERR_INVALID_ARGUMENT` if
    /// they are not rows of equal length.
    pub fn new(x: Vec<u32>, targets: Vec<i32>, batch_size: usize) -> Result<Self> {
        if x.len() != targets.len() {
            let (expected, actual) = (x.len(), targets.len());
            return Err(Error::ShapeMismatch { op: "batch", what: "y", expected, actual });
        }
        if batch_size == 0 || x.is_empty() || !x.len().is_multiple_of(batch_size) {
            return Err(Error::argument(format!(
                "{} tokens cannot be divided into {batch_size} rows of equal length",
                x.len()
            )));
        }
        let seq_length = x.len() / batch_size;
        Ok(Self { x, targets, batch_size, seq_length })
    }

    /// Creates a batch to be filled row by row.
    pub(super) fn zeros(batch_size: usize, seq_length: usize) -> Result<Self> {
        let Some(tokens) = batch_size.checked_mul(seq_length).filter(|&tokens| tokens <= LARGEST)
        else {
            return Err(Error::argument(format!(
                "a batch of {batch_size} x {seq_length} tokens is too large; \
                 lower batch_size or seq_length"
            )));
        };
        Self::new(zeroed_vec(tokens)?, zeroed_vec(tokens)?, batch_size)
    }

    /// Returns row `row` of `x` and `targets`.
    pub(super) fn row_mut(&mut self, row: usize) -> (&mut [u32], &mut [i32]) {
        let tokens = row * self.seq_length..(row + 1) * self.seq_length;
        (&mut self.x[tokens.clone()], &mut self.targets[tokens])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_too_large_for_any_memory_are_errors_at_once() {
        for (rows, length) in [(1 << 31, 1), (1_000_000_000, 256), (usize::MAX, 2), (3, 1 << 30)] {
            let error = Batch::zeros(rows, length).unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_ARGUMENT", "{rows} {length}");
        }
    }

    #[test]
    fn rows_of_unequal_length_are_errors() {
        assert_eq!(Batch::new(vec![1; 6], vec![1; 6], 2).unwrap().seq_length, 3);
        for (x, y, rows) in [(6, 5, 1), (5, 5, 2), (0, 0, 1), (4, 4, 0)] {
            assert!(Batch::new(vec![1; x], vec![1; y], rows).is_err(), "{x} {y} {rows}");
        }
    }
}
