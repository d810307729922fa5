//! CUDA half: launches of `cuda.cu`. All tensors are of the dtype.

use super::Shape;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, row_block};

/// out of each row of x.
pub fn forward(dtype: Dtype, out: u64, x: u64, s: Shape) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "log_softmax_forward_f32", "log_softmax_forward_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.columns, 1),
        shared_bytes: 0,
        args: vec![Arg::Pointer(out), Arg::Pointer(x), s.columns.into()],
    }
}

/// dx of each row from dout and out.
pub fn backward(dtype: Dtype, dx: u64, dout: u64, out: u64, s: Shape) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "log_softmax_backward_f32", "log_softmax_backward_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.columns, 1),
        shared_bytes: 0,
        args: vec![Arg::Pointer(dx), Arg::Pointer(dout), Arg::Pointer(out), s.columns.into()],
    }
}
