//! The forward pass, block by block. n = b t rows; shapes are those of `activations.rs`.

use std::ops::Range;

use super::NORM_EPS;
use super::activations::{Activations, BlockActivations, of_layer};
use super::params::{BlockRanges, Layout};
use super::transformer::Pass;
use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::config::ModelConfig;
use crate::decode::{CacheStep, KvCache};
use crate::device::Device;
use crate::ops::{attention, embedding, linear, rms_norm, rope, swiglu};

/// What a pass reads.
pub(crate) struct Context<'a> {
    pub device: &'a Device,
    pub config: &'a ModelConfig,
    pub layout: &'a Layout,
    pub weights: &'a Buffer,
    /// The weights as products take them, where that is not f32.
    pub operands: Option<&'a Buffer>,
    /// The weights as bf16 on the CPU, for tokens one at a time.
    pub narrow: Option<&'a [u16]>,
    pub cos: &'a Buffer,
    pub sin: &'a Buffer,
}

impl Context<'_> {
    /// One of the weights, in f32.
    pub(super) fn weight(&self, range: &Range<usize>) -> In<'_> {
        self.weights.slice(range.clone())
    }

    /// One of the weights as products take it.
    pub(super) fn operand(&self, range: &Range<usize>) -> In<'_> {
        self.operands.unwrap_or(self.weights).slice(range.clone())
    }

    /// out = x W^T + bias, W being `range` of the weights.
    pub(super) fn linear(
        &self,
        out: Out,
        x: In,
        range: &Range<usize>,
        bias: Option<In>,
        s: linear::Shape,
    ) -> Result<()> {
        match self.narrow {
            Some(narrow) => {
                let weight = &narrow[range.clone()];
                let args = linear::ForwardBf16Weight { out, x, weight, bias, shape: s };
                linear::forward_bf16_weight(self.device, args)
            }
            None => {
                let weight = self.operand(range);
                linear::forward(self.device, linear::Forward { out, x, weight, bias, shape: s })
            }
        }
    }
}

/// Sizes of the ops of one pass.
pub(super) struct Shapes {
    pub stream: usize,
    pub norm: rms_norm::Shape,
    pub qkv: linear::Shape,
    pub rope: rope::Shape,
    pub attention: attention::Shape,
    pub o: linear::Shape,
    pub w13: linear::Shape,
    pub swiglu: swiglu::Shape,
    pub w2: linear::Shape,
}

impl Shapes {
    pub(super) fn new(config: &ModelConfig, pass: Pass) -> Self {
        let (rows, c, f) = (pass.rows(), config.d_model, config.d_ff);
        let attention = attention::Shape {
            batch: pass.batch,
            positions: pass.positions,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_size: config.head_size(),
        };
        Self {
            stream: rows * c,
            norm: rms_norm::Shape { rows, width: c, eps: NORM_EPS },
            qkv: linear::Shape { rows, inputs: c, outputs: config.qkv_width() },
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
        }
    }

    pub(super) fn lse_len(&self) -> usize {
        self.norm.rows * self.attention.num_heads
    }

    pub(super) fn qkv_len(&self) -> usize {
        self.qkv.rows * self.qkv.outputs
    }

    pub(super) fn hidden_len(&self) -> usize {
        self.swiglu.rows * self.swiglu.width
    }
}

/// What the passes of attention do with a cache of keys and values.
#[derive(Debug)]
pub(crate) enum CacheUse<'a> {
    /// Rows are whole sequences; nothing is cached.
    None,
    /// Rows are one whole sequence; its keys and values go to this row of the cache.
    Fill(&'a mut KvCache, usize),
    /// Each row is the next token of a sequence of its own and attends to what is cached.
    Step(CacheStep<'a>),
}

/// Fills the activations; ends with the norm of the last stream in `normed`.
pub(super) fn run(
    context: &Context,
    activations: &mut Activations,
    x: &[u32],
    pass: Pass,
    mut cache: CacheUse,
) -> Result<()> {
    let s = Shapes::new(context.config, pass);
    let (dev, layout, layers) = (context.device, context.layout, context.config.num_layers);
    let table = embedding::Shape {
        rows: pass.rows(),
        d_model: context.config.d_model,
        vocab_size: context.config.vocab_size,
    };
    let weight = context.weights.slice(layout.embedding.clone());
    embedding::forward(
        dev,
        activations.streams[0].values.slice_mut(0..s.stream),
        x,
        weight,
        table,
    )?;
    norm_stream(context, activations, 0, &s)?;
    for layer in 0..layers {
        run_block(context, layer, activations, &s, &mut cache)?;
        let Activations { streams, blocks, normed, branch, hidden, .. } = &mut *activations;
        let hidden = hidden.slice(0..s.hidden_len());
        context.linear(
            branch.slice_mut(0..s.stream),
            hidden,
            &layout.blocks[layer].w2,
            None,
            s.w2,
        )?;
        // The block's output joins the stream in the pass that norms it for the next one.
        let next = of_layer(streams, layer + 1);
        rms_norm::forward_residual(
            dev,
            normed.slice_mut(0..s.stream),
            next.values.slice_mut(0..s.stream),
            next.rstd.slice_mut(0..s.norm.rows),
            of_layer(blocks, layer).middle.slice(0..s.stream),
            branch.slice(0..s.stream),
            context.weight(layout.norm_after(layer)),
            s.norm,
        )?;
    }
    match cache {
        CacheUse::None => {}
        CacheUse::Fill(cache, row) => cache.set_position(row, pass.positions),
        CacheUse::Step(step) => step.finish(),
    }
    Ok(())
}

/// The norm of the stream on entry of `layer`, left in `normed`.
pub(super) fn norm_stream(
    context: &Context,
    activations: &mut Activations,
    layer: usize,
    s: &Shapes,
) -> Result<()> {
    let Activations { streams, normed, .. } = activations;
    let stream = of_layer(streams, layer);
    rms_norm::forward(
        context.device,
        normed.slice_mut(0..s.stream),
        stream.rstd.slice_mut(0..s.norm.rows),
        stream.values.slice(0..s.stream),
        context.weight(&context.layout.blocks[layer].norm_attn),
        s.norm,
    )
}

/// One block, from its normed input in `normed` to the gated product of its feed-forward layer in `hidden`.
pub(super) fn run_block(
    context: &Context,
    layer: usize,
    activations: &mut Activations,
    s: &Shapes,
    cache: &mut CacheUse,
) -> Result<()> {
    let ranges: &BlockRanges = &context.layout.blocks[layer];
    let Activations { streams, blocks, normed, branch, hidden, .. } = activations;
    let (stream, block) = (of_layer(streams, layer), of_layer(blocks, layer));
    let (dev, c, n) = (context.device, s.stream, s.norm.rows);
    let (qkv, hidden_len) = (0..s.qkv_len(), s.hidden_len());
    let bias = ranges.qkv_bias.as_ref().map(|range| context.weight(range));
    context.linear(
        block.qkv.slice_mut(qkv.clone()),
        normed.slice(0..c),
        &ranges.qkv,
        bias,
        s.qkv,
    )?;
    match cache {
        CacheUse::Step(step) => {
            step.attend(context, layer, block.qkv.slice_mut(qkv), block.attention.slice_mut(0..c))?;
        }
        CacheUse::Fill(cache, row) => {
            attend(context, block, s)?;
            cache.fill(dev, layer, *row, s.attention.positions, block.qkv.slice(qkv))?;
        }
        CacheUse::None => attend(context, block, s)?,
    }
    context.linear(branch.slice_mut(0..c), block.attention.slice(0..c), &ranges.o, None, s.o)?;
    rms_norm::forward_residual(
        dev,
        normed.slice_mut(0..c),
        block.middle.slice_mut(0..c),
        block.rstd_ff.slice_mut(0..n),
        stream.values.slice(0..c),
        branch.slice(0..c),
        context.weight(&ranges.norm_ff),
        s.norm,
    )?;
    let gate_up = 0..2 * hidden_len;
    context.linear(
        block.gate_up.slice_mut(gate_up.clone()),
        normed.slice(0..c),
        &ranges.w13,
        None,
        s.w13,
    )?;
    swiglu::forward(dev, hidden.slice_mut(0..hidden_len), block.gate_up.slice(gate_up), s.swiglu)
}

/// Whole sequences: rotation, then attention of each row to those before it.
fn attend(context: &Context, block: &mut BlockActivations, s: &Shapes) -> Result<()> {
    let (dev, qkv) = (context.device, 0..s.qkv_len());
    rope::forward(
        dev,
        block.qkv.slice_mut(qkv.clone()),
        context.cos.view(),
        context.sin.view(),
        s.rope,
    )?;
    attention::forward(
        dev,
        block.attention.slice_mut(0..s.stream),
        block.lse.slice_mut(0..s.lse_len()),
        block.qkv.slice(qkv),
        s.attention,
    )
}
