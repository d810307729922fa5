//! Output layer with cross-entropy, in blocks of rows: the (rows, vocabulary) scores never exist whole, and the gradient of
//! a block's scores is used at once.
//!
//! x, dx: (rows, `d_model`); weight, dweight: (`vocab_size`, `d_model`); targets: (rows), -100 ignored.
//! dx is overwritten, dweight added to; both are gradients of scale x mean loss.

mod cuda;

use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::{self, LossSum};
use crate::ops::{IGNORED_TARGET, check, check_targets, linear};
use cuda::{Gradients, Total};

/// Scores of one block, in elements: large enough that packing the weight matrix is worth it, 48 MiB.
const BLOCK_ELEMENTS: usize = 12 << 20;
/// Most rows of a block.
const BLOCK_ROWS: usize = 1024;

/// Sizes of an output layer.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of x.
    pub rows: usize,
    /// Columns of x.
    pub d_model: usize,
    /// Scores of a row.
    pub vocab_size: usize,
}

impl Shape {
    fn block_rows(&self) -> usize {
        let most =
            (BLOCK_ELEMENTS / self.vocab_size.max(1)).clamp(64, BLOCK_ROWS).min(self.rows.max(1));
        // Blocks of equal height rather than a small last one.
        self.rows.div_ceil(self.rows.div_ceil(most).max(1)).max(1)
    }
}

/// Memory for the scores of a block; grows to the largest block asked for and is kept.
#[derive(Debug, Default)]
pub struct Scratch {
    logits: Option<Buffer>,
    lse: Option<Buffer>,
    /// On a CUDA device: the losses of the rows, the targets, and the sums of losses, unread and a call's own.
    losses: Option<Buffer>,
    targets: Option<Buffer>,
    totals: Option<Buffer>,
    /// Losses nobody has read. On a CUDA device the sum is in `totals`.
    unread: LossSum,
    most_rows: Option<usize>,
}

impl Scratch {
    /// Memory of a CUDA device for blocks of at most `rows` rows, where the default is too much.
    pub fn of_blocks(rows: usize) -> Self {
        Self { most_rows: Some(rows.max(1)), ..Self::default() }
    }

    fn reserve(
        &mut self,
        dev: &Device,
        rows: usize,
        vocab_size: usize,
    ) -> Result<(&mut Buffer, &mut Buffer)> {
        Ok((
            grown(&mut self.logits, dev, rows * vocab_size, Dtype::F32)?,
            grown(&mut self.lse, dev, rows, Dtype::F32)?,
        ))
    }

    /// The losses that `accumulate` has added up since they were last taken. Waits for the device.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn take_unread(&mut self, dev: &Device) -> Result<LossSum> {
        let LossSum { sum, count } = std::mem::take(&mut self.unread);
        Ok(match dev {
            Device::Cpu(_) => LossSum { sum, count },
            Device::Cuda(gpu) => LossSum { sum: self.take_sum(gpu)?, count },
        })
    }
}

/// The buffer, made anew where it has not `len` elements.
fn grown<'a>(
    buffer: &'a mut Option<Buffer>,
    dev: &Device,
    len: usize,
    dtype: Dtype,
) -> Result<&'a mut Buffer> {
    let kept = buffer.take().filter(|buffer| buffer.len() >= len);
    Ok(buffer.insert(match kept {
        Some(kept) => kept,
        None => Buffer::zeros_of(dev, len, dtype)?,
    }))
}

/// The losses alone.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is computed.
pub fn forward(
    dev: &Device,
    x: In,
    weight: In,
    targets: &[i32],
    s: Shape,
    scratch: &mut Scratch,
) -> Result<LossSum> {
    const OP: &str = "output_loss::forward";
    check(OP, "x", s.rows * s.d_model, x.len())?;
    check(OP, "weight", s.vocab_size * s.d_model, weight.len())?;
    check(OP, "targets", s.rows, targets.len())?;
    check_targets(targets, s.vocab_size)?;
    if let Device::Cuda(gpu) = dev {
        cuda::run(dev, gpu, None, x, weight, targets, s, scratch, Total::Own)?;
        return scratch.read_own(gpu, targets);
    }
    let mut total = LossSum::default();
    let (logits, lse) = scratch.reserve(dev, s.block_rows(), s.vocab_size)?;
    for (start, targets) in (0..).step_by(s.block_rows()).zip(targets.chunks(s.block_rows())) {
        let rows = targets.len();
        let scores = 0..rows * s.vocab_size;
        let x = x.slice(start * s.d_model..(start + rows) * s.d_model);
        let layer = linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size };
        linear::forward(
            dev,
            linear::Forward {
                out: logits.slice_mut(scores.clone()),
                x,
                weight,
                bias: None,
                shape: layer,
            },
        )?;
        let shape = cross_entropy::Shape { rows, vocab_size: s.vocab_size };
        total.add(cross_entropy::forward(
            dev,
            lse.slice_mut(0..rows),
            logits.slice(scores),
            targets,
            shape,
        )?);
    }
    Ok(total)
}

/// The losses, and the gradients of scale x (mean loss of the rows that count).
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is written.
pub fn forward_backward(
    dev: &Device,
    dx: Out,
    dweight: Out,
    x: In,
    weight: In,
    targets: &[i32],
    s: Shape,
    scale: f32,
    scratch: &mut Scratch,
) -> Result<LossSum> {
    const OP: &str = "output_loss::forward_backward";
    let scale = check_backward(OP, &dx, &dweight, x, weight, targets, s, scale)?;
    match dev {
        Device::Cpu(_) => blocks(dev, dx, dweight, x, weight, targets, s, scale, scratch),
        Device::Cuda(gpu) => {
            let gradients = Some(Gradients { dx, dweight, scale });
            cuda::run(dev, gpu, gradients, x, weight, targets, s, scratch, Total::Own)?;
            scratch.read_own(gpu, targets)
        }
    }
}

/// As `forward_backward`, but the losses are added to those that `Scratch::take_unread` gives: nothing waits for them.
///
/// # Errors
/// As `forward_backward`.
pub fn accumulate(
    dev: &Device,
    dx: Out,
    dweight: Out,
    x: In,
    weight: In,
    targets: &[i32],
    s: Shape,
    scale: f32,
    scratch: &mut Scratch,
) -> Result<()> {
    const OP: &str = "output_loss::accumulate";
    let scale = check_backward(OP, &dx, &dweight, x, weight, targets, s, scale)?;
    match dev {
        Device::Cpu(_) => {
            let losses = blocks(dev, dx, dweight, x, weight, targets, s, scale, scratch)?;
            scratch.unread.add(losses);
        }
        Device::Cuda(gpu) => {
            let gradients = Some(Gradients { dx, dweight, scale });
            cuda::run(dev, gpu, gradients, x, weight, targets, s, scratch, Total::Unread)?;
            scratch.unread.count += counted(targets);
        }
    }
    Ok(())
}

fn counted(targets: &[i32]) -> usize {
    targets.iter().filter(|target| **target != IGNORED_TARGET).count()
}

/// Checks the arguments; gives the scale of each row's gradient.
fn check_backward(
    op: &'static str,
    dx: &Out,
    dweight: &Out,
    x: In,
    weight: In,
    targets: &[i32],
    s: Shape,
    scale: f32,
) -> Result<f32> {
    check(op, "x", s.rows * s.d_model, x.len())?;
    check(op, "dx", s.rows * s.d_model, dx.len())?;
    check(op, "weight", s.vocab_size * s.d_model, weight.len())?;
    check(op, "dweight", s.vocab_size * s.d_model, dweight.len())?;
    check(op, "targets", s.rows, targets.len())?;
    Ok(scale / check_targets(targets, s.vocab_size)?.max(1) as f32)
}

/// CPU half; `scale` is that of each row.
fn blocks(
    dev: &Device,
    mut dx: Out,
    mut dweight: Out,
    x: In,
    weight: In,
    targets: &[i32],
    s: Shape,
    scale: f32,
    scratch: &mut Scratch,
) -> Result<LossSum> {
    let mut total = LossSum::default();
    let (logits, _) = scratch.reserve(dev, s.block_rows(), s.vocab_size)?;
    for (start, targets) in (0..).step_by(s.block_rows()).zip(targets.chunks(s.block_rows())) {
        let rows = targets.len();
        let scores = 0..rows * s.vocab_size;
        let inputs = start * s.d_model..(start + rows) * s.d_model;
        let x = x.slice(inputs.clone());
        let layer = linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size };
        linear::forward(
            dev,
            linear::Forward {
                out: logits.slice_mut(scores.clone()),
                x,
                weight,
                bias: None,
                shape: layer,
            },
        )?;
        let shape = cross_entropy::Shape { rows, vocab_size: s.vocab_size };
        total.add(cross_entropy::forward_backward(
            dev,
            logits.slice_mut(scores.clone()),
            targets,
            shape,
            scale,
        )?);
        let dlogits = logits.slice(scores);
        linear::backward_input(
            dev,
            linear::BackwardInput {
                dx: dx.again().slice(inputs),
                dout: dlogits,
                weight,
                shape: layer,
                accumulate: false,
            },
        )?;
        linear::backward_weight(
            dev,
            linear::BackwardWeight {
                dweight: dweight.again(),
                dbias: None,
                dout: dlogits,
                x,
                shape: layer,
            },
        )?;
    }
    Ok(total)
}
