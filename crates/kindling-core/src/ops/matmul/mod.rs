//! Matrix product: out = a b.
//!
//! a, da: (m, k); b, db: (k, n); out, dout: (m, n). da = dout b^T; db = a^T dout. Both gradients
//! are overwritten, since neither operand is a parameter.

mod cpu;
pub(crate) mod cuda;
pub(crate) mod gemm;
pub(crate) mod matrix;
pub(crate) mod packed;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::check;

/// Sizes of the product of an (m, k) and a (k, n) matrix.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub m: usize,
    pub k: usize,
    pub n: usize,
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub a: In<'a>,
    pub b: In<'a>,
    pub shape: Shape,
}

/// Computes out = a b.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "matmul::forward";
    let s = args.shape;
    check(OP, "a", s.m * s.k, args.a.len())?;
    check(OP, "b", s.k * s.n, args.b.len())?;
    check(OP, "out", s.m * s.n, args.out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, args),
        Device::Cuda(gpu) => cuda::forward(gpu, args)?,
    }
    Ok(())
}

/// Buffers of `backward`.
#[derive(Debug)]
pub struct Backward<'a> {
    pub da: Out<'a>,
    pub db: Out<'a>,
    pub dout: In<'a>,
    pub a: In<'a>,
    pub b: In<'a>,
    pub shape: Shape,
}

/// Computes da = dout b^T and db = a^T dout.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "matmul::backward";
    let s = args.shape;
    check(OP, "a", s.m * s.k, args.a.len())?;
    check(OP, "da", s.m * s.k, args.da.len())?;
    check(OP, "b", s.k * s.n, args.b.len())?;
    check(OP, "db", s.k * s.n, args.db.len())?;
    check(OP, "dout", s.m * s.n, args.dout.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, args),
        Device::Cuda(gpu) => cuda::backward(gpu, args)?,
    }
    Ok(())
}
