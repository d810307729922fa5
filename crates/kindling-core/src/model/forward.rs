//! The forward pass, block by block. n = b t rows; shapes are those of `activations.rs`.

use super::NORM_EPS;
use super::activations::{Activations, BlockActivations};
use super::params::{BlockRanges, Layout};
use super::transformer::Pass;
use crate::Result;
use crate::buffer::Buffer;
use crate::config::ModelConfig;
use crate::decode::CacheStep;
use crate::device::Device;
use crate::ops::{attention, embedding, linear, rms_norm, rope, swiglu};

/// What a pass reads.
pub(crate) struct Context<'a> {
    pub device: &'a Device,
    pub config: &'a ModelConfig,
    pub layout: &'a Layout,
    pub weights: &'a Buffer,
    pub cos: &'a Buffer,
    pub sin: &'a Buffer,
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

/// Fills the activations; ends with the norm of the last stream in `normed_last`. With a `cache` each row is the next token
/// of a sequence of its own and attends to what is cached; without, rows are whole sequences.
pub(super) fn run(
    context: &Context,
    activations: &mut Activations,
    x: &[u32],
    pass: Pass,
    mut cache: Option<CacheStep>,
) -> Result<()> {
    let s = Shapes::new(context.config, pass);
    let (dev, layout) = (context.device, context.layout);
    let table = embedding::Shape {
        rows: pass.rows(),
        d_model: context.config.d_model,
        vocab_size: context.config.vocab_size,
    };
    let Activations { blocks, branch, last, rstd_last, normed_last, .. } = activations;
    let (n, c) = (pass.rows(), s.stream);
    let first = &mut blocks[0];
    let weight = context.weights.slice(layout.embedding.clone());
    embedding::forward(dev, first.input.slice_mut(0..c), x, weight, table)?;
    let gain = context.weights.slice(layout.blocks[0].norm_attn.clone());
    rms_norm::forward(
        dev,
        first.normed_attn.slice_mut(0..c),
        first.rstd_attn.slice_mut(0..n),
        first.input.slice(0..c),
        gain,
        s.norm,
    )?;
    for layer in 0..blocks.len() {
        let (before, after) = blocks.split_at_mut(layer + 1);
        let block = &mut before[layer];
        run_block(context, layer, block, branch, &s, cache.as_mut())?;
        // The block's output joins the stream in the pass that norms it for the next one.
        let (sum, out, rstd, gain) = match after.first_mut() {
            Some(next) => (
                &mut next.input,
                &mut next.normed_attn,
                &mut next.rstd_attn,
                &layout.blocks[layer + 1].norm_attn,
            ),
            None => (&mut *last, &mut *normed_last, &mut *rstd_last, &layout.final_norm),
        };
        rms_norm::forward_residual(
            dev,
            out.slice_mut(0..c),
            sum.slice_mut(0..c),
            rstd.slice_mut(0..n),
            block.middle.slice(0..c),
            branch.slice(0..c),
            context.weights.slice(gain.clone()),
            s.norm,
        )?;
    }
    if let Some(cache) = cache {
        cache.finish();
    }
    Ok(())
}

/// One block, from its normed input to the output of its feed-forward layer, left in `branch`.
fn run_block(
    context: &Context,
    layer: usize,
    block: &mut BlockActivations,
    branch: &mut Buffer,
    s: &Shapes,
    cache: Option<&mut CacheStep>,
) -> Result<()> {
    let ranges: &BlockRanges = &context.layout.blocks[layer];
    let (dev, c) = (context.device, s.stream);
    let weight = |range: &std::ops::Range<usize>| context.weights.slice(range.clone());
    let (n, qkv, hidden) = (s.norm.rows, 0..s.qkv_len(), 0..s.hidden_len());
    let bias = ranges.qkv_bias.as_ref().map(weight);
    linear::forward(
        dev,
        block.qkv.slice_mut(qkv.clone()),
        block.normed_attn.slice(0..c),
        weight(&ranges.qkv),
        bias,
        s.qkv,
    )?;
    match cache {
        Some(cache) => {
            cache.attend(context, layer, block.qkv.slice_mut(qkv), block.attention.slice_mut(0..c))?;
        }
        None => attend(context, block, s)?,
    }
    linear::forward(dev, branch.slice_mut(0..c), block.attention.slice(0..c), weight(&ranges.o), None, s.o)?;
    rms_norm::forward_residual(
        dev,
        block.normed_ff.slice_mut(0..c),
        block.middle.slice_mut(0..c),
        block.rstd_ff.slice_mut(0..n),
        block.input.slice(0..c),
        branch.slice(0..c),
        weight(&ranges.norm_ff),
        s.norm,
    )?;
    let gate_up = 0..2 * s.hidden_len();
    linear::forward(
        dev,
        block.gate_up.slice_mut(gate_up.clone()),
        block.normed_ff.slice(0..c),
        weight(&ranges.w13),
        None,
        s.w13,
    )?;
    swiglu::forward(dev, block.hidden.slice_mut(hidden.clone()), block.gate_up.slice(gate_up), s.swiglu)?;
    linear::forward(dev, branch.slice_mut(0..c), block.hidden.slice(hidden), weight(&ranges.w2), None, s.w2)
}

/// Whole sequences: rotation, then attention of each row to those before it.
fn attend(context: &Context, block: &mut BlockActivations, s: &Shapes) -> Result<()> {
    let (dev, qkv) = (context.device, 0..s.qkv_len());
    rope::forward(dev, block.qkv.slice_mut(qkv.clone()), context.cos.view(), context.sin.view(), s.rope)?;
    attention::forward(
        dev,
        block.attention.slice_mut(0..s.stream),
        block.lse.slice_mut(0..s.lse_len()),
        block.qkv.slice(qkv),
        s.attention,
    )
}
