//! CUDA half: launches of `cuda.cu`. Pointers are to x, out, dx, dout of n elements of the dtype.

use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, flat_grid};

/// out = x sigma(x).
pub fn forward(dtype: Dtype, out: u64, x: u64, n: usize) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "silu_forward_f32", "silu_forward_bf16"),
        grid: flat_grid(n),
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(out), Arg::Pointer(x), Arg::I64(n as i64)],
    }
}

/// dx = dout times the slope at x.
pub fn backward(dtype: Dtype, dx: u64, dout: u64, x: u64, n: usize) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "silu_backward_f32", "silu_backward_bf16"),
        grid: flat_grid(n),
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(dx), Arg::Pointer(dout), Arg::Pointer(x), Arg::I64(n as i64)],
    }
}
