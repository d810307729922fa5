//! Softmax. out = exp(x) / sum(exp(x)) of each row, computed as exp(x - max(x)).
//!
//! x, out, dx, dout: (rows, columns). dx = out (dout - sum(dout out)) of each row.
//!
//! The probability of a score of -inf is 0. A row of -inf alone has no softmax: it becomes NaN.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::cpu::Cpu;
use crate::cuda::Launch;
use crate::device::Device;
use crate::ops::check;

/// Rows are normalized one by one.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub columns: usize,
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub x: In<'a>,
    pub shape: Shape,
}

/// Computes out.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    run_forward("softmax::forward", dev, args, cpu::forward, cuda::forward)
}

/// Buffers of `backward`. `out` is that of the forward pass.
#[derive(Debug)]
pub struct Backward<'a> {
    pub dx: Out<'a>,
    pub dout: In<'a>,
    pub out: In<'a>,
    pub shape: Shape,
}

/// Computes dx.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    run_backward("softmax::backward", dev, args, cpu::backward, cuda::backward)
}

/// Checks and dispatches a forward pass, of softmax or of log-softmax.
pub(super) fn run_forward(
    op: &'static str,
    dev: &Device,
    args: Forward,
    on_cpu: fn(&Cpu, Forward),
    launch: fn(&Forward) -> Launch,
) -> Result<()> {
    let len = args.shape.rows * args.shape.columns;
    check(op, "x", len, args.x.len())?;
    check(op, "out", len, args.out.len())?;
    let _span = dev.span(op);
    match dev {
        Device::Cpu(cpu) => on_cpu(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[launch(&args)])?,
    }
    Ok(())
}

/// Checks and dispatches a backward pass, of softmax or of log-softmax.
pub(super) fn run_backward(
    op: &'static str,
    dev: &Device,
    args: Backward,
    on_cpu: fn(&Cpu, Backward),
    launch: fn(&Backward) -> Launch,
) -> Result<()> {
    let len = args.shape.rows * args.shape.columns;
    check(op, "dx", len, args.dx.len())?;
    check(op, "dout", len, args.dout.len())?;
    check(op, "out", len, args.out.len())?;
    let _span = dev.span(op);
    match dev {
        Device::Cpu(cpu) => on_cpu(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[launch(&args)])?,
    }
    Ok(())
}
