//! Output layer with cross-entropy, in blocks of rows: the (rows, vocabulary) scores never exist whole, and the gradient of
//! a block's scores is used at once.
//!
//! x, dx: (rows, `d_model`); weight, dweight: (`vocab_size`, `d_model`); targets: (rows), -100 ignored.
//! dx is overwritten, dweight added to; both are gradients of scale x mean loss.

use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::device::Device;
use crate::ops::cross_entropy::{self, LossSum};
use crate::ops::{check, check_targets, linear};

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
        let most = (BLOCK_ELEMENTS / self.vocab_size.max(1)).clamp(64, BLOCK_ROWS).min(self.rows.max(1));
        // Blocks of equal height rather than a small last one.
        self.rows.div_ceil(self.rows.div_ceil(most).max(1)).max(1)
    }
}

/// Memory for the scores of a block; grows to the largest block asked for and is kept.
#[derive(Debug, Default)]
pub struct Scratch {
    logits: Option<Buffer>,
    lse: Option<Buffer>,
}

impl Scratch {
    fn reserve(
        &mut self,
        dev: &Device,
        rows: usize,
        vocab_size: usize,
    ) -> Result<(&mut Buffer, &mut Buffer)> {
        Ok((grown(&mut self.logits, dev, rows * vocab_size)?, grown(&mut self.lse, dev, rows)?))
    }
}

/// The buffer, made anew where it has not `len` elements.
fn grown<'a>(buffer: &'a mut Option<Buffer>, dev: &Device, len: usize) -> Result<&'a mut Buffer> {
    let kept = buffer.take().filter(|buffer| buffer.len() >= len);
    Ok(buffer.insert(match kept {
        Some(kept) => kept,
        None => Buffer::zeros(dev, len)?,
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
    let mut total = LossSum::default();
    let (logits, lse) = scratch.reserve(dev, s.block_rows(), s.vocab_size)?;
    for (start, targets) in (0..).step_by(s.block_rows()).zip(targets.chunks(s.block_rows())) {
        let rows = targets.len();
        let scores = 0..rows * s.vocab_size;
        let x = x.slice(start * s.d_model..(start + rows) * s.d_model);
        let layer = linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size };
        linear::forward(dev, logits.slice_mut(scores.clone()), x, weight, None, layer)?;
        let shape = cross_entropy::Shape { rows, vocab_size: s.vocab_size };
        total.add(cross_entropy::forward(dev, lse.slice_mut(0..rows), logits.slice(scores), targets, shape)?);
    }
    Ok(total)
}

/// The losses, and the gradients of scale x (mean loss of the rows that count).
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`; `ERR_TOKEN_OUT_OF_RANGE` before anything is written.
pub fn forward_backward(
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
    const OP: &str = "output_loss::forward_backward";
    check(OP, "x", s.rows * s.d_model, x.len())?;
    check(OP, "dx", s.rows * s.d_model, dx.len())?;
    check(OP, "weight", s.vocab_size * s.d_model, weight.len())?;
    check(OP, "dweight", s.vocab_size * s.d_model, dweight.len())?;
    check(OP, "targets", s.rows, targets.len())?;
    let count = check_targets(targets, s.vocab_size)?;
    let scale = scale / count.max(1) as f32;
    let mut total = LossSum::default();
    let (logits, _) = scratch.reserve(dev, s.block_rows(), s.vocab_size)?;
    for (start, targets) in (0..).step_by(s.block_rows()).zip(targets.chunks(s.block_rows())) {
        let rows = targets.len();
        let scores = 0..rows * s.vocab_size;
        let inputs = start * s.d_model..(start + rows) * s.d_model;
        let x = x.slice(inputs.clone());
        let layer = linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size };
        linear::forward(dev, logits.slice_mut(scores.clone()), x, weight, None, layer)?;
        let shape = cross_entropy::Shape { rows, vocab_size: s.vocab_size };
        total.add(cross_entropy::forward_backward(
            dev,
            logits.slice_mut(scores.clone()),
            targets,
            shape,
            scale,
        )?);
        let dlogits = logits.slice(scores);
        linear::backward_input(dev, dx.again().slice(inputs), dlogits, weight, layer, false)?;
        linear::backward_weight(dev, dweight.again(), None, dlogits, x, layer)?;
    }
    Ok(total)
}
