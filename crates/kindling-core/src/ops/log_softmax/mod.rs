//! Log-softmax. out = x - log(sum(exp(x))) of each row. The largest score is taken off first.
//!
//! x, out, dx, dout: (rows, columns). dx = dout - exp(out) sum(dout) of each row.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::check;

/// Sizes: each row is normalised by itself.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

/// out = x - log(sum(exp(x))) of each row.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn forward(dev: &Device, out: Out, x: In, s: Shape) -> Result<()> {
    const OP: &str = "log_softmax::forward";
    check(OP, "x", s.rows * s.columns, x.len())?;
    check(OP, "out", s.rows * s.columns, out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, out.cpu(), x.cpu(), s),
        Device::Cuda(gpu) => {
            gpu.run(&[cuda::forward(out.dtype(), out.pointer(), x.pointer(), s)])?
        }
    }
    Ok(())
}

/// dx = dout - exp(out) sum(dout) of each row.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward(dev: &Device, dx: Out, dout: In, out: In, s: Shape) -> Result<()> {
    const OP: &str = "log_softmax::backward";
    check(OP, "dx", s.rows * s.columns, dx.len())?;
    check(OP, "dout", s.rows * s.columns, dout.len())?;
    check(OP, "out", s.rows * s.columns, out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, dx.cpu(), dout.cpu(), out.cpu(), s),
        Device::Cuda(gpu) => {
            let (dtype, out) = (dout.dtype(), out.pointer());
            gpu.run(&[cuda::backward(dtype, dx.pointer(), dout.pointer(), out, s)])?;
        }
    }
    Ok(())
}
