//! SwiGLU's gate. out = silu(gate) up. Source: arXiv 2002.05202.
//!
//! `gate_up`, `dgate_up`: (rows, 2 width), each row w1 x | w3 x; out, dout: (rows, width).
//! `forward` and `backward_in_place` take all of them as bf16 too; the arithmetic is f32.
//! dgate = dout up sigma(gate) (1 + gate (1 - sigma(gate))); dup = dout silu(gate).

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive, with_dirty_scratch};

/// Sizes of a gate.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows.
    pub rows: usize,
    /// Columns of out.
    pub width: usize,
}

/// out = silu(gate) up.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn forward(dev: &Device, out: Out, gate_up: In, s: Shape) -> Result<()> {
    const OP: &str = "swiglu::forward";
    check_positive(OP, "width", s.width)?;
    check(OP, "gate_up", 2 * s.rows * s.width, gate_up.len())?;
    check(OP, "out", s.rows * s.width, out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => match (out, gate_up) {
            (Out::CpuBf16(out), In::CpuBf16(gate_up)) => cpu::forward_bf16(cpu, out, gate_up, s),
            (out, gate_up) => cpu::forward(cpu, out.cpu(), gate_up.cpu(), s),
        },
        Device::Cuda(gpu) => {
            gpu.run(&[cuda::forward(out.dtype(), out.pointer(), gate_up.pointer(), s)])?
        }
    }
    Ok(())
}

/// `dgate_up` = gradients of gate and up.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward(dev: &Device, dgate_up: Out, dout: In, gate_up: In, s: Shape) -> Result<()> {
    const OP: &str = "swiglu::backward";
    check_positive(OP, "width", s.width)?;
    check(OP, "gate_up", 2 * s.rows * s.width, gate_up.len())?;
    check(OP, "dgate_up", 2 * s.rows * s.width, dgate_up.len())?;
    check(OP, "dout", s.rows * s.width, dout.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => {
            let dgate_up = dgate_up.cpu();
            dgate_up.copy_from_slice(gate_up.cpu());
            with_dirty_scratch(dout.len(), |out| {
                out.copy_from_slice(dout.cpu());
                cpu::backward_in_place(cpu, dgate_up, out, s);
            });
        }
        Device::Cuda(gpu) => {
            let (dtype, gate_up) = (dout.dtype(), gate_up.pointer());
            gpu.run(&[cuda::backward(dtype, dgate_up.pointer(), 0, dout.pointer(), gate_up, s)])?;
        }
    }
    Ok(())
}

/// The backward pass of a forward pass whose output was not kept: `gate_up` becomes its own gradient, and `out`, which
/// comes with dout, becomes the output again.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape.
pub fn backward_in_place(dev: &Device, gate_up: Out, out: Out, s: Shape) -> Result<()> {
    const OP: &str = "swiglu::backward_in_place";
    check_positive(OP, "width", s.width)?;
    check(OP, "gate_up", 2 * s.rows * s.width, gate_up.len())?;
    check(OP, "out", s.rows * s.width, out.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => match (gate_up, out) {
            (Out::CpuBf16(gate_up), Out::CpuBf16(out)) => {
                cpu::backward_in_place_bf16(cpu, gate_up, out, s)
            }
            (gate_up, out) => cpu::backward_in_place(cpu, gate_up.cpu(), out.cpu(), s),
        },
        Device::Cuda(gpu) => {
            let (dtype, out, gate_up) = (out.dtype(), out.pointer(), gate_up.pointer());
            gpu.run(&[cuda::backward(dtype, gate_up, out, out, gate_up, s)])?;
        }
    }
    Ok(())
}
