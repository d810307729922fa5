//! CUDA implementation: launches of the kernels in `cuda.cu`. All buffers have the same dtype.

use super::{Backward, Forward};
use crate::cuda::Launch;
use crate::ops::kernels::by_dtype;
use crate::ops::softmax::cuda::{launch_backward, launch_forward};

/// Builds the launch of `forward`.
pub fn forward(args: &Forward) -> Launch {
    let kernel = by_dtype(args.x.dtype(), "log_softmax_forward_f32", "log_softmax_forward_bf16");
    launch_forward(kernel, args)
}

/// Builds the launch of `backward`.
pub fn backward(args: &Backward) -> Launch {
    let dtype = args.dout.dtype();
    let kernel = by_dtype(dtype, "log_softmax_backward_f32", "log_softmax_backward_bf16");
    launch_backward(kernel, args)
}
