//! CUDA half: blocks of rows large enough to keep a GPU busy, and sums of losses that stay on the
//! device until they are read.
//!
//! Rows of logits start at multiples of 128 bytes, whatever the vocabulary: cuBLAS is several times
//! slower on rows that are not aligned, and cross-entropy could not read 16 bytes at once.

use super::{Forward, Gradients, Scratch, Shape, Total, reserve};
use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::cuda::Cuda;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::{self, LossSum, cuda::Logits};
use crate::ops::linear;
use crate::ops::matmul::Shape as ProductShape;
use crate::ops::matmul::cuda::{Destination, product_into, rows, transposed};

/// Maximum size of a block of logits.
const BLOCK_BYTES: usize = 512 << 20;
/// Blocks have a multiple of this many rows, so that the products' tiles divide them.
const ROW_MULTIPLE: usize = 128;

/// Two f64, in units of f32.
const TOTALS_LEN: usize = 4;

/// Rows of logits start at multiples of this many elements.
const PITCH_MULTIPLE: usize = 64;

/// Returns the elements from one row of logits to the next: GPT-2's 50257 become 50304.
fn pitch(s: Shape) -> usize {
    s.vocab_size.next_multiple_of(PITCH_MULTIPLE)
}

/// Returns the rows of a block; all blocks but the last have the same height.
pub(super) fn block_rows(dtype: Dtype, s: Shape) -> usize {
    let max = (BLOCK_BYTES / (pitch(s) * dtype.size()).max(1)).max(ROW_MULTIPLE);
    let blocks = s.rows.div_ceil(max).max(1);
    s.rows.div_ceil(blocks).next_multiple_of(ROW_MULTIPLE).min(s.rows).max(1)
}

/// Lengths and dtypes of the buffers that `run` reserves: logits, lse, losses, targets, totals.
pub(super) fn scratch_buffers(dtype: Dtype, s: Shape) -> [(usize, Dtype); 5] {
    let height = block_rows(dtype, s);
    let [lse, losses, targets, totals] =
        [height, s.rows, s.rows, TOTALS_LEN].map(|len| (len, Dtype::F32));
    [(height * pitch(s), dtype), lse, losses, targets, totals]
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
    let logits = reserve(&mut scratch.logits, dev, height * pitch(s), dtype)?;
    let lse = reserve(&mut scratch.lse, dev, height, Dtype::F32)?.view().pointer();
    let losses = reserve(&mut scratch.losses, dev, s.rows, Dtype::F32)?.view().pointer();
    // An i32 is as large as an f32.
    let targets_at = reserve(&mut scratch.targets, dev, s.rows, Dtype::F32)?.view().pointer();
    gpu.upload(targets_at, targets)?;
    for start in (0..s.rows).step_by(height) {
        let rows = height.min(s.rows - start);
        let rows_of_x = start * s.d_model..(start + rows) * s.d_model;
        let x = x.slice(rows_of_x.clone());
        let block = Block { dev, gpu, rows, shape: s, weight };
        block.logits(logits, x)?;
        let shape = Logits { dtype, rows, vocab_size: s.vocab_size, pitch: pitch(s) };
        let offset = (start * size_of::<f32>()) as u64;
        let (losses, targets) = (losses + offset, targets_at + offset);
        let logits_at = logits.view().pointer();
        let Some(Gradients { dx, dweight, row_scale }) = &mut gradients else {
            let addresses =
                cross_entropy::cuda::Forward { lse, losses, logits: logits_at, targets };
            let _span = dev.span("cross_entropy::forward");
            gpu.run(&[cross_entropy::cuda::forward(addresses, shape)])?;
            continue;
        };
        let addresses = cross_entropy::cuda::ForwardBackward { logits: logits_at, losses, targets };
        {
            let _span = dev.span("cross_entropy::forward_backward");
            gpu.run(&[cross_entropy::cuda::forward_backward(addresses, *row_scale, shape)])?;
        }
        block.backward_input(&dx.reborrow().slice(rows_of_x), logits)?;
        block.backward_weight(&dweight.reborrow(), logits, x)?;
    }
    gpu.run(&[cross_entropy::cuda::add_losses(total, losses, s.rows)])
}

/// The products of one block of rows: those of `ops::linear`, on rows of logits that are apart.
#[derive(Clone, Copy)]
struct Block<'a> {
    dev: &'a Device,
    gpu: &'a Cuda,
    rows: usize,
    shape: Shape,
    weight: In<'a>,
}

impl Block<'_> {
    /// logits = x W^T.
    fn logits(self, logits: &mut Buffer, x: In) -> Result<()> {
        let s = self.shape;
        let _span = self.layer().span(self.dev, "linear::forward");
        let out = logits.slice_mut(0..self.rows * pitch(s));
        let out = Destination { elements: &out, leading: pitch(s), accumulate: false };
        let shape = ProductShape { m: self.rows, k: s.d_model, n: s.vocab_size };
        product_into(self.gpu, out, rows(x), transposed(self.weight), shape)
    }

    /// dx = dlogits W.
    fn backward_input(self, dx: &Out, logits: &Buffer) -> Result<()> {
        let s = self.shape;
        let _span = self.layer().span(self.dev, "linear::backward_input");
        let dlogits = rows(logits.slice(0..self.rows * pitch(s))).leading(pitch(s));
        let out = Destination { elements: dx, leading: s.d_model, accumulate: false };
        let shape = ProductShape { m: self.rows, k: s.vocab_size, n: s.d_model };
        product_into(self.gpu, out, dlogits, rows(self.weight), shape)
    }

    /// dweight += dlogits^T x.
    fn backward_weight(self, dweight: &Out, logits: &Buffer, x: In) -> Result<()> {
        let s = self.shape;
        let _span = self.layer().span(self.dev, "linear::backward_weight");
        let dlogits = transposed(logits.slice(0..self.rows * pitch(s))).leading(pitch(s));
        let out = Destination { elements: dweight, leading: s.d_model, accumulate: true };
        let shape = ProductShape { m: s.vocab_size, k: self.rows, n: s.d_model };
        product_into(self.gpu, out, dlogits, rows(x), shape)
    }

    fn layer(self) -> linear::Shape {
        let Shape { d_model, vocab_size, .. } = self.shape;
        linear::Shape { rows: self.rows, inputs: d_model, outputs: vocab_size }
    }
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
