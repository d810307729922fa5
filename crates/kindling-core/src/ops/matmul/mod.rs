//! Matrix product. out = a b.
//!
//! a: (m, k); b: (k, n); out, dout: (m, n). da = dout b^T; db = a^T dout, both overwritten (here b is no parameter).

mod cpu;
pub(crate) mod cuda;
pub(crate) mod gemm;
pub mod packed;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::check;

/// Sizes of a product.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of a.
    pub m: usize,
    /// Columns of a, rows of b.
    pub k: usize,
    /// Columns of b.
    pub n: usize,
}

/// out = a b.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn forward(dev: &Device, out: Out, a: In, b: In, s: Shape) -> Result<()> {
    const OP: &str = "matmul::forward";
    check(OP, "a", s.m * s.k, a.len())?;
    check(OP, "b", s.k * s.n, b.len())?;
    check(OP, "out", s.m * s.n, out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, out.cpu(), a.cpu(), b.cpu(), s),
        Device::Cuda(gpu) => cuda::forward(gpu, &out, a, b, s)?,
    }
    Ok(())
}

/// da = dout b^T; db = a^T dout.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward(dev: &Device, da: Out, db: Out, dout: In, a: In, b: In, s: Shape) -> Result<()> {
    const OP: &str = "matmul::backward";
    check(OP, "a", s.m * s.k, a.len())?;
    check(OP, "da", s.m * s.k, da.len())?;
    check(OP, "b", s.k * s.n, b.len())?;
    check(OP, "db", s.k * s.n, db.len())?;
    check(OP, "dout", s.m * s.n, dout.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, da.cpu(), db.cpu(), dout.cpu(), a.cpu(), b.cpu(), s),
        Device::Cuda(gpu) => cuda::backward(gpu, &da, &db, dout, a, b, s)?,
    }
    Ok(())
}
