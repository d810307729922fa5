//! What the CUDA halves of the ops share: a launch as plain data, and (in `*.cuh`) the device functions that several
//! kernels use. An op's `cuda.cu` holds its kernels, its `cuda.rs` makes the launches from sizes and device pointers.
//! Nothing here needs a GPU: the device layer runs a launch, and so does the emulator of the tests.

use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;

/// The kernel of `dtype`.
pub(crate) fn by_dtype(dtype: Dtype, f32: &'static str, bf16: &'static str) -> &'static str {
    match dtype {
        Dtype::F32 => f32,
        Dtype::Bf16 => bf16,
    }
}

/// Blocks of 256 threads that take 8 elements each of a flat run; a grid of at most 64 blocks for each of 132
/// multiprocessors, whose threads go on to further elements.
pub(crate) fn flat_grid(n: usize) -> [u32; 3] {
    [n.div_ceil(256 * 8).clamp(1, 64 * 132) as u32, 1, 1]
}

/// Threads of a block that takes a row of `width` elements, `each` at a time: whole warps, at most 256.
pub(crate) fn row_block(width: usize, each: usize) -> u32 {
    (width.div_ceil(each).div_ceil(32) * 32).clamp(32, 256) as u32
}

/// Blocks of 256 threads that take 4 elements each of a flat run of parameters: as many as it has, since each element is
/// touched once and many blocks keep many reads under way.
pub(crate) fn step_grid(n: usize) -> [u32; 3] {
    [n.div_ceil(256 * 4).clamp(1, 1 << 20) as u32, 1, 1]
}

/// out (n) of `to` = x (n) of the other type, rounded to nearest even where that is bf16.
pub fn cast(to: Dtype, out: u64, x: u64, n: usize) -> Launch {
    Launch {
        kernel: by_dtype(to, "cast_bf16_to_f32", "cast_f32_to_bf16"),
        grid: flat_grid(n),
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(out), Arg::Pointer(x), Arg::I64(n as i64)],
    }
}
