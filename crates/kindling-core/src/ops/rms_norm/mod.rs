//! RMSNorm. out = x rstd weight, rstd = 1 / sqrt(mean(x^2) + eps) of each row. Source: arXiv 1910.07467.
//!
//! x, out, dx, dout, sum, residual: (rows, width); weight, dweight: (width); rstd: (rows), saved.
//! dx = rstd (weight dout - x rstd^2 mean(weight dout x)); dweight += column sums of dout x rstd.
//! The residual forms take the addition of the residual stream, or of its gradient, into the same pass.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::cuda::Cuda;
use crate::device::Device;
use crate::ops::{check, check_positive};

/// Sizes of a norm.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows.
    pub rows: usize,
    /// Width of a row.
    pub width: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// out = norm(x).
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn forward(dev: &Device, out: Out, rstd: Out, x: In, weight: In, s: Shape) -> Result<()> {
    const OP: &str = "rms_norm::forward";
    check_positive(OP, "width", s.width)?;
    check(OP, "x", s.rows * s.width, x.len())?;
    check(OP, "out", s.rows * s.width, out.len())?;
    check(OP, "rstd", s.rows, rstd.len())?;
    check(OP, "weight", s.width, weight.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => {
            cpu::forward(cpu, out.cpu(), None, rstd.cpu(), x.cpu(), None, weight.cpu(), s)
        }
        Device::Cuda(gpu) => {
            let (dtype, weight) = (out.dtype(), weight.pointer());
            gpu.run(&[cuda::forward(
                dtype,
                out.pointer(),
                rstd.pointer(),
                x.pointer(),
                None,
                weight,
                s,
            )])?;
        }
    }
    Ok(())
}

/// sum = x + residual; out = norm(sum).
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn forward_residual(
    dev: &Device,
    out: Out,
    sum: Out,
    rstd: Out,
    x: In,
    residual: In,
    weight: In,
    s: Shape,
) -> Result<()> {
    const OP: &str = "rms_norm::forward_residual";
    check_positive(OP, "width", s.width)?;
    check(OP, "x", s.rows * s.width, x.len())?;
    check(OP, "residual", s.rows * s.width, residual.len())?;
    check(OP, "sum", s.rows * s.width, sum.len())?;
    check(OP, "out", s.rows * s.width, out.len())?;
    check(OP, "rstd", s.rows, rstd.len())?;
    check(OP, "weight", s.width, weight.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::forward(
            cpu,
            out.cpu(),
            Some(sum.cpu()),
            rstd.cpu(),
            x.cpu(),
            Some(residual.cpu()),
            weight.cpu(),
            s,
        ),
        Device::Cuda(gpu) => {
            let residual = Some((sum.pointer(), residual.pointer()));
            let (dtype, weight) = (out.dtype(), weight.pointer());
            gpu.run(&[cuda::forward(
                dtype,
                out.pointer(),
                rstd.pointer(),
                x.pointer(),
                residual,
                weight,
                s,
            )])?;
        }
    }
    Ok(())
}

/// out = x rstd weight, from the rstd that a forward pass saved.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn recompute(dev: &Device, out: Out, x: In, weight: In, rstd: In, s: Shape) -> Result<()> {
    const OP: &str = "rms_norm::recompute";
    check_positive(OP, "width", s.width)?;
    check(OP, "x", s.rows * s.width, x.len())?;
    check(OP, "out", s.rows * s.width, out.len())?;
    check(OP, "rstd", s.rows, rstd.len())?;
    check(OP, "weight", s.width, weight.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::recompute(cpu, out.cpu(), x.cpu(), weight.cpu(), rstd.cpu(), s),
        Device::Cuda(gpu) => {
            let (dtype, weight) = (out.dtype(), weight.pointer());
            gpu.run(&[cuda::recompute(
                dtype,
                out.pointer(),
                x.pointer(),
                weight,
                rstd.pointer(),
                s,
            )])?;
        }
    }
    Ok(())
}

/// dx = gradient of norm at x; dweight += its gradient.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward(
    dev: &Device,
    dx: Out,
    dweight: Out,
    dout: In,
    x: In,
    weight: In,
    rstd: In,
    s: Shape,
) -> Result<()> {
    check_backward("rms_norm::backward", &dx, &dweight, dout, x, weight, rstd, s)?;
    let _span = dev.span("rms_norm::backward");
    match dev {
        Device::Cpu(cpu) => {
            cpu::backward(
                cpu,
                dx.cpu(),
                dweight.cpu(),
                dout.cpu(),
                false,
                x.cpu(),
                weight.cpu(),
                rstd.cpu(),
                s,
            );
        }
        Device::Cuda(gpu) => on_cuda(gpu, &dx, &dweight, dout, x, weight, rstd, s, false)?,
    }
    Ok(())
}

/// dx += gradient of norm at x, where dx comes with the gradient of the residual stream; dweight += its gradient.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward_residual(
    dev: &Device,
    dx: Out,
    dweight: Out,
    dout: In,
    x: In,
    weight: In,
    rstd: In,
    s: Shape,
) -> Result<()> {
    const OP: &str = "rms_norm::backward_residual";
    check_backward(OP, &dx, &dweight, dout, x, weight, rstd, s)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(
            cpu,
            dx.cpu(),
            dweight.cpu(),
            dout.cpu(),
            true,
            x.cpu(),
            weight.cpu(),
            rstd.cpu(),
            s,
        ),
        Device::Cuda(gpu) => on_cuda(gpu, &dx, &dweight, dout, x, weight, rstd, s, true)?,
    }
    Ok(())
}

/// The backward pass on a CUDA device; dx is added to where `add`.
fn on_cuda(
    gpu: &Cuda,
    dx: &Out,
    dweight: &Out,
    dout: In,
    x: In,
    weight: In,
    rstd: In,
    s: Shape,
    add: bool,
) -> Result<()> {
    let [partial] = gpu.scratch([cuda::partial_len(s) * size_of::<f32>()])?;
    gpu.run(&cuda::backward(
        dout.dtype(),
        dx.pointer(),
        dweight.pointer(),
        partial,
        dout.pointer(),
        x.pointer(),
        weight.pointer(),
        rstd.pointer(),
        s,
        add,
    ))
}

fn check_backward(
    op: &'static str,
    dx: &Out,
    dweight: &Out,
    dout: In,
    x: In,
    weight: In,
    rstd: In,
    s: Shape,
) -> Result<()> {
    check_positive(op, "width", s.width)?;
    check(op, "dx", s.rows * s.width, dx.len())?;
    check(op, "dout", s.rows * s.width, dout.len())?;
    check(op, "x", s.rows * s.width, x.len())?;
    check(op, "rstd", s.rows, rstd.len())?;
    check(op, "weight", s.width, weight.len())?;
    check(op, "dweight", s.width, dweight.len())
}
