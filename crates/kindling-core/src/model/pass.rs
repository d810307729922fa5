//! One pass through the model: its sizes, the weights it reads, and the shapes of its ops.

use std::ops::Range;

use super::frozen::Frozen;
use super::params::Layout;
use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::config::ModelConfig;
use crate::device::Device;
use crate::ops::{attention, embedding, head_norm, linear, output_loss, rms_norm, rope, swiglu};

/// Sizes of one pass: `batch` sequences of `positions` tokens each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    pub batch: usize,
    pub positions: usize,
}

impl Pass {
    /// Returns the number of tokens, which is the number of rows of every activation.
    pub(super) fn rows(self) -> usize {
        self.batch * self.positions
    }
}

/// The batch of a forward pass whose activations wait for the backward pass of a loss computed
/// outside the engine.
#[derive(Debug)]
pub(super) struct PendingBatch {
    pub x: Vec<u32>,
    pub pass: Pass,
}

/// The read-only side of a pass: device, configuration, weights and rotation tables.
pub(super) struct PassContext<'a> {
    pub device: &'a Device,
    pub config: &'a ModelConfig,
    pub layout: &'a Layout,
    /// The flat weights, f32.
    pub weights: &'a Buffer,
    /// On a bf16 device: the weights rounded to bf16, as matrix products read them.
    pub weights_bf16: Option<&'a Buffer>,
    /// On the CPU: the weights rounded to bf16, for decode steps (`linear::forward_bf16_weight`).
    pub decode_weights_bf16: Option<&'a [u16]>,
    /// Whether every op's output is checked; see `anomaly`.
    pub detect_anomaly: bool,
    /// Parameters that get no gradient.
    pub frozen: &'a Frozen,
    /// Cosines of the rotation angles (`max_seq_length`, hs).
    pub cos: &'a Buffer,
    /// Sines of the rotation angles (`max_seq_length`, hs).
    pub sin: &'a Buffer,
}

impl PassContext<'_> {
    /// Returns the weight at `range`, in f32.
    pub(super) fn weight(&self, range: &Range<usize>) -> In<'_> {
        self.weights.slice(range.clone())
    }

    /// Returns the weight at `range`, in the dtype that the device's matrix products read.
    pub(super) fn matmul_weight(&self, range: &Range<usize>) -> In<'_> {
        self.weights_bf16.unwrap_or(self.weights).slice(range.clone())
    }

    /// Computes out = x W^T + bias, where W is the weight at `range`.
    pub(super) fn linear(
        &self,
        out: Out,
        x: In,
        range: &Range<usize>,
        bias: Option<In>,
        shape: linear::Shape,
    ) -> Result<()> {
        if let Some(weights) = self.decode_weights_bf16 {
            let weight = &weights[range.clone()];
            let args = linear::ForwardBf16Weight { out, x, weight, bias, shape };
            linear::forward_bf16_weight(self.device, args)
        } else {
            let weight = self.matmul_weight(range);
            linear::forward(self.device, linear::Forward { out, x, weight, bias, shape })
        }
    }

    /// Adds to the gradients of the weight (and bias) at `range`, unless all of it is frozen.
    pub(super) fn backward_weight(
        &self,
        range: &Range<usize>,
        args: linear::BackwardWeight,
    ) -> Result<()> {
        if self.frozen.covers(range) {
            return Ok(());
        }
        linear::backward_weight(self.device, args)
    }
}

/// Shapes of the ops of one pass.
pub(super) struct Shapes {
    pub embedding: embedding::Shape,
    pub norm: rms_norm::Shape,
    pub qkv: linear::Shape,
    pub head_norm: head_norm::Shape,
    pub rope: rope::Shape,
    pub attention: attention::Shape,
    pub o: linear::Shape,
    pub w13: linear::Shape,
    pub swiglu: swiglu::Shape,
    pub w2: linear::Shape,
    pub output: linear::Shape,
    pub output_loss: output_loss::Shape,
}

impl Shapes {
    pub(super) fn new(config: &ModelConfig, pass: Pass) -> Self {
        let (rows, c, f) = (pass.rows(), config.d_model, config.d_ff);
        let (d_model, vocab_size) = (config.d_model, config.vocab_size);
        let attention = attention::Shape {
            batch: pass.batch,
            positions: pass.positions,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_size: config.head_size(),
        };
        Self {
            embedding: embedding::Shape { rows, d_model, vocab_size },
            norm: rms_norm::Shape { rows, width: c, eps: config.norm_eps as f32 },
            qkv: linear::Shape { rows, inputs: c, outputs: config.qkv_width() },
            head_norm: head_norm::Shape {
                rows,
                row_width: config.qkv_width(),
                q_heads: config.num_heads,
                k_heads: config.num_kv_heads,
                head_size: config.head_size(),
                eps: config.norm_eps as f32,
            },
            rope: rope::Shape {
                rows,
                row_width: config.qkv_width(),
                heads: config.num_heads + config.num_kv_heads,
                head_size: config.head_size(),
                positions: pass.positions,
                first_position: 0,
            },
            attention,
            o: linear::Shape { rows, inputs: attention.out_width(), outputs: c },
            w13: linear::Shape { rows, inputs: c, outputs: 2 * f },
            swiglu: swiglu::Shape { rows, width: f },
            w2: linear::Shape { rows, inputs: f, outputs: c },
            output: linear::Shape { rows, inputs: c, outputs: vocab_size },
            output_loss: output_loss::Shape { rows, d_model, vocab_size },
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.norm.rows
    }

    /// Elements of the residual stream (n, c).
    pub(super) fn residual_len(&self) -> usize {
        self.norm.rows * self.norm.width
    }

    /// Elements of q|k|v (n, (nh + 2 nkv) hs).
    pub(super) fn qkv_len(&self) -> usize {
        self.qkv.rows * self.qkv.outputs
    }

    /// Elements of the queries and keys (n, (nh + nkv) hs).
    pub(super) fn qk_len(&self) -> usize {
        self.head_norm.rows * self.head_norm.normed_width()
    }

    /// Elements of the heads' outputs (n, nh hs).
    pub(super) fn heads_len(&self) -> usize {
        self.o.rows * self.o.inputs
    }

    /// Elements of lse (b, nh, t).
    pub(super) fn lse_len(&self) -> usize {
        self.norm.rows * self.attention.num_heads
    }

    /// Elements of the gated product (n, f).
    pub(super) fn hidden_len(&self) -> usize {
        self.swiglu.rows * self.swiglu.width
    }
}
