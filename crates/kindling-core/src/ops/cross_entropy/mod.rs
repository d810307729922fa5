//! Cross-entropy. loss of a row = lse - score of its target, lse = log(sum(exp(scores))); the mean counts the rows whose
//! target is not ignored (-100).
//!
//! logits, dlogits: (rows, vocabulary); targets: (rows); lse: (rows), saved.
//! dlogits = (exp(logits - lse) - 1 at the target) scale, zero in ignored rows.

mod cpu;
pub mod cuda;
pub mod reference;

pub(crate) use cpu::row_statistics;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_targets};

/// Sizes of the scores.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows.
    pub rows: usize,
    /// Columns: scores of a row.
    pub vocab_size: usize,
}

/// Losses added up, and how many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSum {
    /// Sum over the rows that count, in nats.
    pub sum: f64,
    /// Rows that count.
    pub count: usize,
}

impl LossSum {
    /// The mean loss; 0 where no row counts.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Takes the losses of more rows in.
    pub fn add(&mut self, more: Self) {
        self.sum += more.sum;
        self.count += more.count;
    }
}

/// lse of each row; gives the losses.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is written.
pub fn forward(dev: &Device, lse: Out, logits: In, targets: &[i32], s: Shape) -> Result<LossSum> {
    const OP: &str = "cross_entropy::forward";
    check(OP, "logits", s.rows * s.vocab_size, logits.len())?;
    check(OP, "targets", s.rows, targets.len())?;
    check(OP, "lse", s.rows, lse.len())?;
    check_targets(targets, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => Ok(cpu::forward(cpu, lse.cpu(), logits.cpu(), targets, s)),
        Device::Cuda(gpu) => {
            let [targets_at, losses, total] = cuda::scratch(gpu, targets)?;
            gpu.run(&[
                cuda::forward(
                    logits.dtype(),
                    lse.pointer(),
                    losses,
                    logits.pointer(),
                    targets_at,
                    s,
                ),
                cuda::add_losses(total, losses, s.rows),
            ])?;
            cuda::read_total(gpu, total, targets)
        }
    }
}

/// dlogits = (softmax - one at the target) scale. For the mean over the rows that count, `scale` is 1 / count.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is written.
pub fn backward(
    dev: &Device,
    dlogits: Out,
    logits: In,
    lse: In,
    targets: &[i32],
    s: Shape,
    scale: f32,
) -> Result<()> {
    const OP: &str = "cross_entropy::backward";
    check(OP, "logits", s.rows * s.vocab_size, logits.len())?;
    check(OP, "dlogits", s.rows * s.vocab_size, dlogits.len())?;
    check(OP, "targets", s.rows, targets.len())?;
    check(OP, "lse", s.rows, lse.len())?;
    check_targets(targets, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => {
            cpu::backward(cpu, dlogits.cpu(), logits.cpu(), lse.cpu(), targets, s, scale)
        }
        Device::Cuda(gpu) => {
            let (targets, dtype) = (gpu.staged(targets)?, logits.dtype());
            let (dlogits, logits, lse) = (dlogits.pointer(), logits.pointer(), lse.pointer());
            gpu.run(&[cuda::backward(dtype, dlogits, logits, lse, targets, s, scale)])?;
        }
    }
    Ok(())
}

/// Replaces the scores by their gradient in the same pass that finds the losses.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is written.
pub fn forward_backward(
    dev: &Device,
    logits: Out,
    targets: &[i32],
    s: Shape,
    scale: f32,
) -> Result<LossSum> {
    const OP: &str = "cross_entropy::forward_backward";
    check(OP, "logits", s.rows * s.vocab_size, logits.len())?;
    check(OP, "targets", s.rows, targets.len())?;
    check_targets(targets, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => Ok(cpu::forward_backward(cpu, logits.cpu(), targets, s, scale)),
        Device::Cuda(gpu) => {
            let [targets_at, losses, total] = cuda::scratch(gpu, targets)?;
            gpu.run(&[
                cuda::forward_backward(
                    logits.dtype(),
                    logits.pointer(),
                    losses,
                    targets_at,
                    s,
                    scale,
                ),
                cuda::add_losses(total, losses, s.rows),
            ])?;
            cuda::read_total(gpu, total, targets)
        }
    }
}
