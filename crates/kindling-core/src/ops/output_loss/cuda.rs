//! CUDA implementation: blocks of rows large enough to keep a GPU busy, and sums of losses that
//! stay on the device until they are read.
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

/// Maximum size of a block of logits, which is also at most one `PART_OF_MEMORY`th of the device's
/// memory.
const BLOCK_BYTES: u64 = 1_200_000_000;
const PART_OF_MEMORY: u64 = 16;
/// Rows and columns of a product that a multiprocessor computes at once, in cuBLAS's usual tiles.
const TILE: [usize; 2] = [128, 256];
/// Maximum height of a block in tiles: more gain nothing.
const MAX_ROW_TILES: usize = 256;
/// Bytes that a device moves in the time in which each multiprocessor adds one term to the sums of
/// a tile: 29 KB on an H100, 48 KB on an A100.
const BYTES_PER_TERM: usize = 32 << 10;

/// Length of `Scratch::totals`, two f64, in f32 elements.
const TOTALS_LEN: usize = 4;

/// Rows of logits start at multiples of this many elements.
const PITCH_MULTIPLE: usize = 64;

/// Returns the elements from one row of logits to the next: GPT-2's 50257 become 50304.
fn pitch(s: Shape) -> usize {
    s.vocab_size.next_multiple_of(PITCH_MULTIPLE)
}

/// The properties of a device that decide the height of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gpu {
    pub dtype: Dtype,
    /// In bytes.
    pub memory: u64,
    pub multiprocessors: usize,
}

impl Gpu {
    pub fn of(gpu: &Cuda) -> Self {
        let properties = gpu.properties();
        Self {
            dtype: gpu.arithmetic.dtype,
            memory: properties.memory,
            multiprocessors: properties.multiprocessors,
        }
    }

    /// Returns the number of rows in every block but the last: within the memory that a block may
    /// take, the one with the least time per row, or the smallest of several. It depends on the
    /// batch only through the cap at `s.rows`, so a larger batch never takes less memory.
    pub fn block_rows(self, s: Shape) -> usize {
        let bytes = BLOCK_BYTES.min(self.memory / PART_OF_MEMORY);
        let row_bytes = (pitch(s) * self.dtype.size()).max(1);
        let most = (bytes / (TILE[0] * row_bytes) as u64).clamp(1, MAX_ROW_TILES as u64) as usize;
        let time_per_row = |tiles: &usize| self.block_time(*tiles, s) as f64 / *tiles as f64;
        // Of equal times, `min_by` returns the first.
        let best = (1..=most).min_by(|a, b| time_per_row(a).total_cmp(&time_per_row(b)));
        (best.unwrap_or(1) * TILE[0]).min(s.rows).max(1)
    }

    /// Returns the estimated time of a block that is `row_tiles` tiles high. The unit is the time
    /// of adding one term to a tile's sums. Counted are the logits and dx, each in whole waves of
    /// one tile per multiprocessor, and reading and writing dweight.
    fn block_time(self, row_tiles: usize, s: Shape) -> usize {
        let waves = |columns: usize| {
            (row_tiles * columns.div_ceil(TILE[1])).div_ceil(self.multiprocessors.max(1))
        };
        let dweight = 2 * size_of::<f32>() * s.vocab_size * s.d_model;
        waves(s.vocab_size) * s.d_model + waves(s.d_model) * s.vocab_size + dweight / BYTES_PER_TERM
    }
}

/// Returns the lengths and dtypes of the buffers that `run` reserves: logits, lse, losses, targets,
/// totals.
pub(super) fn scratch_buffers(gpu: Gpu, s: Shape) -> [(usize, Dtype); 5] {
    let height = gpu.block_rows(s);
    let [lse, losses, targets, totals] =
        [height, s.rows, s.rows, TOTALS_LEN].map(|len| (len, Dtype::F32));
    [(height * pitch(s), gpu.dtype), lse, losses, targets, totals]
}

/// Queues the computation of the losses, and of the gradients if any are wanted. Reads nothing
/// back.
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
    let height = Gpu::of(gpu).block_rows(s);
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

/// The products of one block of rows: those of `ops::linear`, on rows of logits `pitch` apart.
#[derive(Clone, Copy)]
struct Block<'a> {
    dev: &'a Device,
    gpu: &'a Cuda,
    rows: usize,
    shape: Shape,
    weight: In<'a>,
}

impl Block<'_> {
    /// Queues logits = x W^T.
    fn logits(self, logits: &mut Buffer, x: In) -> Result<()> {
        let s = self.shape;
        let _span = self.layer().span(self.dev, "linear::forward");
        let out = logits.slice_mut(0..self.rows * pitch(s));
        let out = Destination { elements: &out, leading: pitch(s), accumulate: false };
        let shape = ProductShape { m: self.rows, k: s.d_model, n: s.vocab_size };
        product_into(self.gpu, out, rows(x), transposed(self.weight), shape)
    }

    /// Queues dx = dlogits W.
    fn backward_input(self, dx: &Out, logits: &Buffer) -> Result<()> {
        let s = self.shape;
        let _span = self.layer().span(self.dev, "linear::backward_input");
        let dlogits = rows(logits.slice(0..self.rows * pitch(s))).leading(pitch(s));
        let out = Destination { elements: dx, leading: s.d_model, accumulate: false };
        let shape = ProductShape { m: self.rows, k: s.vocab_size, n: s.d_model };
        product_into(self.gpu, out, dlogits, rows(self.weight), shape)
    }

    /// Queues dweight += dlogits^T x.
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
    /// Returns the address of a sum of losses. `Total::OfCall` sets its sum to 0 first.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(multiprocessors: usize, memory: u64, rows: usize) -> usize {
        let shape = Shape { rows, d_model: 768, vocab_size: 50_304 };
        Gpu { dtype: Dtype::Bf16, memory, multiprocessors }.block_rows(shape)
    }

    #[test]
    fn blocks_fill_whole_waves_within_a_part_of_the_memory() {
        // H100: 88 x 3 tiles of dx on 132 multiprocessors. A100: 72 x 3 on 108.
        assert_eq!(rows(132, 80 << 30, 32_768), 11_264);
        assert_eq!(rows(108, 80 << 30, 32_768), 9216);
        assert_eq!(rows(132, 80 << 30, 5000), 5000);
        assert!(rows(132, 8 << 30, 32_768) * 50_304 * 2 <= 512 << 20);
        assert_eq!(rows(132, 1 << 20, 32_768), 128);
    }
}
