//! CUDA implementation: launches of the kernels in `cuda.cu`. x, sum, dx, weight and rstd are f32;
//! out, residual and dout, which lie between the norm and a product, are f32 or bf16.

use super::{Backward, Forward, ForwardResidual, Shape};
use crate::buffer::Out;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::by_dtype;

/// Maximum number of blocks in the backward pass, each of which has its own partial dweight: three
/// for each of 132 multiprocessors, as many as are resident at once.
const MAX_BLOCKS: usize = 3 * 132;
/// Minimum number of rows per block in the backward pass.
const MIN_ROWS: usize = 16;

/// Builds the launch of `forward`.
pub fn forward(args: &Forward) -> Launch {
    let Forward { out, rstd, x, weight, shape } = args;
    launch_forward(out, [0, rstd.pointer(), x.pointer(), 0, weight.pointer()], *shape)
}

/// Builds the launch of `forward_residual`.
pub fn forward_residual(args: &ForwardResidual) -> Launch {
    let ForwardResidual { out, sum, rstd, x, residual, weight, shape } = args;
    let (sum, residual) = (sum.pointer(), residual.pointer());
    launch_forward(out, [sum, rstd.pointer(), x.pointer(), residual, weight.pointer()], *shape)
}

/// Builds the launch of either forward pass. sum and residual are 0 if there is no residual.
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

/// Returns the number of f32 elements of scratch that `backward` needs.
pub fn partial_len(s: Shape) -> usize {
    blocks(s) * s.width
}

fn blocks(s: Shape) -> usize {
    s.rows.div_ceil(MIN_ROWS).clamp(1, MAX_BLOCKS)
}

/// A backward kernel, as compiled in `cuda.cu`.
#[derive(Clone, Copy)]
struct BackwardKernel {
    /// Columns of a thread: the number of groups of neighbouring columns, and the size of a group.
    columns: [usize; 2],
    most_threads: usize,
    f32: &'static str,
    bf16: &'static str,
}

macro_rules! backward_kernel {
    ($groups:literal, $size:literal, $threads:literal, $kind:literal) => {
        BackwardKernel {
            columns: [$groups, $size],
            most_threads: $threads,
            f32: concat!("rms_norm_backward_f32", $kind, "_", $groups),
            bf16: concat!("rms_norm_backward_bf16", $kind, "_", $groups),
        }
    };
}

/// Kernels for rows that start at a multiple of 16 bytes, narrow ones first.
const ALIGNED: [BackwardKernel; 4] = [
    backward_kernel!(1, 4, 256, ""),
    backward_kernel!(2, 4, 256, ""),
    backward_kernel!(4, 4, 256, ""),
    backward_kernel!(8, 4, 384, ""),
];
const UNALIGNED: [BackwardKernel; 1] = [backward_kernel!(16, 1, 256, "_unaligned")];

/// Returns the kernel for rows of `width` and the number of threads in its block, or `None` if rows
/// are too long.
fn backward_kernel(width: usize, aligned: bool) -> Option<(BackwardKernel, usize)> {
    let kernels: &[BackwardKernel] = if aligned { &ALIGNED } else { &UNALIGNED };
    let threads = |kernel: &BackwardKernel| {
        let [groups, size] = kernel.columns;
        width.div_ceil(groups * size).next_multiple_of(32)
    };
    let kernel = kernels.iter().find(|kernel| threads(kernel) <= kernel.most_threads)?;
    Some((*kernel, threads(kernel)))
}

/// Returns whether the backward pass has a kernel for rows of `width`.
pub(super) fn has_backward(width: usize) -> bool {
    backward_kernel(width, width.is_multiple_of(4)).is_some()
}

/// Builds the launches of `backward`, or of `backward_residual` if `accumulate` is set, in order.
/// `partial` is the address of `partial_len` f32 of scratch.
///
/// # Panics
/// Panics if there is no kernel for the width, which the op has checked.
pub fn backward(args: &Backward, partial: u64, accumulate: bool) -> [Launch; 2] {
    let Backward { dx, rounded, normed, dweight, dout, x, weight, rstd, shape: s } = args;
    let dtype = dout.dtype();
    let optional = |out: &Option<Out>| out.as_ref().map_or(0, Out::pointer);
    let [f32s, others] = [
        [dx.pointer(), x.pointer(), weight.pointer()],
        [dout.pointer(), optional(rounded), optional(normed)],
    ];
    let of_four = if dtype == Dtype::F32 { 16 } else { 8 };
    let aligned = s.width.is_multiple_of(4)
        && f32s.iter().all(|p| p % 16 == 0)
        && others.iter().all(|p| p % of_four == 0);
    let (kernel, threads) =
        backward_kernel(s.width, aligned).expect("a width that has a backward kernel");
    let rows = Launch {
        kernel: by_dtype(dtype, kernel.f32, kernel.bf16),
        grid: [blocks(*s) as u32, 1, 1],
        block: threads as u32,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(dx.pointer()),
            Arg::Pointer(optional(rounded)),
            Arg::Pointer(optional(normed)),
            Arg::Pointer(partial),
            Arg::Pointer(dout.pointer()),
            Arg::Pointer(x.pointer()),
            Arg::Pointer(weight.pointer()),
            Arg::Pointer(rstd.pointer()),
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
