//! CUDA implementation: launches of the kernels in `cuda.cu`.
//!
//! g: n f32. `partial`: scratch of `partial_len(n)` f64. `state`: `STATE` f64 that stay on the
//! device: sum of squares, norm, clip factor (NaN if the norm is not finite). All are addresses.

use crate::cuda::{Arg, Launch};
use crate::ops::kernels::flat_grid;

/// Number of f64 in `state`.
pub const STATE: usize = 3;

/// Returns the number of f64 elements of scratch that `squares` needs.
pub fn partial_len(n: usize) -> usize {
    n.div_ceil(256 * 16).clamp(1, 8 * 132)
}

/// Builds the launch that writes the sum of squares of each block's share of g to `partial`.
pub fn squares(partial: u64, g: u64, n: usize) -> Launch {
    Launch {
        kernel: "grad_norm_squares",
        grid: [partial_len(n) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(partial), Arg::Pointer(g), Arg::I64(n as i64)],
    }
}

/// Builds the launch that computes `state` from the `partial` sums of n elements. A `max_norm` of 0
/// disables clipping.
pub fn clip_factor(state: u64, partial: u64, n: usize, max_norm: f32) -> Launch {
    Launch {
        kernel: "grad_norm_clip_factor",
        grid: [1, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(state),
            Arg::Pointer(partial),
            partial_len(n).into(),
            max_norm.into(),
        ],
    }
}

/// Builds the launch that multiplies g by the clip factor of `state` if it is below 1.
pub fn scale(g: u64, state: u64, n: usize) -> Launch {
    Launch {
        kernel: "grad_norm_scale",
        grid: flat_grid(n),
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(g), Arg::Pointer(state), Arg::I64(n as i64)],
    }
}
