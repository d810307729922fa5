//! What the CUDA implementations of the ops share: grids and blocks here, device functions in
//! `*.cuh`.
//!
//! An op's `cuda.cu` holds its kernels; its `cuda.rs` makes the launches, as plain data, from sizes
//! and device addresses. Nothing here needs a GPU: the emulator of the tests runs the same
//! launches.

use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;

/// Selects the kernel for `dtype`.
pub(crate) fn by_dtype(dtype: Dtype, f32: &'static str, bf16: &'static str) -> &'static str {
    match dtype {
        Dtype::F32 => f32,
        Dtype::Bf16 => bf16,
    }
}

/// Returns a grid for n elements, in blocks of 256 threads with 8 elements per thread. There are at
/// most 64 blocks for each of 132 multiprocessors; beyond that, threads loop.
pub(crate) fn flat_grid(n: usize) -> [u32; 3] {
    [n.div_ceil(256 * 8).clamp(1, 64 * 132) as u32, 1, 1]
}

/// Returns the number of threads in a block that handles a row of `width` elements with `each`
/// elements per thread: whole warps, at most 256 threads.
pub(crate) fn row_block(width: usize, each: usize) -> u32 {
    (width.div_ceil(each).div_ceil(32) * 32).clamp(32, 256) as u32
}

/// Returns a grid for an update of n parameters, in blocks of 256 threads with 4 elements per
/// thread. No thread loops: each element is touched once, and more blocks keep more reads in
/// flight.
pub(crate) fn step_grid(n: usize) -> [u32; 3] {
    [n.div_ceil(256 * 4).clamp(1, 1 << 20) as u32, 1, 1]
}

/// Builds the launch that converts the n elements of x to `to` from the other dtype. bf16 is
/// rounded to nearest even.
pub fn cast(to: Dtype, out: u64, x: u64, n: usize) -> Launch {
    Launch {
        kernel: by_dtype(to, "cast_bf16_to_f32", "cast_f32_to_bf16"),
        grid: flat_grid(n),
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(out), Arg::Pointer(x), Arg::I64(n as i64)],
    }
}
