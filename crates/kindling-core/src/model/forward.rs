//! The forward pass, block by block. Shapes are those of `activations.rs`.
//!
//! ```text
//! residual[0] = embedding[x]
//! for each block l:
//!     normed        = rms_norm(residual[l])
//!     qkv           = rope(head_norm(normed Wqkv^T + bias)), head_norm if the model has it
//!     attention     = softmax(q k^T / sqrt(hs), causal) v
//!     residual_mid  = residual[l] + attention Wo^T
//!     normed        = rms_norm(residual_mid)
//!     gate | up     = normed W13^T
//!     hidden        = silu(gate) up
//!     residual[l+1] = residual_mid + hidden W2^T
//! normed = rms_norm(residual[L])
//! ```
//!
//! `rms_norm::forward_residual` fuses each addition to the residual stream with the norm that
//! follows it.

use super::activations::{Activations, BlockActivations, of_layer};
use super::kv_cache::{CacheStep, KvCache};
use super::pass::{Pass, PassContext, Shapes};
use crate::Result;
use crate::ops::{attention, embedding, head_norm, rms_norm, rope, swiglu};

/// The key/value cache of a pass, and how the pass uses it.
#[derive(Debug)]
pub(super) enum CacheUse<'a> {
    /// Rows are whole sequences; nothing is cached.
    None,
    /// Rows are one whole sequence; its keys and values go to this row of the cache, if any. Only
    /// the last row is computed to the end.
    Prefill(Option<(&'a mut KvCache, usize)>),
    /// Each row is the next token of a different sequence and attends to that sequence's cached
    /// tokens.
    Step(CacheStep<'a>),
}

/// Runs the forward pass on the tokens `x`, and leaves the output of the last norm in
/// `activations.normed`: that of all rows, or in a prefill that of the last row alone.
pub(super) fn run(
    context: &PassContext,
    activations: &mut Activations,
    x: &[u32],
    pass: Pass,
    mut cache: CacheUse,
) -> Result<()> {
    let s = Shapes::new(context.config, pass);
    embedding::forward(
        context.device,
        embedding::Forward {
            out: activations.residuals[0].values.slice_mut(0..s.residual_len()),
            ids: x,
            weight: context.weight(&context.layout.embedding),
            shape: s.embedding,
        },
    )?;
    let embedded = activations.residuals[0].values.slice(0..s.residual_len());
    context.check("token_embedding output", embedded)?;
    norm_residual(context, activations, 0, &s)?;
    let layers = context.config.num_layers;
    for layer in 0..layers {
        run_attention(context, layer, activations, &s, &mut cache)?;
        if layer + 1 == layers && matches!(cache, CacheUse::Prefill(_)) {
            let last = Shapes::new(context.config, Pass { batch: 1, positions: 1 });
            run_feed_forward(context, layer, activations, &last, s.rows() - 1)?;
            end_block(context, layer, activations, &last)?;
        } else {
            run_feed_forward(context, layer, activations, &s, 0)?;
            end_block(context, layer, activations, &s)?;
        }
    }
    match cache {
        CacheUse::None | CacheUse::Prefill(None) => {}
        CacheUse::Prefill(Some((cache, row))) => cache.set_position(row, pass.positions),
        CacheUse::Step(step) => step.finish(),
    }
    Ok(())
}

/// Adds hidden W2^T to the residual stream, and applies the norm that follows `layer`.
fn end_block(
    context: &PassContext,
    layer: usize,
    activations: &mut Activations,
    s: &Shapes,
) -> Result<()> {
    let (layout, c) = (context.layout, s.residual_len());
    let Activations { residuals, blocks, normed, sublayer_output, hidden, .. } = activations;
    context.linear(
        sublayer_output.slice_mut(0..c),
        of_layer(hidden, layer).slice(0..s.hidden_len()),
        &layout.blocks[layer].w2,
        None,
        s.w2,
    )?;
    context.check_block(layer, "Feed_Forward linear_w2 output", sublayer_output.slice(0..c))?;
    let next = of_layer(residuals, layer + 1);
    rms_norm::forward_residual(
        context.device,
        rms_norm::ForwardResidual {
            out: normed.slice_mut(0..c),
            sum: next.values.slice_mut(0..c),
            rstd: next.rstd.slice_mut(0..s.rows()),
            x: of_layer(blocks, layer).residual_mid.slice(0..c),
            residual: sublayer_output.slice(0..c),
            weight: context.weight(layout.norm_after(layer)),
            shape: s.norm,
        },
    )?;
    context.check_block(layer, "output", next.values.slice(0..c))?;
    if layer + 1 < context.config.num_layers {
        context.check_block(layer + 1, "RMSNorm_Attn output", normed.slice(0..c))
    } else {
        context.check("final_norm output", normed.slice(0..c))
    }
}

/// Computes normed = `rms_norm` of the residual stream at the entry of `layer`.
pub(super) fn norm_residual(
    context: &PassContext,
    activations: &mut Activations,
    layer: usize,
    s: &Shapes,
) -> Result<()> {
    let Activations { residuals, normed, .. } = activations;
    let residual = of_layer(residuals, layer);
    rms_norm::forward(
        context.device,
        rms_norm::Forward {
            out: normed.slice_mut(0..s.residual_len()),
            rstd: residual.rstd.slice_mut(0..s.rows()),
            x: residual.values.slice(0..s.residual_len()),
            weight: context.weight(&context.layout.blocks[layer].norm_attn),
            shape: s.norm,
        },
    )?;
    context.check_block(layer, "RMSNorm_Attn output", normed.slice(0..s.residual_len()))
}

/// Runs one block up to `hidden`, from its normed input in `normed`.
///
/// The product with w2 is left to `end_block`, since recomputation before a backward pass does not
/// need it.
pub(super) fn run_block(
    context: &PassContext,
    layer: usize,
    activations: &mut Activations,
    s: &Shapes,
) -> Result<()> {
    run_attention(context, layer, activations, s, &mut CacheUse::None)?;
    run_feed_forward(context, layer, activations, s, 0)
}

/// Computes `attention`, the heads' outputs, from the block's normed input in `normed`.
fn run_attention(
    context: &PassContext,
    layer: usize,
    activations: &mut Activations,
    s: &Shapes,
    cache: &mut CacheUse,
) -> Result<()> {
    let ranges = &context.layout.blocks[layer];
    let Activations { blocks, normed, .. } = activations;
    let block = of_layer(blocks, layer);
    let (dev, c, qkv) = (context.device, s.residual_len(), 0..s.qkv_len());
    let bias = ranges.qkv_bias.as_ref().map(|range| context.weight(range));
    context.linear(
        block.qkv.slice_mut(qkv.clone()),
        normed.slice(0..c),
        &ranges.qkv,
        bias,
        s.qkv,
    )?;
    context.check_block(layer, "Multihead_Attn qkv_proj output", block.qkv.slice(qkv.clone()))?;
    if let Some(gains) = &ranges.qk_norm {
        head_norm::forward(
            dev,
            head_norm::Forward {
                x: block.qkv.slice_mut(qkv.clone()),
                saved: block.unnormed_qk.as_mut().map(|qk| qk.slice_mut(0..s.qk_len())),
                weight: context.weight(gains),
                shape: s.head_norm,
            },
        )?;
        context.check_block(
            layer,
            "Multihead_Attn qk_norm output",
            block.qkv.slice(qkv.clone()),
        )?;
    }
    match cache {
        CacheUse::None | CacheUse::Prefill(None) => attend(context, layer, block, s),
        CacheUse::Prefill(Some((cache, row))) => {
            attend(context, layer, block, s)?;
            cache.fill(dev, layer, *row, s.attention.positions, block.qkv.slice(qkv))
        }
        CacheUse::Step(step) => {
            let heads = block.attention.slice_mut(0..s.heads_len());
            step.attend(context, layer, block.qkv.slice_mut(qkv), heads)?;
            let heads = block.attention.slice(0..s.heads_len());
            context.check_block(layer, "Multihead_Attn attention output", heads)
        }
    }
}

/// Computes `residual_mid`, gate | up and hidden for `s.rows()` rows, starting at row `first`.
fn run_feed_forward(
    context: &PassContext,
    layer: usize,
    activations: &mut Activations,
    s: &Shapes,
    first: usize,
) -> Result<()> {
    let ranges = &context.layout.blocks[layer];
    let Activations { residuals, blocks, normed, sublayer_output, hidden, .. } = activations;
    let (residual, block) = (of_layer(residuals, layer), of_layer(blocks, layer));
    let (dev, c) = (context.device, s.residual_len());
    let (start, heads) = (first * s.norm.width, s.attention.out_width());
    context.linear(
        sublayer_output.slice_mut(0..c),
        block.attention.slice(first * heads..(first + s.rows()) * heads),
        &ranges.o,
        None,
        s.o,
    )?;
    context.check_block(layer, "Multihead_Attn o_proj output", sublayer_output.slice(0..c))?;
    rms_norm::forward_residual(
        dev,
        rms_norm::ForwardResidual {
            out: normed.slice_mut(0..c),
            sum: block.residual_mid.slice_mut(0..c),
            rstd: block.rstd_mid.slice_mut(0..s.rows()),
            x: residual.values.slice(start..start + c),
            residual: sublayer_output.slice(0..c),
            weight: context.weight(&ranges.norm_ff),
            shape: s.norm,
        },
    )?;
    let mid = block.residual_mid.slice(0..c);
    context.check_block(layer, "Multihead_Attn residual sum", mid)?;
    context.check_block(layer, "RMSNorm_FF output", normed.slice(0..c))?;
    let (hidden_len, gate_up) = (s.hidden_len(), 0..2 * s.hidden_len());
    context.linear(
        block.gate_up.slice_mut(gate_up.clone()),
        normed.slice(0..c),
        &ranges.w13,
        None,
        s.w13,
    )?;
    let products = block.gate_up.slice(gate_up.clone());
    context.check_block(layer, "Feed_Forward linear_w1, linear_w3 output", products)?;
    swiglu::forward(
        dev,
        swiglu::Forward {
            out: of_layer(hidden, layer).slice_mut(0..hidden_len),
            gate_up: block.gate_up.slice(gate_up),
            shape: s.swiglu,
        },
    )?;
    let hidden = of_layer(hidden, layer).slice(0..hidden_len);
    context.check_block(layer, "Feed_Forward silu output", hidden)
}

/// Rotates queries and keys and runs causal attention over whole sequences.
fn attend(
    context: &PassContext,
    layer: usize,
    block: &mut BlockActivations,
    s: &Shapes,
) -> Result<()> {
    let (dev, qkv) = (context.device, 0..s.qkv_len());
    let rotated = block.qkv.slice_mut(qkv.clone());
    rope::forward(
        dev,
        rope::Forward {
            x: rotated,
            cos: context.cos.view(),
            sin: context.sin.view(),
            shape: s.rope,
        },
    )?;
    context.check_block(layer, "Multihead_Attn rope output", block.qkv.slice(qkv.clone()))?;
    attention::forward(
        dev,
        attention::Forward {
            out: block.attention.slice_mut(0..s.heads_len()),
            lse: block.lse.slice_mut(0..s.lse_len()),
            qkv: block.qkv.slice(qkv),
            shape: s.attention,
        },
    )?;
    let heads = block.attention.slice(0..s.heads_len());
    context.check_block(layer, "Multihead_Attn attention output", heads)
}
