//! Rotary positions on interleaved pairs: (x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos). Source: arXiv 2104.09864.
//!
//! x: (rows, `row_width`), rotated in place over the first `heads` heads of each row (q and k of a fused q|k|v row);
//! cos, sin: (positions, `head_size`), each angle position x theta^(-2k / `head_size`) written for both elements of pair k.
//! backward rotates the gradient by the negative angle. A row's position is `first_position` + row % `positions`.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive};

/// Sizes of a rotation.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of x.
    pub rows: usize,
    /// Elements from one row to the next.
    pub row_width: usize,
    /// Heads rotated, from the start of the row.
    pub heads: usize,
    /// Width of a head, even.
    pub head_size: usize,
    /// Rows of one sequence.
    pub positions: usize,
    /// Position of a sequence's first row.
    pub first_position: usize,
}

/// The tables (cos, sin), each (`max_positions`, `head_size`), their angles computed in f64.
pub fn tables(max_positions: usize, head_size: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    let mut cos = Vec::with_capacity(max_positions * head_size);
    let mut sin = Vec::with_capacity(max_positions * head_size);
    for position in 0..max_positions {
        let row = angles(position, head_size, theta);
        cos.extend(row.0);
        sin.extend(row.1);
    }
    (cos, sin)
}

/// The row of `tables` of one position, which may be any.
pub fn angles(position: usize, head_size: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    (0..head_size)
        .map(|element| {
            let pair = (element / 2) as f64;
            let angle = position as f64 * theta.powf(-2.0 * pair / head_size as f64);
            (angle.cos() as f32, angle.sin() as f32)
        })
        .unzip()
}

/// Rotates x in place.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape or the tables end before the last position.
pub fn forward(dev: &Device, x: Out, cos: In, sin: In, s: Shape) -> Result<()> {
    rotate("rope::forward", dev, x, cos, sin, s, 1.0)
}

/// Rotates the gradient in place, by the negative angle.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when a buffer does not fit the shape or the tables end before the last position.
pub fn backward(dev: &Device, dx: Out, cos: In, sin: In, s: Shape) -> Result<()> {
    rotate("rope::backward", dev, dx, cos, sin, s, -1.0)
}

fn rotate(
    op: &'static str,
    dev: &Device,
    x: Out,
    cos: In,
    sin: In,
    s: Shape,
    direction: f32,
) -> Result<()> {
    check_positive(op, "head_size", s.head_size)?;
    check_positive(op, "positions", s.positions)?;
    check_positive(op, "row_width", s.row_width)?;
    check(op, "x", s.rows * s.row_width, x.len())?;
    check(op, "heads", s.heads * s.head_size, (s.heads * s.head_size).min(s.row_width))?;
    let needed = (s.first_position + s.positions.min(s.rows)) * s.head_size;
    check(op, "cos", needed, cos.len().min(needed))?;
    check(op, "sin", needed, sin.len().min(needed))?;
    check(op, "head (even size)", s.head_size / 2 * 2, s.head_size)?;
    let _span = dev.span(op);
    match dev {
        Device::Cpu(cpu) => cpu::rotate(cpu, x.cpu(), cos.cpu(), sin.cpu(), s, direction),
        Device::Cuda(gpu) => {
            let (cos, sin) = (cos.pointer(), sin.pointer());
            gpu.run(&[cuda::rotate(x.dtype(), x.pointer(), cos, sin, s, direction)])?;
        }
    }
    Ok(())
}
