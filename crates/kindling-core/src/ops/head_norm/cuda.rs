//! CUDA implementation: launches of the kernels in `cuda.cu`. x, dx and saved are f32 or bf16; the
//! gains are f32.

use super::{Backward, Forward, Shape};
use crate::buffer::Out;
use crate::cuda::{Arg, Launch};
use crate::ops::kernels::by_dtype;

/// Largest head size that has kernels, as in `cuda.cu`.
pub const MAX_HEAD_SIZE: usize = 128;
/// Warps per block. Each handles one head at a time.
const WARPS: usize = 8;
/// Maximum number of blocks in the backward pass, each of which has its own partial dweight.
const MAX_BLOCKS: usize = 2 * 132;
/// Minimum number of heads per warp in the backward pass.
const MIN_HEADS: usize = 8;

/// Builds the launch of `forward`.
pub fn forward(args: &Forward) -> Launch {
    let Forward { x, saved, weight, shape: s } = args;
    Launch {
        kernel: by_dtype(x.dtype(), "head_norm_forward_f32", "head_norm_forward_bf16"),
        grid: [(s.rows * s.heads()).div_ceil(WARPS) as u32, 1, 1],
        block: 32 * WARPS as u32,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(x.pointer()),
            Arg::Pointer(saved.as_ref().map_or(0, Out::pointer)),
            Arg::Pointer(weight.pointer()),
            s.rows.into(),
            s.row_width.into(),
            s.q_heads.into(),
            s.k_heads.into(),
            s.head_size.into(),
            s.eps.into(),
        ],
    }
}

/// Returns the number of f32 elements of scratch that `backward` needs.
pub fn partial_len(s: Shape) -> usize {
    blocks(s) * 2 * s.head_size
}

fn blocks(s: Shape) -> usize {
    (s.rows * s.heads()).div_ceil(WARPS * MIN_HEADS).clamp(1, MAX_BLOCKS)
}

/// Builds the launches of `backward`, in order. `partial` is the address of `partial_len` f32 of
/// scratch.
pub fn backward(args: &Backward, partial: u64) -> [Launch; 2] {
    let Backward { dx, dweight, saved, weight, shape: s } = args;
    let heads = Launch {
        kernel: by_dtype(dx.dtype(), "head_norm_backward_f32", "head_norm_backward_bf16"),
        grid: [blocks(*s) as u32, 1, 1],
        block: 32 * WARPS as u32,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(dx.pointer()),
            Arg::Pointer(partial),
            Arg::Pointer(saved.pointer()),
            Arg::Pointer(weight.pointer()),
            s.rows.into(),
            s.row_width.into(),
            s.q_heads.into(),
            s.k_heads.into(),
            s.head_size.into(),
            s.eps.into(),
        ],
    };
    let columns = Launch {
        kernel: "head_norm_add_partial",
        grid: [(2 * s.head_size).div_ceil(32) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(dweight.pointer()),
            Arg::Pointer(partial),
            blocks(*s).into(),
            (2 * s.head_size).into(),
        ],
    };
    [heads, columns]
}
