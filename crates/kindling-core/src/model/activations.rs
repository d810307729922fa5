//! Buffers of one pass, allocated for the largest batch so far and reused. n = b t rows.
//!
//! The backward pass needs from each block: the residual stream at its entry and between its two
//! layers, q|k|v, the heads' outputs, and w1 x | w3 x. Norms and the gated product are recomputed
//! from these, each in one pass over memory; a CUDA device with enough memory keeps the gated
//! product. With recomputation on, only the residual streams at the entries are saved, and each
//! block's forward pass runs again before its backward pass.

use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::config::ModelConfig;
use crate::device::Device;
use crate::dtype::Dtype;

/// The activations that a forward pass saves for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Saved {
    /// Nothing: no backward pass follows, and all blocks share one block's memory.
    Nothing,
    /// The residual stream at the entry of each block; the rest is recomputed.
    Residuals,
    /// Everything the backward pass needs from each block.
    Blocks,
}

/// The residual stream at the entry of a block, or after the last one.
#[derive(Debug)]
pub struct Residual<M = Buffer> {
    /// (n, c).
    pub values: M,
    /// Inverse root mean square (n).
    pub rstd: M,
}

/// Activations of one block.
///
/// The residual stream, `rstd_mid` and `lse` are f32. The others have the device's
/// `activation_dtype`, or its `matmul_dtype` if only matrix products (and the gate) read them.
#[derive(Debug)]
pub struct BlockActivations<M = Buffer> {
    /// Queries, keys (both rotated), values (n, (nh + 2 nkv) hs). On the CPU the backward pass
    /// replaces them with their gradients.
    pub qkv: M,
    /// Queries and keys before their norms (n, (nh + nkv) hs), if the model has such norms and a
    /// backward pass follows.
    pub unnormed_qk: Option<M>,
    /// Log-sum-exp of each query's scores (b, nh, t).
    pub lse: M,
    /// Outputs of the heads (n, nh hs), in the `matmul_dtype` if a backward pass follows.
    pub attention: M,
    /// The residual stream between attention and feed-forward (n, c).
    pub residual_mid: M,
    /// Inverse root mean square of `residual_mid` (n).
    pub rstd_mid: M,
    /// w1 x | w3 x (n, 2 f), in the `matmul_dtype`. The backward pass replaces it with its
    /// gradient.
    pub gate_up: M,
}

/// Buffers of one pass through the model.
#[derive(Debug)]
pub struct Activations<M = Buffer> {
    /// The most rows a pass may have.
    pub rows: usize,
    pub saved: Saved,
    /// Whether the backward pass reads `hidden` instead of recomputing it.
    pub keep_hidden: bool,
    /// `num_layers` + 1 residual streams, or a single one if nothing is saved.
    pub residuals: Vec<Residual<M>>,
    /// One per layer with `Saved::Blocks`, otherwise a single one that all layers share.
    pub blocks: Vec<BlockActivations<M>>,
    /// Output of a norm, input of the products that follow it (n, c).
    pub normed: M,
    /// Output of attention or feed-forward before it joins the residual stream (n, c). In the
    /// backward pass: gradient of the heads' outputs (n, nh hs), then of a norm's output.
    pub sublayer_output: M,
    /// silu(w1 x) w3 x (n, f), in the `matmul_dtype`: one per block if `keep_hidden`. Otherwise a
    /// single one, which the backward pass overwrites with its gradient and then recomputes.
    pub hidden: Vec<M>,
    /// Buffers that only the backward pass needs.
    pub gradients: Option<GradientActivations<M>>,
}

/// Gradients of activations, shared by all blocks.
#[derive(Debug)]
pub struct GradientActivations<M = Buffer> {
    /// Gradient of the residual stream (n, c), f32.
    pub residual: M,
    /// On a bf16 device: `residual` rounded to bf16, as matrix products read it (n, c).
    pub residual_bf16: Option<M>,
    /// Gradient of `Activations::hidden`, if that is kept (n, f).
    pub hidden: Option<M>,
    /// On a CUDA device: gradient of q|k|v (n, (nh + 2 nkv) hs). The CPU overwrites
    /// `BlockActivations::qkv` instead.
    pub qkv: Option<M>,
}

/// Dtypes of the activations on one kind of device.
#[derive(Debug, Clone, Copy)]
pub(super) struct ActivationDtypes {
    pub activation: Dtype,
    pub matmul: Dtype,
    /// Set if the gradient of q|k|v has its own buffer; otherwise it overwrites q|k|v.
    pub separate_dqkv: bool,
}

/// Choices that, besides the sizes, decide which buffers there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choices {
    pub dtypes: ActivationDtypes,
    /// See `Activations::keep_hidden`.
    pub keep_hidden: bool,
}

impl ActivationDtypes {
    fn of(device: &Device) -> Self {
        Self {
            activation: device.activation_dtype(),
            matmul: device.matmul_dtype(),
            separate_dqkv: matches!(device, Device::Cuda(_)),
        }
    }
}

impl Activations {
    /// Allocates memory for passes of up to `rows` rows.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the device has too little memory.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
        saved: Saved,
        keep_hidden: bool,
    ) -> Result<Self> {
        let allocate = |len, dtype| Buffer::zeros_of(device, len, dtype);
        let choices = Choices { dtypes: ActivationDtypes::of(device), keep_hidden };
        Self::with(choices, config, rows, saved, allocate)
    }

    /// Allocates the buffers of the backward pass, unless they exist already.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the device has too little memory.
    pub fn reserve_gradients(&mut self, device: &Device, config: &ModelConfig) -> Result<()> {
        if self.gradients.is_none() {
            let allocate = |len, dtype| Buffer::zeros_of(device, len, dtype);
            let choices =
                Choices { dtypes: ActivationDtypes::of(device), keep_hidden: self.keep_hidden };
            self.gradients = Some(GradientActivations::with(choices, config, self.rows, allocate)?);
        }
        Ok(())
    }
}

impl<M> Activations<M> {
    /// Makes each buffer with `allocate(length, dtype)`. A memory plan passes an allocator that
    /// only counts.
    pub(super) fn with(
        choices: Choices,
        config: &ModelConfig,
        rows: usize,
        saved: Saved,
        allocate: impl Fn(usize, Dtype) -> Result<M>,
    ) -> Result<Self> {
        let Choices { dtypes: ActivationDtypes { activation, matmul, .. }, keep_hidden } = choices;
        let zeros = |width: usize, dtype| allocate(rows * width, dtype);
        let heads = if saved == Saved::Nothing { activation } else { matmul };
        let (c, f) = (config.d_model, config.d_ff);
        let sublayer = if saved == Saved::Nothing { c } else { c.max(config.heads_width()) };
        let residual =
            |_| Ok(Residual { values: zeros(c, Dtype::F32)?, rstd: zeros(1, Dtype::F32)? });
        let block = |_| {
            Ok(BlockActivations {
                qkv: zeros(config.qkv_width(), activation)?,
                unnormed_qk: (config.qk_norm && saved != Saved::Nothing)
                    .then(|| zeros(config.qk_width(), activation))
                    .transpose()?,
                lse: zeros(config.num_heads, Dtype::F32)?,
                attention: zeros(config.heads_width(), heads)?,
                residual_mid: zeros(c, Dtype::F32)?,
                rstd_mid: zeros(1, Dtype::F32)?,
                gate_up: zeros(2 * f, matmul)?,
            })
        };
        let residuals = if saved == Saved::Nothing { 1 } else { config.num_layers + 1 };
        let blocks = if saved == Saved::Blocks { config.num_layers } else { 1 };
        let hiddens = if keep_hidden { blocks } else { 1 };
        Ok(Self {
            rows,
            saved,
            keep_hidden,
            residuals: (0..residuals).map(residual).collect::<Result<_>>()?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            normed: zeros(c, activation)?,
            sublayer_output: zeros(sublayer, activation)?,
            hidden: (0..hiddens).map(|_| zeros(f, matmul)).collect::<Result<_>>()?,
            gradients: None,
        })
    }
}

impl<M> GradientActivations<M> {
    /// As `Activations::with`.
    pub(super) fn with(
        choices: Choices,
        config: &ModelConfig,
        rows: usize,
        allocate: impl Fn(usize, Dtype) -> Result<M>,
    ) -> Result<Self> {
        let Choices { dtypes, keep_hidden } = choices;
        let dtype = dtypes.activation;
        let zeros = |width: usize, dtype| allocate(rows * width, dtype);
        Ok(Self {
            residual: zeros(config.d_model, Dtype::F32)?,
            residual_bf16: (dtype != Dtype::F32)
                .then(|| zeros(config.d_model, dtype))
                .transpose()?,
            hidden: keep_hidden.then(|| allocate(rows * config.d_ff, dtypes.matmul)).transpose()?,
            qkv: dtypes.separate_dqkv.then(|| zeros(config.qkv_width(), dtype)).transpose()?,
        })
    }
}

impl GradientActivations {
    /// Returns the first `len` elements of the residual stream's gradient, as matrix products read
    /// them.
    pub(super) fn rounded_residual(&self, len: usize) -> In<'_> {
        self.residual_bf16.as_ref().unwrap_or(&self.residual).slice(0..len)
    }
}

/// The gradient of the residual stream as an output, with the rounded copy that products read.
pub(super) struct StreamGradient<'a> {
    pub values: Out<'a>,
    pub rounded: Option<Out<'a>>,
}

impl<'a> StreamGradient<'a> {
    /// Takes the first `len` elements of `GradientActivations::residual` and `residual_bf16`.
    pub fn of(values: &'a mut Buffer, rounded: &'a mut Option<Buffer>, len: usize) -> Self {
        let rounded = rounded.as_mut().map(|rounded| rounded.slice_mut(0..len));
        Self { values: values.slice_mut(0..len), rounded }
    }
}

/// Returns the element of `layer`; `all` holds one per layer, or a single one that all layers
/// share.
pub(super) fn of_layer<T>(all: &mut [T], layer: usize) -> &mut T {
    let count = all.len();
    &mut all[layer % count]
}
