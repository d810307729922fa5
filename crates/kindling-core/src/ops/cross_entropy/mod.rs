//! Cross-entropy. The loss of a row is lse - logits[target], with lse = log(sum(exp(logits))).
//!
//! logits, dlogits: (rows, `vocab_size`); targets: (rows), -100 if ignored; lse: (rows), saved for
//! backward. The mean is over the rows that are not ignored. On the CPU, `forward` and
//! `forward_backward` also take logits in bf16, and compute in f32.
//!
//! dlogits = (exp(logits - lse) - (1 at the target)) scale, zero in ignored rows.

mod cpu;
pub mod cuda;
pub mod reference;

pub(crate) use cpu::row_statistics;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, check_targets};

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub vocab_size: usize,
}

impl Shape {
    fn len(&self) -> usize {
        self.rows * self.vocab_size
    }
}

/// A sum of losses, with their number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSum {
    /// Sum over the rows that are not ignored, in nats.
    pub sum: f64,
    /// Rows that are not ignored.
    pub count: usize,
}

impl LossSum {
    /// Returns the mean loss, or 0 if every row was ignored.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Adds the losses of more rows.
    pub fn add(&mut self, more: Self) {
        self.sum += more.sum;
        self.count += more.count;
    }
}

/// Buffers of `forward`.
#[derive(Debug)]
pub struct Forward<'a> {
    pub lse: Out<'a>,
    pub logits: In<'a>,
    pub targets: &'a [i32],
    pub shape: Shape,
}

/// Computes the lse of each row. Returns the losses.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, and `ERR_TOKEN_OUT_OF_RANGE` if
/// a target is outside the vocabulary; nothing is written then.
pub fn forward(dev: &Device, args: Forward) -> Result<LossSum> {
    const OP: &str = "cross_entropy::forward";
    let s = args.shape;
    check(OP, "logits", s.len(), args.logits.len())?;
    check(OP, "targets", s.rows, args.targets.len())?;
    check(OP, "lse", s.rows, args.lse.len())?;
    check_targets(args.targets, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => Ok(cpu::forward(cpu, args)),
        Device::Cuda(gpu) => {
            let scratch = cuda::Scratch::new(gpu, args.targets)?;
            let addresses = cuda::Forward {
                lse: args.lse.pointer(),
                losses: scratch.losses,
                logits: args.logits.pointer(),
                targets: scratch.targets,
            };
            gpu.run(&[
                cuda::forward(addresses, cuda::Logits::dense(args.logits.dtype(), s)),
                cuda::add_losses(scratch.total, scratch.losses, s.rows),
            ])?;
            cuda::read_total(gpu, scratch.total, args.targets)
        }
    }
}

/// Buffers of `backward`. For the gradient of the mean loss, `scale` is 1 / (rows not ignored).
#[derive(Debug)]
pub struct Backward<'a> {
    pub dlogits: Out<'a>,
    pub logits: In<'a>,
    pub lse: In<'a>,
    pub targets: &'a [i32],
    pub scale: f32,
    pub shape: Shape,
}

/// Computes dlogits = (softmax(logits) - (1 at the target)) scale.
///
/// # Errors
/// As for `forward`.
pub fn backward(dev: &Device, args: Backward) -> Result<()> {
    const OP: &str = "cross_entropy::backward";
    let s = args.shape;
    check(OP, "logits", s.len(), args.logits.len())?;
    check(OP, "dlogits", s.len(), args.dlogits.len())?;
    check(OP, "targets", s.rows, args.targets.len())?;
    check(OP, "lse", s.rows, args.lse.len())?;
    check_targets(args.targets, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, args),
        Device::Cuda(gpu) => {
            let addresses = cuda::Backward {
                dlogits: args.dlogits.pointer(),
                logits: args.logits.pointer(),
                lse: args.lse.pointer(),
                targets: gpu.staged(args.targets)?,
            };
            let logits = cuda::Logits::dense(args.logits.dtype(), s);
            gpu.run(&[cuda::backward(addresses, args.scale, logits)])?;
        }
    }
    Ok(())
}

/// Buffers of `forward_backward`. The logits are replaced by their gradient.
#[derive(Debug)]
pub struct ForwardBackward<'a> {
    pub logits: Out<'a>,
    pub targets: &'a [i32],
    pub scale: f32,
    pub shape: Shape,
}

/// Computes the losses and replaces the logits by dlogits, in one pass over each row. Returns the
/// losses.
///
/// # Errors
/// As for `forward`.
pub fn forward_backward(dev: &Device, args: ForwardBackward) -> Result<LossSum> {
    const OP: &str = "cross_entropy::forward_backward";
    let s = args.shape;
    check(OP, "logits", s.len(), args.logits.len())?;
    check(OP, "targets", s.rows, args.targets.len())?;
    check_targets(args.targets, s.vocab_size)?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => Ok(cpu::forward_backward(cpu, args)),
        Device::Cuda(gpu) => {
            let scratch = cuda::Scratch::new(gpu, args.targets)?;
            let addresses = cuda::ForwardBackward {
                logits: args.logits.pointer(),
                losses: scratch.losses,
                targets: scratch.targets,
            };
            let logits = cuda::Logits::dense(args.logits.dtype(), s);
            gpu.run(&[
                cuda::forward_backward(addresses, args.scale, logits),
                cuda::add_losses(scratch.total, scratch.losses, s.rows),
            ])?;
            cuda::read_total(gpu, scratch.total, args.targets)
        }
    }
}
