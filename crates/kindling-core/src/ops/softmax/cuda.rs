//! CUDA implementation: launches of the kernels in `cuda.cu`. All buffers have the same dtype.

use super::{Backward, Forward, Shape};
use crate::cuda::{Arg, Launch};
use crate::ops::kernels::{by_dtype, row_block};

/// Builds the launch of `forward`.
pub fn forward(args: &Forward) -> Launch {
    let kernel = by_dtype(args.x.dtype(), "softmax_forward_f32", "softmax_forward_bf16");
    launch_forward(kernel, args)
}

/// Builds the launch of `backward`.
pub fn backward(args: &Backward) -> Launch {
    let kernel = by_dtype(args.dout.dtype(), "softmax_backward_f32", "softmax_backward_bf16");
    launch_backward(kernel, args)
}

pub(in crate::ops) fn launch_forward(kernel: &'static str, args: &Forward) -> Launch {
    launch_rows(kernel, &[args.out.pointer(), args.x.pointer()], args.shape)
}

pub(in crate::ops) fn launch_backward(kernel: &'static str, args: &Backward) -> Launch {
    let Backward { dx, dout, out, shape } = args;
    launch_rows(kernel, &[dx.pointer(), dout.pointer(), out.pointer()], *shape)
}

/// Builds a launch with one block per row.
fn launch_rows(kernel: &'static str, pointers: &[u64], s: Shape) -> Launch {
    let mut args: Vec<Arg> = pointers.iter().map(|pointer| Arg::Pointer(*pointer)).collect();
    args.push(s.columns.into());
    Launch {
        kernel,
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.columns, 1),
        shared_bytes: 0,
        args,
    }
}
