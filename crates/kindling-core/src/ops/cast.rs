//! Casts between f32 and bf16 in device memory.

use super::kernels;
use crate::Result;
use crate::cuda::Cuda;
use crate::dtype::Dtype;

/// Queues the cast of the `n` elements at `x` to `dtype`, written at `out`. bf16 is rounded to
/// nearest, ties to even.
///
/// # Errors
/// Returns `ERR_DEVICE` if the launch fails.
pub fn cast(gpu: &Cuda, dtype: Dtype, out: u64, x: u64, n: usize) -> Result<()> {
    if n == 0 { Ok(()) } else { gpu.run(&[kernels::cast(dtype, out, x, n)]) }
}
