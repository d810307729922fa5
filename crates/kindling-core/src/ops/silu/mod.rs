//! SiLU of each element. out = x sigmoid(x); dx = dout sigmoid(x) (1 + x (1 - sigmoid(x))).
//!
//! x, out, dx, dout: the same length.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::check;

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub x: In<'a>,
}

/// Computes out.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if the lengths differ.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "silu::forward";
    check(OP, "out", args.x.len(), args.out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[cuda::forward(&args)])?,
    }
    Ok(())
}

/// Buffers of `backward`.
#[derive(Debug)]
pub struct Backward<'a> {
    pub dx: Out<'a>,
    pub dout: In<'a>,
    pub x: In<'a>,
}

/// Computes dx.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if the lengths differ.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "silu::backward";
    check(OP, "dx", args.x.len(), args.dx.len())?;
    check(OP, "dout", args.x.len(), args.dout.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[cuda::backward(&args)])?,
    }
    Ok(())
}
