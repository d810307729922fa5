//! CUDA half: launches of `cuda.cu`. x, sum, dx, weight and rstd are f32; out, residual and dout,
//! which lie between the norm and a product, are f32 or bf16.

use super::{Backward, Forward, ForwardResidual, Recompute, Shape};
use crate::buffer::{In, Out};
use crate::cuda::{Arg, Launch};
use crate::ops::kernels::{by_dtype, row_block};

/// Maximum number of blocks in the backward pass, each of which has its own partial dweight: a few
/// per multiprocessor.
const MAX_BLOCKS: usize = 264;
/// Shared memory that a kernel gets without opting in to more.
const SHARED_BYTES: usize = 48 * 1024;

/// Launch of `forward`.
pub fn forward(args: &Forward) -> Launch {
    let Forward { out, rstd, x, weight, shape } = args;
    launch_forward(out, [0, rstd.pointer(), x.pointer(), 0, weight.pointer()], *shape)
}

/// Launch of `forward_residual`.
pub fn forward_residual(args: &ForwardResidual) -> Launch {
    let ForwardResidual { out, sum, rstd, x, residual, weight, shape } = args;
    let (sum, residual) = (sum.pointer(), residual.pointer());
    launch_forward(out, [sum, rstd.pointer(), x.pointer(), residual, weight.pointer()], *shape)
}

/// Launches the kernel of both forward passes; sum and residual are 0 where there is no residual.
fn launch_forward(out: &Out, [sum, rstd, x, residual, weight]: [u64; 5], s: Shape) -> Launch {
    Launch {
        kernel: by_dtype(out.dtype(), "rms_norm_forward_f32", "rms_norm_forward_bf16"),
        grid: [s.rows.div_ceil(8) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(out.pointer()),
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

/// Number of f32 of scratch that `backward` needs.
pub fn partial_len(s: Shape) -> usize {
    blocks(s) * s.width
}

fn warps(s: Shape) -> usize {
    (SHARED_BYTES / (4 * s.width)).clamp(1, 8)
}

fn blocks(s: Shape) -> usize {
    s.rows.div_ceil(4 * warps(s)).clamp(1, MAX_BLOCKS)
}

/// Launch of `recompute`.
pub fn recompute(args: &Recompute) -> Launch {
    let Recompute { out, x, weight, rstd, shape: s } = args;
    Launch {
        kernel: by_dtype(out.dtype(), "rms_norm_recompute_f32", "rms_norm_recompute_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.width, 4),
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(out.pointer()),
            Arg::Pointer(x.pointer()),
            Arg::Pointer(weight.pointer()),
            Arg::Pointer(rstd.pointer()),
            s.width.into(),
        ],
    }
}

/// Launches of `backward`, in order, or of `backward_residual` if `accumulate` is set. `partial` is
/// the address of `partial_len` f32 of scratch.
pub fn backward(args: &Backward, partial: u64, accumulate: bool) -> [Launch; 2] {
    let Backward { dx, dweight, dout, x, weight, rstd, shape: s } = args;
    let pointer = |input: &In| Arg::Pointer(input.pointer());
    let rows = Launch {
        kernel: by_dtype(dout.dtype(), "rms_norm_backward_f32", "rms_norm_backward_bf16"),
        grid: [blocks(*s) as u32, 1, 1],
        block: 32 * warps(*s) as u32,
        shared_bytes: (4 * s.width * warps(*s)) as u32,
        args: vec![
            Arg::Pointer(dx.pointer()),
            Arg::Pointer(partial),
            pointer(dout),
            pointer(x),
            pointer(weight),
            pointer(rstd),
            s.rows.into(),
            s.width.into(),
            Arg::I32(i32::from(accumulate)),
        ],
    };
    let columns = Launch {
        kernel: "rms_norm_add_partial",
        grid: [s.width.div_ceil(32) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(dweight.pointer()),
            Arg::Pointer(partial),
            blocks(*s).into(),
            s.width.into(),
        ],
    };
    [rows, columns]
}
