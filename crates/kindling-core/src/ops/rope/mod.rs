//! Rotary position embedding on interleaved pairs of each head:
//! (x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos). Source: arXiv 2104.09864.
//!
//! x: (rows, `row_width`), of which the first `heads` heads of each row are rotated (q and k of a
//! fused q | k | v row); cos, sin: (positions, `head_size`). Pair k at position p is rotated by the
//! angle p theta^(-2k / `head_size`), which may be scaled (`Scaling`). The tables hold it twice,
//! once for each element of the pair. The position of a row is `first_position` + row %
//! `positions`. The backward pass rotates by the negative angle.

mod angles;
mod cpu;
pub mod cuda;
pub mod reference;

pub use angles::{Angles, Scaling, fill_table, tables};

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_positive};

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub row_width: usize,
    /// Number of heads that are rotated, from the start of the row.
    pub heads: usize,
    /// Even.
    pub head_size: usize,
    /// Number of rows in a sequence.
    pub positions: usize,
    /// Position of the first row of each sequence.
    pub first_position: usize,
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Rotated in place.
    pub x: Out<'a>,
    pub cos: In<'a>,
    pub sin: In<'a>,
    pub shape: Shape,
}

/// Rotates x in place.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape or the tables end before the
/// last position, and `ERR_INVALID_ARGUMENT` if a size is 0.
pub fn forward(dev: &Device, args: Forward) -> Result<()> {
    rotate("rope::forward", dev, args, 1.0)
}

/// Buffers of `backward`.
#[derive(Debug)]
pub struct Backward<'a> {
    /// Rotated in place.
    pub dx: Out<'a>,
    pub cos: In<'a>,
    pub sin: In<'a>,
    pub shape: Shape,
}

/// Rotates dx in place, by the negative angles.
///
/// # Errors
/// As for `forward`.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    let Backward { dx, cos, sin, shape } = args;
    rotate("rope::backward", dev, Forward { x: dx, cos, sin, shape }, -1.0)
}

fn rotate(op: &'static str, dev: &Device, args: Forward, direction: f32) -> Result<()> {
    let s = args.shape;
    check_positive(op, "head_size", s.head_size)?;
    check_positive(op, "positions", s.positions)?;
    check_positive(op, "row_width", s.row_width)?;
    check(op, "x", s.rows * s.row_width, args.x.len())?;
    check(op, "heads", s.heads * s.head_size, (s.heads * s.head_size).min(s.row_width))?;
    let needed = (s.first_position + s.positions.min(s.rows)) * s.head_size;
    check(op, "cos", needed, args.cos.len().min(needed))?;
    check(op, "sin", needed, args.sin.len().min(needed))?;
    check(op, "head (even size)", s.head_size / 2 * 2, s.head_size)?;
    let _span = dev.span(op);
    match dev {
        Device::Cpu(cpu) => cpu::rotate(cpu, args, direction),
        Device::Cuda(gpu) => gpu.run(&[cuda::rotate(&args, direction)])?,
    }
    Ok(())
}
