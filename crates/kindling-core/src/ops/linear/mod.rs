//! Linear layer. out = x W^T + bias.
//!
//! x: (rows, inputs); weight: (outputs, inputs); bias: (outputs); out, dout: (rows, outputs).
//! dx = dout W; dweight += dout^T x; dbias += column sums of dout.
//!
//! With products in bf16, x, dout and weight may be kept as bf16, and out and dx too (without bias, not added to).
//!
//! The matrix is held as (outputs, inputs), the transpose of a file's `linear_matrix`: matrices that are applied together
//! (q, k, v; w1, w3) are then one matrix of stacked rows, and every named one is a contiguous run of memory.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive};
use crate::profile::Span;
use crate::{Error, Result};

/// Sizes of a linear layer.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of x and out.
    pub rows: usize,
    /// Columns of x.
    pub inputs: usize,
    /// Columns of out.
    pub outputs: usize,
}

impl Shape {
    fn span<'a>(&self, dev: &'a Device, op: &'static str) -> Span<'a> {
        dev.profile().product(op, || {
            let flops = 2.0 * self.rows as f64 * self.inputs as f64 * self.outputs as f64;
            (format!("{} -> {}", self.inputs, self.outputs), flops)
        })
    }
}

/// out = x W^T + bias.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn forward(
    dev: &Device,
    out: Out,
    x: In,
    weight: In,
    bias: Option<In>,
    s: Shape,
) -> Result<()> {
    const OP: &str = "linear::forward";
    check(OP, "x", s.rows * s.inputs, x.len())?;
    check_positive(OP, "inputs", s.inputs)?;
    check_positive(OP, "outputs", s.outputs)?;
    check(OP, "weight", s.outputs * s.inputs, weight.len())?;
    check(OP, "out", s.rows * s.outputs, out.len())?;
    if let Some(bias) = bias {
        check(OP, "bias", s.outputs, bias.len())?;
    }
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, out, x, weight, bias.map(In::cpu), s),
        Device::Cuda(gpu) => cuda::forward(gpu, &out, x, weight, bias, s)?,
    }
    Ok(())
}

/// out = x W^T + bias for a few rows of x and a weight kept as bf16: half the memory to read. x is rounded to bf16.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape; `ERR_UNSUPPORTED` on another device than the CPU.
pub fn forward_narrow(
    dev: &Device,
    out: Out,
    x: In,
    weight: &[u16],
    bias: Option<In>,
    s: Shape,
) -> Result<()> {
    const OP: &str = "linear::forward_narrow";
    check(OP, "x", s.rows * s.inputs, x.len())?;
    check_positive(OP, "inputs", s.inputs)?;
    check_positive(OP, "outputs", s.outputs)?;
    check(OP, "weight", s.outputs * s.inputs, weight.len())?;
    check(OP, "out", s.rows * s.outputs, out.len())?;
    if let Some(bias) = bias {
        check(OP, "bias", s.outputs, bias.len())?;
    }
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward_narrow(cpu, out, x, weight, bias.map(In::cpu), s),
        Device::Cuda(_) => {
            return Err(Error::Unsupported(format!("{OP} is for weights of the CPU")));
        }
    }
    Ok(())
}

/// dx = dout W, or dx += dout W where `accumulate`.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward_input(
    dev: &Device,
    dx: Out,
    dout: In,
    weight: In,
    s: Shape,
    accumulate: bool,
) -> Result<()> {
    const OP: &str = "linear::backward_input";
    check(OP, "dx", s.rows * s.inputs, dx.len())?;
    check_positive(OP, "inputs", s.inputs)?;
    check_positive(OP, "outputs", s.outputs)?;
    check(OP, "weight", s.outputs * s.inputs, weight.len())?;
    check(OP, "dout", s.rows * s.outputs, dout.len())?;
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward_input(cpu, dx, dout, weight, s, accumulate),
        Device::Cuda(gpu) => cuda::backward_input(gpu, &dx, dout, weight, s, accumulate)?,
    }
    Ok(())
}

/// dweight += dout^T x; dbias += column sums of dout.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward_weight(
    dev: &Device,
    dweight: Out,
    dbias: Option<Out>,
    dout: In,
    x: In,
    s: Shape,
) -> Result<()> {
    const OP: &str = "linear::backward_weight";
    check_positive(OP, "inputs", s.inputs)?;
    check_positive(OP, "outputs", s.outputs)?;
    check(OP, "dweight", s.outputs * s.inputs, dweight.len())?;
    check(OP, "x", s.rows * s.inputs, x.len())?;
    check(OP, "dout", s.rows * s.outputs, dout.len())?;
    if let Some(dbias) = &dbias {
        check(OP, "dbias", s.outputs, dbias.len())?;
    }
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => {
            cpu::backward_weight(cpu, dweight, dout, x, s);
            if let Some(dbias) = dbias {
                cpu::backward_bias(cpu, dbias.cpu(), dout.cpu(), s);
            }
        }
        Device::Cuda(gpu) => cuda::backward_weight(gpu, &dweight, dbias.as_ref(), dout, x, s)?,
    }
    Ok(())
}
