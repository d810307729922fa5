//! CUDA half: blocks of rows large enough to keep a GPU busy, and sums of losses that stay on the
//! device until they are read.

use super::{Forward, Gradients, Scratch, Shape, Total, reserve};
use crate::Result;
use crate::cuda::Cuda;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::{self, LossSum};
use crate::ops::linear;

/// Maximum size of a block of logits.
const BLOCK_BYTES: usize = 512 << 20;
/// Blocks have a multiple of this many rows, so that the products' tiles divide them.
const ROW_MULTIPLE: usize = 128;

/// Two f64, in units of f32.
const TOTALS_LEN: usize = 4;

/// Returns the rows of a block; all blocks but the last have the same height.
fn block_rows(dtype: Dtype, s: Shape) -> usize {
    let max = (BLOCK_BYTES / (s.vocab_size * dtype.size()).max(1)).max(ROW_MULTIPLE);
    let blocks = s.rows.div_ceil(max).max(1);
    s.rows.div_ceil(blocks).next_multiple_of(ROW_MULTIPLE).min(s.rows).max(1)
}

/// Lengths and dtypes of the buffers that `run` reserves: logits, lse, losses, targets, totals.
pub(super) fn scratch_buffers(dtype: Dtype, s: Shape) -> [(usize, Dtype); 5] {
    let height = block_rows(dtype, s);
    let [lse, losses, targets, totals] =
        [height, s.rows, s.rows, TOTALS_LEN].map(|len| (len, Dtype::F32));
    [(height * s.vocab_size, dtype), lse, losses, targets, totals]
}

/// Queues the losses, and the gradients if there are any. Reads nothing back.
pub(super) fn run(
    dev: &Device,
    gpu: &Cuda,
    inputs: Forward,
    mut gradients: Option<Gradients>,
    scratch: &mut Scratch,
    total: Total,
) -> Result<()> {
    let Forward { x, weight, targets, shape: s } = inputs;
    let dtype = gpu.arithmetic.dtype;
    let height = block_rows(dtype, s);
    let total = scratch.total(dev, total)?;
    let logits = reserve(&mut scratch.logits, dev, height * s.vocab_size, dtype)?;
    let lse = reserve(&mut scratch.lse, dev, height, Dtype::F32)?.view().pointer();
    let losses = reserve(&mut scratch.losses, dev, s.rows, Dtype::F32)?.view().pointer();
    // An i32 is as large as an f32.
    let targets_at = reserve(&mut scratch.targets, dev, s.rows, Dtype::F32)?.view().pointer();
    gpu.upload(targets_at, targets)?;
    for start in (0..s.rows).step_by(height) {
        let rows = height.min(s.rows - start);
        let block = 0..rows * s.vocab_size;
        let rows_of_x = start * s.d_model..(start + rows) * s.d_model;
        let x = x.slice(rows_of_x.clone());
        let layer = linear::Shape { rows, inputs: s.d_model, outputs: s.vocab_size };
        let out = logits.slice_mut(block.clone());
        linear::forward(dev, linear::Forward { out, x, weight, bias: None, shape: layer })?;
        let shape = cross_entropy::Shape { rows, vocab_size: s.vocab_size };
        let offset = (start * size_of::<f32>()) as u64;
        let (losses, targets) = (losses + offset, targets_at + offset);
        let logits_at = logits.view().pointer();
        let Some(Gradients { dx, dweight, row_scale }) = &mut gradients else {
            let addresses =
                cross_entropy::cuda::Forward { lse, losses, logits: logits_at, targets };
            gpu.run(&[cross_entropy::cuda::forward(dtype, addresses, shape)])?;
            continue;
        };
        let addresses = cross_entropy::cuda::ForwardBackward { logits: logits_at, losses, targets };
        gpu.run(&[cross_entropy::cuda::forward_backward(dtype, addresses, *row_scale, shape)])?;
        let dlogits = logits.slice(block);
        linear::backward_input(
            dev,
            linear::BackwardInput {
                dx: dx.reborrow().slice(rows_of_x),
                dout: dlogits,
                weight,
                shape: layer,
                accumulate: false,
            },
        )?;
        let dweight = dweight.reborrow();
        linear::backward_weight(
            dev,
            linear::BackwardWeight { dweight, dbias: None, dout: dlogits, x, shape: layer },
        )?;
    }
    gpu.run(&[cross_entropy::cuda::add_losses(total, losses, s.rows)])
}

impl Scratch {
    /// Returns the address of a sum of losses. The sum of a call is set to 0.
    fn total(&mut self, dev: &Device, total: Total) -> Result<u64> {
        let accumulated = reserve(&mut self.totals, dev, TOTALS_LEN, Dtype::F32)?.view().pointer();
        let of_call = accumulated + size_of::<f64>() as u64;
        match (total, dev) {
            (Total::OfCall, Device::Cuda(gpu)) => {
                gpu.clear(of_call, size_of::<f64>())?;
                Ok(of_call)
            }
            _ => Ok(accumulated),
        }
    }

    /// Reads the losses of the last call with `Total::OfCall`. Waits for the device.
    pub(super) fn read_total(&self, gpu: &Cuda, targets: &[i32]) -> Result<LossSum> {
        let pointer = self.totals.as_ref().map_or(0, |totals| totals.view().pointer());
        cross_entropy::cuda::read_total(gpu, pointer + size_of::<f64>() as u64, targets)
    }

    /// Reads the sum of the accumulated losses and sets it to 0. Waits for the device.
    pub(super) fn take_accumulated_sum(&mut self, gpu: &Cuda) -> Result<f64> {
        let Some(totals) = &self.totals else { return Ok(0.0) };
        let mut sum = [0.0];
        gpu.download(&mut sum, totals.view().pointer())?;
        gpu.clear(totals.view().pointer(), size_of::<f64>())?;
        Ok(sum[0])
    }
}
