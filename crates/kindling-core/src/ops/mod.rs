//! The tensor ops of the model, a folder each: `mod.rs` (shapes, formula, checks, dispatch), `reference.rs` (plain f64
//! loops, the tests' oracle), `cpu.rs`, `cuda.cu` (kernels) and `cuda.rs` (their launches; `cuda/mod.rs`).
//!
//! | op | forward | saved for backward | held by `tests/` |
//! |---|---|---|---|
//! | `embedding` | ids (n), weight (v, c) -> (n, c) | ids | `op_parity_dense.rs` |
//! | `rms_norm` | x (n, c), weight (c) -> (n, c), with or without a residual added first | x, rstd (n) | `op_parity_layers.rs` |
//! | `linear` | x (n, i), weight (o, i), bias (o) -> (n, o) | x | `op_parity_dense.rs` |
//! | `rope` | in place over the heads of (n, width) | nothing | `op_parity_layers.rs` |
//! | `attention` | qkv (n, (nh + 2 nkv) hs) -> (n, nh hs) | qkv, out, lse (b, nh, t) | `op_parity_attention.rs` |
//! | `swiglu` | (n, 2 f) -> (n, f) | its input | `op_parity_layers.rs` |
//! | `silu` | any size, by itself | its input | `op_parity_layers.rs` |
//! | `matmul` | a (m, k), b (k, n) -> (m, n), by itself | a, b | `op_parity_dense.rs` |
//! | `softmax`, `log_softmax` | rows, by themselves | output | `op_parity_attention.rs` |
//! | `cross_entropy` | logits (n, v), targets (n) -> mean loss | logits, lse (n) | `op_parity_loss.rs` |
//! | `output_loss` | x (n, c), weight (v, c), targets (n) -> loss; logits never whole | nothing: it is one pass | `op_parity_loss.rs` |
//! | `grad_norm`, `adamw`, `sgd` | over flat parameters | - | `op_parity_optimizer.rs`, its own folder |
//!
//! `op_threads.rs` holds the results of the dense and the layers' ops against the number of threads.
//!
//! b batch, t positions, c `d_model`, nh heads, nkv key/value heads, hs head size, f `d_ff`, v vocabulary, n = b t rows.
//! Gradient rule of every backward: gradients of activations are overwritten, gradients of parameters are added to.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
mod disjoint;
pub mod embedding;
pub mod grad_norm;
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

pub use disjoint::Disjoint;
pub use scratch::{with_dirty_scratch, with_scratch};
pub(crate) use split::for_each_row;
pub use split::{BlockMut, BlocksMut, Outputs, PerTask, RowsMut, split_grid, split_rows};
pub(crate) use tasks::MAX_TASKS;
pub use tasks::Tasks;
pub use tasks::Tasks as Pieces;

use crate::{Error, Result};

/// Says whether a buffer has the size its shape asks for.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` naming the op and the buffer.
pub fn check(op: &'static str, what: &'static str, expected: usize, actual: usize) -> Result<()> {
    if expected == actual {
        Ok(())
    } else {
        Err(Error::ShapeMismatch { op, what, expected, actual })
    }
}

/// Says whether a size that has to be at least 1 is (a row has some width; there may be no rows).
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` naming the op and the size.
pub fn check_positive(op: &'static str, what: &'static str, size: usize) -> Result<()> {
    if size > 0 {
        Ok(())
    } else {
        Err(Error::argument(format!("{op}: {what} is 0; it has to be at least 1")))
    }
}

/// Target of a row that takes no part in the loss.
pub const IGNORED_TARGET: i32 = -100;

/// Says whether every target is inside the vocabulary or ignored; gives the number that count.
///
/// # Errors
/// `ERR_TOKEN_OUT_OF_RANGE` naming the first that is not.
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

/// Says whether every id is inside the vocabulary.
///
/// # Errors
/// `ERR_TOKEN_OUT_OF_RANGE` naming the first that is not.
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
