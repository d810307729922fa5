//! Output layer and cross-entropy, fused: logits = x W^T, and the losses of their rows.
//!
//! x, dx: (rows, `d_model`); weight, dweight: (`vocab_size`, `d_model`); targets: (rows), -100 if
//! ignored. dx is overwritten, dweight is added to; both are gradients of scale x mean loss.
//!
//! ```text
//! for each block of rows:
//!     logits   = x W^T
//!     dlogits  = cross entropy's gradient, in place of logits
//!     dx       = dlogits W
//!     dweight += dlogits^T x
//! ```
//!
//! The (rows, vocabulary) logits would be the largest activation of the model. They exist one block
//! at a time, and a block's gradient is used as soon as it is computed.

mod cpu;
mod cuda;

pub(crate) use cuda::Gpu;

use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::LossSum;
use crate::ops::{IGNORED_TARGET, check, check_targets, linear};

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub d_model: usize,
    pub vocab_size: usize,
}

/// Memory for a block of logits, and losses that were accumulated but not taken yet.
///
/// The memory grows to the largest block so far and is reused.
#[derive(Debug, Default)]
pub struct Scratch {
    logits: Option<Buffer>,
    lse: Option<Buffer>,
    /// CUDA only: the losses of the rows.
    losses: Option<Buffer>,
    /// CUDA only: the targets.
    targets: Option<Buffer>,
    /// CUDA only: two f64, the sum of the accumulated losses and that of one call's losses.
    totals: Option<Buffer>,
    /// Accumulated losses. On a CUDA device the sum is in `totals`.
    accumulated: LossSum,
}

/// CUDA only: the sum to which a call adds its losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Total {
    /// The sum of several calls, until it is taken.
    Accumulated,
    /// A sum that starts at 0.
    OfCall,
}

impl Scratch {
    /// Returns the losses that `accumulate` has added up since the last call. Waits for the device.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the device failed.
    pub fn take_accumulated(&mut self, dev: &Device) -> Result<LossSum> {
        let LossSum { sum, count } = std::mem::take(&mut self.accumulated);
        Ok(match dev {
            Device::Cpu(_) => LossSum { sum, count },
            Device::Cuda(gpu) => LossSum { sum: self.take_accumulated_sum(gpu)?, count },
        })
    }
}

/// Returns the lengths and dtypes of the buffers that `forward_backward` reserves on a CUDA device,
/// or on a CPU whose products are in `cpu_dtype`.
pub(crate) fn scratch_buffers(s: Shape, gpu: Option<Gpu>, cpu_dtype: Dtype) -> Vec<(usize, Dtype)> {
    match gpu {
        None => cpu::scratch_buffers(s, cpu_dtype).to_vec(),
        Some(gpu) => cuda::scratch_buffers(gpu, s).to_vec(),
    }
}

/// Returns the number of rows in a block.
pub fn block_rows(dev: &Device, s: Shape) -> usize {
    match dev {
        Device::Cpu(cpu) => cpu::block_rows(s, cpu.matmul.dtype()),
        Device::Cuda(gpu) => Gpu::of(gpu).block_rows(s),
    }
}

/// Returns the linear layer of one block of rows on a CPU whose products are in `dtype`.
pub(crate) fn cpu_block(s: Shape, dtype: Dtype) -> linear::Shape {
    linear::Shape { rows: cpu::block_rows(s, dtype), inputs: s.d_model, outputs: s.vocab_size }
}

/// Returns the buffer, allocated anew if it has fewer than `len` elements or another dtype.
fn reserve<'a>(
    buffer: &'a mut Option<Buffer>,
    dev: &Device,
    len: usize,
    dtype: Dtype,
) -> Result<&'a mut Buffer> {
    let fits = |buffer: &Buffer| buffer.len() >= len && buffer.view().dtype() == dtype;
    let large_enough = buffer.take().filter(fits);
    Ok(buffer.insert(match large_enough {
        Some(buffer) => buffer,
        None => Buffer::zeros_of(dev, len, dtype)?,
    }))
}

/// Inputs of `forward`.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    pub x: In<'a>,
    pub weight: In<'a>,
    pub targets: &'a [i32],
    pub shape: Shape,
}

impl Forward<'_> {
    fn check(&self, op: &'static str) -> Result<()> {
        let s = self.shape;
        check(op, "x", s.rows * s.d_model, self.x.len())?;
        check(op, "weight", s.vocab_size * s.d_model, self.weight.len())?;
        check(op, "targets", s.rows, self.targets.len())
    }
}

/// Returns the losses.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if a buffer does not fit the shape, and `ERR_TOKEN_OUT_OF_RANGE` if
/// a target is outside the vocabulary, before anything is computed.
pub fn forward(dev: &Device, args: Forward, scratch: &mut Scratch) -> Result<LossSum> {
    args.check("output_loss::forward")?;
    check_targets(args.targets, args.shape.vocab_size)?;
    match dev {
        Device::Cpu(cpu) => cpu::forward(dev, cpu.matmul.dtype(), args, scratch),
        Device::Cuda(gpu) => {
            cuda::run(dev, gpu, args, None, scratch, Total::OfCall)?;
            scratch.read_total(gpu, args.targets)
        }
    }
}

/// Buffers of `forward_backward` and `accumulate`.
#[derive(Debug)]
pub struct ForwardBackward<'a> {
    pub dx: Out<'a>,
    pub dweight: Out<'a>,
    pub x: In<'a>,
    pub weight: In<'a>,
    pub targets: &'a [i32],
    pub scale: f32,
    pub shape: Shape,
}

/// The gradients that a call computes.
struct Gradients<'a> {
    dx: Out<'a>,
    dweight: Out<'a>,
    /// Factor of each row's loss: `ForwardBackward::scale` over the number of rows not ignored.
    row_scale: f32,
}

impl<'a> ForwardBackward<'a> {
    fn check(self, op: &'static str) -> Result<(Forward<'a>, Gradients<'a>)> {
        let Self { dx, dweight, x, weight, targets, scale, shape } = self;
        let inputs = Forward { x, weight, targets, shape };
        inputs.check(op)?;
        check(op, "dx", shape.rows * shape.d_model, dx.len())?;
        check(op, "dweight", shape.vocab_size * shape.d_model, dweight.len())?;
        let row_scale = scale / check_targets(targets, shape.vocab_size)?.max(1) as f32;
        Ok((inputs, Gradients { dx, dweight, row_scale }))
    }
}

/// Computes the gradients of scale x (mean loss of the rows not ignored). Returns the losses.
///
/// # Errors
/// As for `forward`.
pub fn forward_backward(
    dev: &Device,
    args: ForwardBackward,
    scratch: &mut Scratch,
) -> Result<LossSum> {
    let (inputs, gradients) = args.check("output_loss::forward_backward")?;
    match dev {
        Device::Cpu(cpu) => {
            cpu::forward_backward(dev, cpu.matmul.dtype(), inputs, gradients, scratch)
        }
        Device::Cuda(gpu) => {
            cuda::run(dev, gpu, inputs, Some(gradients), scratch, Total::OfCall)?;
            scratch.read_total(gpu, inputs.targets)
        }
    }
}

/// Like `forward_backward`, but adds the losses to those that `Scratch::take_accumulated` returns,
/// without waiting for the device.
///
/// # Errors
/// As for `forward`.
pub fn accumulate(dev: &Device, args: ForwardBackward, scratch: &mut Scratch) -> Result<()> {
    let (inputs, gradients) = args.check("output_loss::accumulate")?;
    match dev {
        Device::Cpu(cpu) => {
            let dtype = cpu.matmul.dtype();
            let losses = cpu::forward_backward(dev, dtype, inputs, gradients, scratch)?;
            scratch.accumulated.add(losses);
        }
        Device::Cuda(gpu) => {
            cuda::run(dev, gpu, inputs, Some(gradients), scratch, Total::Accumulated)?;
            let counted = inputs.targets.iter().filter(|target| **target != IGNORED_TARGET);
            scratch.accumulated.count += counted.count();
        }
    }
    Ok(())
}
