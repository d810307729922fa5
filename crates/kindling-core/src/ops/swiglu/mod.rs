//! The gate of SwiGLU. out = silu(gate) up. Source: arXiv 2002.05202.
//!
//! `gate_up`, `dgate_up`: (rows, 2 width), each row w1 x | w3 x; out, dout: (rows, width).
//! dgate = dout up sigmoid(gate) (1 + gate (1 - sigmoid(gate))); dup = dout silu(gate).
//!
//! `forward` and `backward_in_place` also take bf16 buffers. The arithmetic is f32.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    /// Columns of out.
    pub width: usize,
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub out: Out<'a>,
    pub gate_up: In<'a>,
    pub shape: Shape,
}

/// Computes out.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, and `ERR_INVALID_ARGUMENT` if
/// the width is 0.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    const OP: &str = "swiglu::forward";
    let s = args.shape;
    check_positive(OP, "width", s.width)?;
    check(OP, "gate_up", 2 * s.rows * s.width, args.gate_up.len())?;
    check(OP, "out", s.rows * s.width, args.out.len())?;
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
    pub dgate_up: Out<'a>,
    pub dout: In<'a>,
    pub gate_up: In<'a>,
    pub shape: Shape,
}

/// Computes the gradients of gate and up.
///
/// # Errors
/// As for `forward`.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "swiglu::backward";
    let s = args.shape;
    check_positive(OP, "width", s.width)?;
    check(OP, "gate_up", 2 * s.rows * s.width, args.gate_up.len())?;
    check(OP, "dgate_up", 2 * s.rows * s.width, args.dgate_up.len())?;
    check(OP, "dout", s.rows * s.width, args.dout.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[cuda::backward(&args)])?,
    }
    Ok(())
}

/// Buffers of `backward_in_place`. On entry `out` holds dout.
#[derive(Debug)]
pub struct BackwardInPlace<'a> {
    pub gate_up: Out<'a>,
    pub out: Out<'a>,
    /// Whether to replace dout by the output of the forward pass. Only CUDA can leave dout there.
    pub recompute: bool,
    pub shape: Shape,
}

/// Replaces `gate_up` by its gradient, and dout by the output of the forward pass if `recompute` is
/// set.
///
/// # Errors
/// As for `forward`, and `ERR_UNSUPPORTED` if `recompute` is not set on the CPU.
pub fn backward_in_place(dev: &Device, args: BackwardInPlace) -> Result<()> {
    const OP: &str = "swiglu::backward_in_place";
    let s = args.shape;
    check_positive(OP, "width", s.width)?;
    check(OP, "gate_up", 2 * s.rows * s.width, args.gate_up.len())?;
    check(OP, "out", s.rows * s.width, args.out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(_) if !args.recompute => {
            return Err(Error::Unsupported(format!("{OP} recomputes the output on the CPU")));
        }
        Device::Cpu(cpu) => cpu::backward_in_place(cpu, args),
        Device::Cuda(gpu) => gpu.run(&[cuda::backward_in_place(&args)])?,
    }
    Ok(())
}
