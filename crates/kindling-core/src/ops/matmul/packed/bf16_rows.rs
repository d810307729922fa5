//! Rounding of whole matrices to bf16.

use crate::ops::{RowsMut, Tasks, split_rows};
use crate::pool::Pool;
use crate::simd::bf16;

/// Rounds values to bf16, on all threads.
pub(crate) fn round_to_bf16(pool: &Pool, values: &[f32]) -> Vec<u16> {
    let mut rounded = vec![0; values.len()];
    let tasks = Tasks::of_rows(values.len(), 1);
    split_rows(pool, tasks, RowsMut::new(&mut rounded, 1), |range, rounded| {
        bf16::round_all(rounded, &values[range]);
    });
    rounded
}
