//! CUDA implementation: launches of the kernels in `cuda.cu`. All buffers have the same dtype.

use super::{Backward, Forward};
use crate::cuda::{Arg, Launch};
use crate::ops::kernels::{by_dtype, flat_grid};

/// Builds the launch of `forward`.
pub fn forward(args: &Forward) -> Launch {
    let Forward { out, x } = args;
    Launch {
        kernel: by_dtype(x.dtype(), "silu_forward_f32", "silu_forward_bf16"),
        grid: flat_grid(x.len()),
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(out.pointer()),
            Arg::Pointer(x.pointer()),
            Arg::I64(x.len() as i64),
        ],
    }
}

/// Builds the launch of `backward`.
pub fn backward(args: &Backward) -> Launch {
    let Backward { dx, dout, x } = args;
    Launch {
        kernel: by_dtype(x.dtype(), "silu_backward_f32", "silu_backward_bf16"),
        grid: flat_grid(x.len()),
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(dx.pointer()),
            Arg::Pointer(dout.pointer()),
            Arg::Pointer(x.pointer()),
            Arg::I64(x.len() as i64),
        ],
    }
}
