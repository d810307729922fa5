//! CUDA half: launches of `cuda.cu`. All tensors are of the dtype.

use super::Shape;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, row_block};

/// out = silu(gate) up.
pub fn forward(dtype: Dtype, out: u64, gate_up: u64, s: Shape) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "swiglu_forward_f32", "swiglu_forward_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.width, 8),
        shared_bytes: 0,
        args: vec![Arg::Pointer(out), Arg::Pointer(gate_up), s.width.into()],
    }
}

/// `dgate_up` = gradients of gate and up, and `out` (0: not wanted) the output again. They may take the places of `gate_up`
/// and `dout`.
pub fn backward(
    dtype: Dtype,
    dgate_up: u64,
    out: u64,
    dout: u64,
    gate_up: u64,
    s: Shape,
) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "swiglu_backward_f32", "swiglu_backward_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.width, 8),
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(dgate_up),
            Arg::Pointer(out),
            Arg::Pointer(dout),
            Arg::Pointer(gate_up),
            s.width.into(),
        ],
    }
}
