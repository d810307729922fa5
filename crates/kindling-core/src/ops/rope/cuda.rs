//! CUDA half: the launch of `cuda.cu`. x is of the dtype, the tables are f32.

use super::Shape;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, row_block};

/// Rotates x in place; by the negative angle where `direction` is -1 (the gradient), else 1.
pub fn rotate(dtype: Dtype, x: u64, cos: u64, sin: u64, s: Shape, direction: f32) -> Launch {
    let rotated = s.heads * s.head_size;
    Launch {
        kernel: by_dtype(dtype, "rope_rotate_f32", "rope_rotate_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(rotated, 8),
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(x),
            Arg::Pointer(cos),
            Arg::Pointer(sin),
            s.row_width.into(),
            rotated.into(),
            s.head_size.into(),
            s.positions.into(),
            s.first_position.into(),
            direction.into(),
        ],
    }
}
