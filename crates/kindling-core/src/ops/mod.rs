//! The tensor ops of the model, one folder each: `mod.rs` (formula, shapes, checks, dispatch by
//! device), `reference.rs` (plain f64 loops, the oracle of the tests), `cpu.rs`, `cuda.cu`
//! (kernels) and `cuda.rs` (their launches).
//!
//! | op | forward | saved for backward | tests: `op_parity_*.rs` |
//! |---|---|---|---|
//! | `embedding` | ids (n), weight (v, c) -> (n, c) | ids | dense |
//! | `rms_norm` | x (n, c), weight (c) -> (n, c), also of x + residual | x, rstd (n) | layers |
//! | `linear` | x (n, i), weight (o, i), bias (o) -> (n, o) | x | dense |
//! | `rope` | in place on the heads of (n, width) | nothing | layers |
//! | `head_norm` | in place on the q and k heads of (n, width) | those heads | layers |
//! | `attention` | qkv (n, (nh + 2 nkv) hs) -> (n, nh hs) | qkv, out, lse (b, nh, t) | attention |
//! | `swiglu` | (n, 2 f) -> (n, f) | its input | layers |
//! | `cross_entropy` | logits (n, v), targets (n) -> mean loss | logits, lse (n) | loss |
//! | `output_loss` | x (n, c), weight (v, c), targets (n) -> loss, without (n, v) logits | nothing: one pass | loss |
//! | `grad_norm`, `adamw`, `sgd` | on the flat parameters | - | optimizer |
//! | `silu` | any length | its input | layers |
//! | `matmul` | a (m, k), b (k, n) -> (m, n) | a, b | dense |
//! | `softmax`, `log_softmax` | each row | output | attention |
//!
//! The model does not use the last three; they are for users of the library. `op_threads.rs` tests
//! that results do not depend on the number of threads.
//!
//! b batch, t positions, c `d_model`, nh heads, nkv key/value heads, hs head size, f `d_ff`, v
//! vocabulary, n = b t rows. A gradient is named d + the name of its tensor.
//!
//! A function takes the device and a struct of its buffers, named after the function:
//! `rms_norm::forward` takes `rms_norm::Forward`. Fields are outputs, inputs, shape. Backward
//! passes overwrite gradients of activations, and add to gradients of parameters.

pub mod adamw;
pub mod attention;
mod cast;
pub mod cross_entropy;
pub mod embedding;
pub mod grad_norm;
pub mod head_norm;
pub mod kernels;
pub mod linear;
pub mod log_softmax;
pub mod matmul;
pub mod output_loss;
pub mod rms_norm;
pub mod rope;
mod scratch;
pub mod sgd;
pub mod silu;
pub mod softmax;
mod split;
pub mod swiglu;
mod tasks;

pub use cast::cast;
pub(crate) use scratch::{with_dirty_scratch, with_scratch};
pub(crate) use split::{BlockMut, BlocksMut, Outputs, PerTask, RowsMut, split_grid, split_rows};
pub(crate) use tasks::{MAX_TASKS, Tasks};

use crate::{Error, Result};

/// Checks the length of a buffer.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH`, with the op and the buffer, if the lengths differ.
pub fn check(op: &'static str, what: &'static str, expected: usize, actual: usize) -> Result<()> {
    if expected == actual {
        Ok(())
    } else {
        Err(Error::ShapeMismatch { op, what, expected, actual })
    }
}

/// Checks a size that must not be 0, such as the width of a row. The number of rows may be 0.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT`, with the op and the size, if it is 0.
pub fn check_positive(op: &'static str, what: &'static str, size: usize) -> Result<()> {
    if size > 0 {
        Ok(())
    } else {
        Err(Error::argument(format!("{op}: {what} is 0; it must be at least 1")))
    }
}

/// The target of a row that the loss ignores.
pub const IGNORED_TARGET: i32 = -100;

/// Checks that each target is in the vocabulary or ignored. Returns the number of targets not
/// ignored.
///
/// # Errors
/// Returns `ERR_TOKEN_OUT_OF_RANGE` for the first target that is not.
pub fn check_targets(targets: &[i32], vocab_size: usize) -> Result<usize> {
    let mut count = 0;
    for (position, &target) in targets.iter().enumerate() {
        if target == IGNORED_TARGET {
            continue;
        }
        if target < 0 || target as usize >= vocab_size {
            return Err(Error::TokenOutOfRange {
                id: i64::from(target),
                position: position as u64,
                vocab_size,
            });
        }
        count += 1;
    }
    Ok(count)
}

/// Checks that each id is in the vocabulary.
///
/// # Errors
/// Returns `ERR_TOKEN_OUT_OF_RANGE` for the first id that is not.
pub fn check_ids(ids: &[u32], vocab_size: usize) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        None => Ok(()),
        Some(position) => Err(Error::TokenOutOfRange {
            id: i64::from(ids[position]),
            position: position as u64,
            vocab_size,
        }),
    }
}
