//! RMSNorm. out = x rstd weight, with rstd = 1 / sqrt(mean(x^2) + eps) of each row.
//! Source: arXiv 1910.07467.
//!
//! x, out, dx, dout, sum, residual: (rows, width); weight, dweight: (width); rstd: (rows).
//! dx = rstd (weight dout - x rstd^2 mean(weight dout x)); dweight += column sums of dout x rstd.
//!
//! The residual forms fuse an addition to the residual stream, or to its gradient, with the norm.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::buffer::{In, Out};
use crate::cuda::Cuda;
use crate::device::Device;
use crate::ops::{check, check_positive};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub width: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub rstd: Out<'a>,
    pub x: In<'a>,
    pub weight: In<'a>,
    pub shape: Shape,
}

/// Computes out = norm(x) and rstd.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, and `ERR_INVALID_ARGUMENT` if
/// the width is 0.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "rms_norm::forward";
    let s = args.shape;
    check_positive(OP, "width", s.width)?;
    check(OP, "x", s.rows * s.width, args.x.len())?;
    check(OP, "out", s.rows * s.width, args.out.len())?;
    check(OP, "rstd", s.rows, args.rstd.len())?;
    check(OP, "weight", s.width, args.weight.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[cuda::forward(&args)])?,
    }
    Ok(())
}

/// Buffers of `forward_residual`.
#[derive(Debug)]
pub struct ForwardResidual<'a> {
    pub out: Out<'a>,
    pub sum: Out<'a>,
    pub rstd: Out<'a>,
    pub x: In<'a>,
    pub residual: In<'a>,
    pub weight: In<'a>,
    pub shape: Shape,
}

/// Computes sum = x + residual, out = norm(sum) and rstd.
///
/// # Errors
/// As for `forward`.
pub fn forward_residual(dev: &Device, args: ForwardResidual) -> Result<()> {
    const OP: &str = "rms_norm::forward_residual";
    let s = args.shape;
    check_positive(OP, "width", s.width)?;
    check(OP, "x", s.rows * s.width, args.x.len())?;
    check(OP, "residual", s.rows * s.width, args.residual.len())?;
    check(OP, "sum", s.rows * s.width, args.sum.len())?;
    check(OP, "out", s.rows * s.width, args.out.len())?;
    check(OP, "rstd", s.rows, args.rstd.len())?;
    check(OP, "weight", s.width, args.weight.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward_residual(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[cuda::forward_residual(&args)])?,
    }
    Ok(())
}

/// Buffers of `backward`. rstd is that of the forward pass.
#[derive(Debug)]
pub struct Backward<'a> {
    pub dx: Out<'a>,
    /// CUDA only: receives dx in the dtype of dout, for the products that read it.
    pub rounded: Option<Out<'a>>,
    /// Receives norm(x), with the same bits as in the forward pass.
    pub normed: Option<Out<'a>>,
    pub dweight: Out<'a>,
    pub dout: In<'a>,
    pub x: In<'a>,
    pub weight: In<'a>,
    pub rstd: In<'a>,
    pub shape: Shape,
}

/// Computes dx, and adds to dweight.
///
/// # Errors
/// As for `forward`, and `ERR_UNSUPPORTED` for `rounded` on the CPU or a width without a CUDA kernel.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "rms_norm::backward";
    args.check(OP)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, args),
        Device::Cuda(gpu) => args.on_cuda(gpu, OP, false),
    }
}

/// Buffers of `backward_residual`: dx holds the gradient of the residual stream.
pub type BackwardResidual<'a> = Backward<'a>;

/// Adds the gradient of the norm to dx, and to dweight.
///
/// # Errors
/// As for `backward`.
pub fn backward_residual(dev: &Device, args: BackwardResidual) -> Result<()> {
    const OP: &str = "rms_norm::backward_residual";
    args.check(OP)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward_residual(cpu, args),
        Device::Cuda(gpu) => args.on_cuda(gpu, OP, true),
    }
}

impl Backward<'_> {
    fn check(&self, op: &'static str) -> Result<()> {
        let s = self.shape;
        check_positive(op, "width", s.width)?;
        check(op, "dx", s.rows * s.width, self.dx.len())?;
        for out in [&self.rounded, &self.normed].into_iter().flatten() {
            check(op, "dx or out", s.rows * s.width, out.len())?;
        }
        check(op, "dout", s.rows * s.width, self.dout.len())?;
        check(op, "x", s.rows * s.width, self.x.len())?;
        check(op, "rstd", s.rows, self.rstd.len())?;
        check(op, "weight", s.width, self.weight.len())?;
        check(op, "dweight", s.width, self.dweight.len())
    }

    fn on_cuda(&self, gpu: &Cuda, op: &'static str, accumulate: bool) -> Result<()> {
        if !cuda::has_backward(self.shape.width) {
            let width = self.shape.width;
            return Err(Error::Unsupported(format!(
                "{op} has no CUDA kernel for a width of {width}"
            )));
        }
        let [partial] = gpu.scratch([cuda::partial_len(self.shape) * size_of::<f32>()])?;
        gpu.run(&cuda::backward(self, partial, accumulate))
    }
}
