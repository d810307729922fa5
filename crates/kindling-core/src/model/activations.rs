//! Memory of one pass, allocated for the largest batch seen and kept. n = b t rows.
//!
//! The backward pass needs of each block the residual stream on entry and in the middle, q|k|v, the heads' outputs and
//! w1 x | w3 x. Norms and the gated product are made again from them, by one pass over memory each. With `recompute` only
//! the streams on entry are kept, and a block's forward pass runs again before its backward pass.

use crate::Result;
use crate::buffer::{Buffer, In};
use crate::config::ModelConfig;
use crate::device::Device;
use crate::dtype::Dtype;

/// What is kept of the passes through the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// Nothing: there will be no backward pass. Every block uses the same memory.
    Nothing,
    /// The residual stream on entry of each block.
    Streams,
    /// All that the backward pass needs of each block.
    Blocks,
}

/// The residual stream on entry of a block, or on leaving the last one.
#[derive(Debug)]
pub struct Stream {
    /// (n, c).
    pub values: Buffer,
    /// Its inverse root mean square (n).
    pub rstd: Buffer,
}

/// What one block keeps for its backward pass.
#[derive(Debug)]
pub struct BlockActivations {
    /// Queries, keys, values after rotation (n, (nh + 2 nkv) hs). This and other results between two products are of the
    /// device's `branches`. On the CPU the backward pass leaves their gradients in their place.
    pub qkv: Buffer,
    /// Log-sum-exp of each query (b, nh, t).
    pub lse: Buffer,
    /// Heads' outputs (n, nh hs), as products take them where a backward pass follows.
    pub attention: Buffer,
    /// The residual stream after attention (n, c).
    pub middle: Buffer,
    /// Its inverse root mean square (n).
    pub rstd_ff: Buffer,
    /// w1 x | w3 x (n, 2 f), bf16 where products are; the backward pass leaves their gradients in its place.
    pub gate_up: Buffer,
}

/// Memory of one pass through the model.
#[derive(Debug)]
pub struct Activations {
    /// Rows there is room for.
    pub rows: usize,
    /// What stays of a pass.
    pub kept: Kept,
    /// Entries of the blocks, and last what leaves them; one for all where nothing is kept.
    pub streams: Vec<Stream>,
    /// The blocks', or one for all.
    pub blocks: Vec<BlockActivations>,
    /// A norm's output, input of the products that follow it (n, c).
    pub normed: Buffer,
    /// A layer's output before it joins the residual stream; going back, the gradient of the heads' outputs, then of a norm's
    /// output (n, c).
    pub branch: Buffer,
    /// silu(w1 x) w3 x; going back, first its gradient (n, f); bf16 where products are.
    pub hidden: Buffer,
    /// Memory only the backward pass needs.
    pub gradients: Option<GradientActivations>,
}

/// Gradients of activations, shared by all blocks.
#[derive(Debug)]
pub struct GradientActivations {
    /// Of the residual stream (n, c).
    pub stream: Buffer,
    /// The same as products take it, where they do not take f32 (n, c).
    pub stream_operand: Option<Buffer>,
    /// Of queries, keys and values (n, (nh + 2 nkv) hs), where they do not take their place.
    pub qkv: Option<Buffer>,
}

impl Activations {
    /// Memory for `rows` rows.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn new(device: &Device, config: &ModelConfig, rows: usize, kept: Kept) -> Result<Self> {
        let zeros = |width: usize| Buffer::zeros(device, rows * width);
        // What only products and the gate read is kept as they take it.
        let operands = |width: usize| Buffer::zeros_of(device, rows * width, device.matmul_dtype());
        let branches =
            |width: usize| Buffer::zeros_of(device, rows * width, device.activation_dtype());
        let heads =
            if kept == Kept::Nothing { device.activation_dtype() } else { device.matmul_dtype() };
        let (c, f) = (config.d_model, config.d_ff);
        let stream = |_| Ok(Stream { values: zeros(c)?, rstd: zeros(1)? });
        let block = |_| {
            Ok(BlockActivations {
                qkv: branches(config.qkv_width())?,
                lse: zeros(config.num_heads)?,
                attention: Buffer::zeros_of(device, rows * c, heads)?,
                middle: zeros(c)?,
                rstd_ff: zeros(1)?,
                gate_up: operands(2 * f)?,
            })
        };
        let streams = if kept == Kept::Nothing { 1 } else { config.num_layers + 1 };
        let blocks = if kept == Kept::Blocks { config.num_layers } else { 1 };
        Ok(Self {
            rows,
            kept,
            streams: (0..streams).map(stream).collect::<Result<_>>()?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            normed: branches(c)?,
            branch: branches(c)?,
            hidden: operands(f)?,
            gradients: None,
        })
    }

    /// Makes sure that the backward pass has its memory.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn reserve_gradients(&mut self, device: &Device, config: &ModelConfig) -> Result<()> {
        if self.gradients.is_none() {
            let branches = |width: usize| {
                Buffer::zeros_of(device, self.rows * width, device.activation_dtype())
            };
            let is_narrow = device.activation_dtype() != Dtype::F32;
            self.gradients = Some(GradientActivations {
                stream: Buffer::zeros(device, self.rows * config.d_model)?,
                stream_operand: is_narrow.then(|| branches(config.d_model)).transpose()?,
                qkv: matches!(device, Device::Cuda(_))
                    .then(|| branches(config.qkv_width()))
                    .transpose()?,
            });
        }
        Ok(())
    }
}

impl GradientActivations {
    /// Rounds the first `len` elements of the stream's gradient to what products take, where that is not f32.
    pub(super) fn round_stream(&mut self, device: &Device, len: usize) -> Result<()> {
        if let (Some(operand), Device::Cuda(gpu)) = (&mut self.stream_operand, device) {
            let dtype = gpu.arithmetic.dtype;
            gpu.cast(dtype, operand.view_mut().pointer(), self.stream.view().pointer(), len)?;
        }
        Ok(())
    }

    /// The first `len` elements of the stream's gradient as products take them, once rounded.
    pub(super) fn stream_operand(&self, len: usize) -> In<'_> {
        self.stream_operand.as_ref().unwrap_or(&self.stream).slice(0..len)
    }
}

/// The element of `all` that belongs to `layer`: its own, or the one for all.
pub(super) fn of_layer<T>(all: &mut [T], layer: usize) -> &mut T {
    let count = all.len();
    &mut all[layer % count]
}
