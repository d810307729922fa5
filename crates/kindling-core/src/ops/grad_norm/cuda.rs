//! CUDA half: launches of `cuda.cu`. g is f32. `partial`: f64 scratch of `partial_len`; `state`: 3 f64 that stay on the
//! device: sum of squares, norm, clip factor (NaN where the norm is not finite).

use crate::cuda::{Arg, Launch};
use crate::ops::kernels::flat_grid;

/// Elements of f64 of `state`.
pub const STATE: usize = 3;

/// Elements of f64 scratch that `squares` needs.
pub fn partial_len(n: usize) -> usize {
    n.div_ceil(256 * 16).clamp(1, 8 * 132)
}

/// The sum of squares of each block's share of g.
pub fn squares(partial: u64, g: u64, n: usize) -> Launch {
    Launch {
        kernel: "grad_norm_squares",
        grid: [partial_len(n) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(partial), Arg::Pointer(g), Arg::I64(n as i64)],
    }
}

/// `state` from what `squares` left for n elements; `max_norm` 0: no clipping.
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

/// g *= the factor of `state`; nothing where it is 1 or the norm is not finite.
pub fn scale(g: u64, state: u64, n: usize) -> Launch {
    Launch {
        kernel: "grad_norm_scale",
        grid: flat_grid(n),
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(g), Arg::Pointer(state), Arg::I64(n as i64)],
    }
}
