//! CUDA half: blocks of rows large enough to keep a GPU busy, and sums of losses that stay on the device until they are read.

use super::{Scratch, Shape, grown};
use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::cuda::Cuda;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::{self, LossSum};
use crate::ops::linear;

/// Scores of a block.
const BLOCK_BYTES: usize = 512 << 20;
/// Rows of a block are a multiple of this, which a product's tiles divide.
const ROW_MULTIPLE: usize = 128;

/// Where a call's losses are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// With those of other calls, until they are taken.
    Unread,
    /// By themselves.
    Own,
}

/// The gradients that a call makes; an evaluation makes none.
pub(super) struct Gradients<'a> {
    /// Of x.
    pub dx: Out<'a>,
    /// Of the weight.
    pub dweight: Out<'a>,
    /// Of the sum of the losses, each.
    pub scale: f32,
}

/// Rows of a block, all blocks but the last of the same height.
pub(super) fn block_rows(dtype: Dtype, s: Shape, most: Option<usize>) -> usize {
    let most =
        most.unwrap_or((BLOCK_BYTES / (s.vocab_size * dtype.size()).max(1)).max(ROW_MULTIPLE));
    let blocks = s.rows.div_ceil(most).max(1);
    s.rows.div_ceil(blocks).next_multiple_of(ROW_MULTIPLE.min(most)).min(s.rows).max(1)
}

/// Queues the losses, and the gradients where asked for. Nothing is read.
pub(super) fn run(
    dev: &Device,
    gpu: &Cuda,
    mut gradients: Option<Gradients>,
    x: In,
    weight: In,
    targets: &[i32],
    s: Shape,
    scratch: &mut Scratch,
    total: Total,
) -> Result<()> {
    let dtype = gpu.arithmetic.dtype;
    let height = block_rows(dtype, s, scratch.most_rows);
    let total = scratch.total(dev, total)?;
    let logits = grown(&mut scratch.logits, dev, height * s.vocab_size, dtype)?;
    let lse = grown(&mut scratch.lse, dev, height, Dtype::F32)?.view().pointer();
    let losses = grown(&mut scratch.losses, dev, s.rows, Dtype::F32)?.view().pointer();
    // As many words of 32 bits.
    let targets_at = grown(&mut scratch.targets, dev, s.rows, Dtype::F32)?.view().pointer();
    gpu.upload(targets_at, targets)?;
    for start in (0..s.rows).step_by(height) {
        let rows = height.min(s.rows - start);
        let scores = 0..rows * s.vocab_size;
        let inputs = start * s.d_model..(start + rows) * s.d_model;
        let offset = (start * size_of::<f32>()) as u64;
        let layer = linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size };
        let x = x.slice(inputs.clone());
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
        let (losses, targets) = (losses + offset, targets_at + offset);
        let scores_at = logits.view().pointer();
        let Some(Gradients { dx, dweight, scale }) = &mut gradients else {
            gpu.run(&[cross_entropy::cuda::forward(
                dtype, lse, losses, scores_at, targets, shape,
            )])?;
            continue;
        };
        gpu.run(&[cross_entropy::cuda::forward_backward(
            dtype, scores_at, losses, targets, shape, *scale,
        )])?;
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
    gpu.run(&[cross_entropy::cuda::add_losses(total, losses, s.rows)])
}

impl Scratch {
    /// The address of a sum of losses; a call's own is set to zero.
    fn total(&mut self, dev: &Device, total: Total) -> Result<u64> {
        // Two numbers of f64 are four words.
        let pointer = match &self.totals {
            Some(totals) => totals.view().pointer(),
            None => self.totals.insert(Buffer::zeros(dev, 4)?).view().pointer(),
        };
        let own = pointer + size_of::<f64>() as u64;
        match (total, dev) {
            (Total::Own, Device::Cuda(gpu)) => {
                gpu.clear(own, size_of::<f64>())?;
                Ok(own)
            }
            _ => Ok(pointer),
        }
    }

    /// The losses of the call before, which added them up by themselves; waits for them.
    pub(super) fn read_own(&self, gpu: &Cuda, targets: &[i32]) -> Result<LossSum> {
        let pointer = self.totals.as_ref().map_or(0, |totals| totals.view().pointer());
        cross_entropy::cuda::read_total(gpu, pointer + size_of::<f64>() as u64, targets)
    }

    /// The sum of the losses that nobody has read, which begins anew; waits for it.
    pub(super) fn take_sum(&mut self, gpu: &Cuda) -> Result<f64> {
        let Some(totals) = &self.totals else { return Ok(0.0) };
        let mut sum = [0.0];
        gpu.download(&mut sum, totals.view().pointer())?;
        gpu.clear(totals.view().pointer(), size_of::<f64>())?;
        Ok(sum[0])
    }
}
