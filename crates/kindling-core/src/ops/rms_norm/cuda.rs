//! CUDA half: launches of `cuda.cu`. The stream (x, sum, dx), gain and rstd are f32; what enters and leaves the
//! branches (out, dout, residual) is of the dtype.

use super::Shape;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, row_block};

/// Blocks of the backward pass, each with its own partial dweight: a few for each multiprocessor.
const MOST_BLOCKS: usize = 264;
/// Shared memory that a kernel has without asking for more.
const SHARED_BYTES: usize = 48 * 1024;

/// out = norm(x); with `residual`, a pair (sum, residual), sum = x + residual and out = norm(sum).
pub fn forward(
    dtype: Dtype,
    out: u64,
    rstd: u64,
    x: u64,
    residual: Option<(u64, u64)>,
    weight: u64,
    s: Shape,
) -> Launch {
    let (sum, residual) = residual.unwrap_or_default();
    Launch {
        kernel: by_dtype(dtype, "rms_norm_forward_f32", "rms_norm_forward_bf16"),
        grid: [s.rows.div_ceil(8) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(out),
            Arg::Pointer(sum),
            Arg::Pointer(rstd),
            Arg::Pointer(x),
            Arg::Pointer(residual),
            Arg::Pointer(weight),
            s.rows.into(),
            s.width.into(),
            s.eps.into(),
        ],
    }
}

/// Elements of f32 scratch that `backward` needs.
pub fn partial_len(s: Shape) -> usize {
    blocks(s) * s.width
}

fn warps(s: Shape) -> usize {
    (SHARED_BYTES / (4 * s.width)).clamp(1, 8)
}

fn blocks(s: Shape) -> usize {
    s.rows.div_ceil(4 * warps(s)).clamp(1, MOST_BLOCKS)
}

/// out = x rstd weight, from the rstd that a forward pass saved.
pub fn recompute(dtype: Dtype, out: u64, x: u64, weight: u64, rstd: u64, s: Shape) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "rms_norm_recompute_f32", "rms_norm_recompute_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.width, 4),
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(out),
            Arg::Pointer(x),
            Arg::Pointer(weight),
            Arg::Pointer(rstd),
            s.width.into(),
        ],
    }
}

/// dx = gradient of norm at x, or dx += where `add`; dweight += its gradient, through `partial`, scratch of `partial_len`
/// elements. Two launches, in order.
pub fn backward(
    dtype: Dtype,
    dx: u64,
    dweight: u64,
    partial: u64,
    dout: u64,
    x: u64,
    weight: u64,
    rstd: u64,
    s: Shape,
    add: bool,
) -> [Launch; 2] {
    let rows = Launch {
        kernel: by_dtype(dtype, "rms_norm_backward_f32", "rms_norm_backward_bf16"),
        grid: [blocks(s) as u32, 1, 1],
        block: 32 * warps(s) as u32,
        shared_bytes: (4 * s.width * warps(s)) as u32,
        args: vec![
            Arg::Pointer(dx),
            Arg::Pointer(partial),
            Arg::Pointer(dout),
            Arg::Pointer(x),
            Arg::Pointer(weight),
            Arg::Pointer(rstd),
            s.rows.into(),
            s.width.into(),
            Arg::I32(i32::from(add)),
        ],
    };
    let columns = Launch {
        kernel: "rms_norm_add_partial",
        grid: [s.width.div_ceil(32) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(dweight), Arg::Pointer(partial), blocks(s).into(), s.width.into()],
    };
    [rows, columns]
}
