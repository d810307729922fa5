//! Linear layer: out = x W^T + bias.
//!
//! x, dx: (rows, inputs); weight: (outputs, inputs); bias: (outputs); out, dout: (rows, outputs).
//! dx = dout W; dweight += dout^T x; dbias += column sums of dout.
//!
//! If the device multiplies in bf16, x, dout and weight may be bf16. So may out (without a bias)
//! and dx (without accumulating); dweight and dbias are always f32.
//!
//! The weight is stored as (outputs, inputs), the transpose of `linear_matrix` in files. Matrices
//! applied together (q, k, v; w1, w3) are then one matrix of stacked rows, and every named
//! parameter is one contiguous run of memory.

mod cpu;
pub mod cuda;
mod dot;
mod dot_bf16;
mod dot_vector;
pub mod reference;

pub(crate) use cpu::device_scratch_len;

use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive};
use crate::profile::Span;
use crate::{Error, Result};

/// Sizes of a linear layer: `inputs` features in, `outputs` features out, for each of `rows` rows.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
}

impl Shape {
    fn input_len(&self) -> usize {
        self.rows * self.inputs
    }

    fn output_len(&self) -> usize {
        self.rows * self.outputs
    }

    fn weight_len(&self) -> usize {
        self.outputs * self.inputs
    }

    fn check_positive(&self, op: &'static str) -> Result<()> {
        check_positive(op, "inputs", self.inputs)?;
        check_positive(op, "outputs", self.outputs)
    }

    /// Starts a profile span of `op`, counted as one product of the layer.
    pub(crate) fn span<'a>(&self, dev: &'a Device, op: &'static str) -> Span<'a> {
        dev.profile().product(op, || {
            let flops = 2.0 * self.rows as f64 * self.inputs as f64 * self.outputs as f64;
            (format!("{} -> {}", self.inputs, self.outputs), flops)
        })
    }
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub x: In<'a>,
    pub weight: In<'a>,
    pub bias: Option<In<'a>>,
    pub shape: Shape,
}

/// Computes out = x W^T + bias.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, and `ERR_INVALID_ARGUMENT` if
/// `inputs` or `outputs` is 0.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "linear::forward";
    let s = args.shape;
    check(OP, "x", s.input_len(), args.x.len())?;
    s.check_positive(OP)?;
    check(OP, "weight", s.weight_len(), args.weight.len())?;
    check(OP, "out", s.output_len(), args.out.len())?;
    if let Some(bias) = args.bias {
        check(OP, "bias", s.outputs, bias.len())?;
    }
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, args),
        Device::Cuda(gpu) => cuda::forward(gpu, args)?,
    }
    Ok(())
}

/// Buffers of `forward_bf16_weight`. The weight is a copy in bf16, kept for decoding.
#[derive(Debug)]
pub struct ForwardBf16Weight<'a> {
    pub out: Out<'a>,
    pub x: In<'a>,
    pub weight: &'a [u16],
    pub bias: Option<In<'a>>,
    pub shape: Shape,
}

/// Computes out = x W^T + bias for a few rows of x, rounded to bf16, and a bf16 weight.
///
/// Such a product takes as long as reading the weight, and a bf16 weight is half as large.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, `ERR_INVALID_ARGUMENT` if
/// `inputs` or `outputs` is 0, and `ERR_UNSUPPORTED` if the device is not the CPU.
pub fn forward_bf16_weight(dev: &Device, args: ForwardBf16Weight) -> Result<()> {
    const OP: &str = "linear::forward_bf16_weight";
    let s = args.shape;
    check(OP, "x", s.input_len(), args.x.len())?;
    s.check_positive(OP)?;
    check(OP, "weight", s.weight_len(), args.weight.len())?;
    check(OP, "out", s.output_len(), args.out.len())?;
    if let Some(bias) = args.bias {
        check(OP, "bias", s.outputs, bias.len())?;
    }
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward_bf16_weight(cpu, args),
        Device::Cuda(_) => {
            return Err(Error::Unsupported(format!("{OP} runs on the CPU only")));
        }
    }
    Ok(())
}

/// Buffers of `backward_input`. dx is added to if `accumulate` is set, else overwritten.
#[derive(Debug)]
pub struct BackwardInput<'a> {
    pub dx: Out<'a>,
    pub dout: In<'a>,
    pub weight: In<'a>,
    pub shape: Shape,
    pub accumulate: bool,
}

/// Computes dx = dout W, or dx += dout W.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, and `ERR_INVALID_ARGUMENT` if
/// `inputs` or `outputs` is 0.
pub fn backward_input(dev: &Device, args: BackwardInput) -> Result<()> {
    const OP: &str = "linear::backward_input";
    let s = args.shape;
    check(OP, "dx", s.input_len(), args.dx.len())?;
    s.check_positive(OP)?;
    check(OP, "weight", s.weight_len(), args.weight.len())?;
    check(OP, "dout", s.output_len(), args.dout.len())?;
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward_input(cpu, args),
        Device::Cuda(gpu) => cuda::backward_input(gpu, args)?,
    }
    Ok(())
}

/// Buffers of `backward_weight`. dweight and dbias are added to.
#[derive(Debug)]
pub struct BackwardWeight<'a> {
    pub dweight: Out<'a>,
    pub dbias: Option<Out<'a>>,
    pub dout: In<'a>,
    pub x: In<'a>,
    pub shape: Shape,
}

/// Computes dweight += dout^T x and dbias += column sums of dout.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, and `ERR_INVALID_ARGUMENT` if
/// `inputs` or `outputs` is 0.
pub fn backward_weight(dev: &Device, args: BackwardWeight) -> Result<()> {
    const OP: &str = "linear::backward_weight";
    let s = args.shape;
    s.check_positive(OP)?;
    check(OP, "dweight", s.weight_len(), args.dweight.len())?;
    check(OP, "x", s.input_len(), args.x.len())?;
    check(OP, "dout", s.output_len(), args.dout.len())?;
    if let Some(dbias) = &args.dbias {
        check(OP, "dbias", s.outputs, dbias.len())?;
    }
    let _span = s.span(dev, OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward_weight(cpu, args),
        Device::Cuda(gpu) => cuda::backward_weight(gpu, args)?,
    }
    Ok(())
}
