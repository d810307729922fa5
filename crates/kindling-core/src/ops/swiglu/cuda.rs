//! CUDA implementation: launches of the kernels in `cuda.cu`. All buffers have the same dtype.

use super::{Backward, BackwardInPlace, Forward, Shape};
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, row_block};

/// Builds the launch of `forward`.
pub fn forward(args: &Forward) -> Launch {
    let Forward { out, gate_up, shape: s } = args;
    Launch {
        kernel: by_dtype(out.dtype(), "swiglu_forward_f32", "swiglu_forward_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.width, 8),
        shared_bytes: 0,
        args: vec![Arg::Pointer(out.pointer()), Arg::Pointer(gate_up.pointer()), s.width.into()],
    }
}

/// Builds the launch of `backward`.
pub fn backward(args: &Backward) -> Launch {
    let Backward { dgate_up, dout, gate_up, shape } = args;
    let pointers = [dgate_up.pointer(), 0, dout.pointer(), gate_up.pointer()];
    launch_backward(dout.dtype(), pointers, *shape)
}

/// Builds the launch of `backward_in_place`.
pub fn backward_in_place(args: &BackwardInPlace) -> Launch {
    let BackwardInPlace { gate_up, out, recompute, shape } = args;
    let (gate_up, dout) = (gate_up.pointer(), out.pointer());
    let recomputed = if *recompute { dout } else { 0 };
    launch_backward(out.dtype(), [gate_up, recomputed, dout, gate_up], *shape)
}

/// Builds the launch of either backward pass. `out` is 0 if the output is not wanted; `dgate_up`
/// may be `gate_up`, and `out` may be `dout`.
fn launch_backward(dtype: Dtype, [dgate_up, out, dout, gate_up]: [u64; 4], s: Shape) -> Launch {
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
