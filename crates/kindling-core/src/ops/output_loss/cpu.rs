//! CPU implementation. Logits and their gradients have the dtype of the products' operands.

use super::{Forward, Gradients, Scratch, Shape, reserve};
use crate::Result;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::{self, LossSum};
use crate::ops::linear;

/// Maximum bytes of a block of logits: enough that packing the weight for each block pays.
const BLOCK_BYTES: usize = 48 << 20;
/// Maximum bytes of a column of a block: 1,024 rows of f32.
const MAX_COLUMN_BYTES: usize = 4096;

/// Returns the number of rows in a block. Blocks have nearly equal heights, so that the last one is
/// not small. In bf16, twice as many rows fit the same memory.
pub(super) fn block_rows(s: Shape, dtype: Dtype) -> usize {
    let size = dtype.size();
    let most = MAX_COLUMN_BYTES / size;
    let max = (BLOCK_BYTES / size / s.vocab_size.max(1)).clamp(64, most).min(s.rows.max(1));
    s.rows.div_ceil(s.rows.div_ceil(max).max(1)).max(1)
}

/// Returns the length and dtype of the buffer that `forward_backward` reserves: logits.
pub(super) fn scratch_buffers(s: Shape, dtype: Dtype) -> [(usize, Dtype); 1] {
    [(block_rows(s, dtype) * s.vocab_size, dtype)]
}

pub(super) fn forward(
    dev: &Device,
    dtype: Dtype,
    inputs: Forward,
    scratch: &mut Scratch,
) -> Result<LossSum> {
    let Forward { x, weight, targets, shape: s } = inputs;
    let height = block_rows(s, dtype);
    let logits = reserve(&mut scratch.logits, dev, height * s.vocab_size, dtype)?;
    let lse = reserve(&mut scratch.lse, dev, height, Dtype::F32)?;
    let mut total = LossSum::default();
    for (start, targets) in (0..).step_by(height).zip(targets.chunks(height)) {
        let rows = targets.len();
        let block = 0..rows * s.vocab_size;
        linear::forward(
            dev,
            linear::Forward {
                out: logits.slice_mut(block.clone()),
                x: x.slice(start * s.d_model..(start + rows) * s.d_model),
                weight,
                bias: None,
                shape: linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size },
            },
        )?;
        total.add(cross_entropy::forward(
            dev,
            cross_entropy::Forward {
                lse: lse.slice_mut(0..rows),
                logits: logits.slice(block),
                targets,
                shape: cross_entropy::Shape { rows, vocab_size: s.vocab_size },
            },
        )?);
    }
    Ok(total)
}

pub(super) fn forward_backward(
    dev: &Device,
    dtype: Dtype,
    inputs: Forward,
    gradients: Gradients,
    scratch: &mut Scratch,
) -> Result<LossSum> {
    let Forward { x, weight, targets, shape: s } = inputs;
    let Gradients { mut dx, mut dweight, row_scale } = gradients;
    let height = block_rows(s, dtype);
    let logits = reserve(&mut scratch.logits, dev, height * s.vocab_size, dtype)?;
    let mut total = LossSum::default();
    for (start, targets) in (0..).step_by(height).zip(targets.chunks(height)) {
        let rows = targets.len();
        let block = 0..rows * s.vocab_size;
        let rows_of_x = start * s.d_model..(start + rows) * s.d_model;
        let x = x.slice(rows_of_x.clone());
        let shape = linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size };
        let out = logits.slice_mut(block.clone());
        linear::forward(dev, linear::Forward { out, x, weight, bias: None, shape })?;
        total.add(cross_entropy::forward_backward(
            dev,
            cross_entropy::ForwardBackward {
                logits: logits.slice_mut(block.clone()),
                targets,
                scale: row_scale,
                shape: cross_entropy::Shape { rows, vocab_size: s.vocab_size },
            },
        )?);
        let dlogits = logits.slice(block);
        linear::backward_input(
            dev,
            linear::BackwardInput {
                dx: dx.reborrow().slice(rows_of_x),
                dout: dlogits,
                weight,
                shape,
                accumulate: false,
            },
        )?;
        let dweight = dweight.reborrow();
        linear::backward_weight(
            dev,
            linear::BackwardWeight { dweight, dbias: None, dout: dlogits, x, shape },
        )?;
    }
    Ok(total)
}
