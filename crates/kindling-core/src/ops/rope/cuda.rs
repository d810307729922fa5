//! CUDA implementation: the launch of the kernel in `cuda.cu`. x is f32 or bf16; the tables are
//! f32.

use super::Forward;
use crate::cuda::{Arg, Launch};
use crate::ops::kernels::{by_dtype, row_block};

/// Builds the launch of `forward` (`direction` 1) or `backward` (`direction` -1).
pub fn rotate(args: &Forward, direction: f32) -> Launch {
    let Forward { x, cos, sin, shape: s } = args;
    let rotated = s.heads * s.head_size;
    Launch {
        kernel: by_dtype(x.dtype(), "rope_rotate_f32", "rope_rotate_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(rotated, 8),
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(x.pointer()),
            Arg::Pointer(cos.pointer()),
            Arg::Pointer(sin.pointer()),
            s.row_width.into(),
            rotated.into(),
            s.head_size.into(),
            s.positions.into(),
            s.first_position.into(),
            direction.into(),
        ],
    }
}
