//! SwiGLU's gate. out = silu(gate) up. Source: arXiv 2002.05202.
//!
//! `gate_up`, `dgate_up`: (rows, 2 width), each row w1 x | w3 x; out, dout: (rows, width).
//! dgate = dout up sigma(gate) (1 + gate (1 - sigma(gate))); dup = dout silu(gate).

mod cpu;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive};

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
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, out.cpu(), gate_up.cpu(), s),
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
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, dgate_up.cpu(), dout.cpu(), gate_up.cpu(), s),
    }
    Ok(())
}
