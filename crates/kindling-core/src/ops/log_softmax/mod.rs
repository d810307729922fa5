//! Log-softmax. out = x - log(sum(exp(x))) of each row, with exponentials of x - max(x).
//!
//! x, out, dx, dout: (rows, columns). dx = dout - exp(out) sum(dout) of each row.
//!
//! A score of -inf stays -inf. A row that is all -inf becomes NaN.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::device::Device;
use crate::ops::softmax::{run_backward, run_forward};

pub use crate::ops::softmax::{Backward, Forward, Shape};

/// Computes out.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    run_forward("log_softmax::forward", dev, args, cpu::forward, cuda::forward)
}

/// Computes dx.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    run_backward("log_softmax::backward", dev, args, cpu::backward, cuda::backward)
}
