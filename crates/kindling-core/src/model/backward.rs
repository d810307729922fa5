//! The backward pass, last block first. Gradients of activations are overwritten, those of
//! parameters are added to.
//!
//! ```text
//! dnormed, dW_output  = output_loss(normed, W_output, targets)
//! dresidual           = rms_norm'(dnormed)
//! for each block, last first:
//!     dhidden         = dresidual W2             dW2   += dresidual^T hidden
//!     dgate | dup     = swiglu'(dhidden)
//!     dnormed         = (dgate | dup) W13        dW13  += (dgate | dup)^T normed
//!     dresidual      += rms_norm'(dnormed)
//!     dattention      = dresidual Wo             dWo   += dresidual^T attention
//!     dqkv            = rope'(attention'(dattention)), on CUDA in one op
//!     dqkv            = head_norm'(dqkv), if the model has it
//!     dnormed         = dqkv Wqkv                dWqkv += dqkv^T normed
//!     dresidual      += rms_norm'(dnormed)
//! dW_embedding[x]    += dresidual
//! ```

use super::activations::{
    Activations, BlockActivations, GradientActivations, Saved, StreamGradient, of_layer,
};
use super::forward::{norm_residual, run_block};
use super::normed_projection::{NormedProjection, normed_projection};
use super::pass::{Pass, PassContext, Shapes};
use crate::buffer::{Buffer, In};
use crate::ops::cross_entropy::LossSum;
use crate::ops::{attention, embedding, head_norm, linear, output_loss, rms_norm, rope, swiglu};
use crate::{Error, Result};

/// Names of outputs for `PassContext::check_block`.
const DQKV: &str = "Multihead_Attn attention gradient of q, k, v";
const ATTENTION: [&str; 2] =
    ["Multihead_Attn qkv_proj gradient of its input", "RMSNorm_Attn gradient of its input"];
const FEED_FORWARD: [&str; 2] =
    ["Feed_Forward linear_w1, linear_w3 gradient of its input", "RMSNorm_FF gradient of its input"];

/// Tokens and targets of a training pass.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    /// Token ids (n).
    pub x: &'a [u32],
    /// The token that follows each; -100 if ignored (n).
    pub targets: &'a [i32],
    /// Factor of the mean loss: the gradients of the scaled loss are added up.
    pub scale: f32,
    /// Whether to wait for the losses and return them. If not, `scratch` adds them up until they
    /// are taken.
    pub read_losses: bool,
}

/// Buffers that a backward pass writes.
pub(super) struct Buffers<'a> {
    pub activations: &'a mut Activations,
    /// The flat gradients of the parameters.
    pub gradients: &'a mut Buffer,
    pub scratch: &'a mut output_loss::Scratch,
}

/// Runs the backward pass after `forward::run` on the same batch. Returns the losses if
/// `batch.read_losses` is set.
pub(super) fn run(
    context: &PassContext,
    buffers: Buffers,
    batch: Batch,
    pass: Pass,
) -> Result<Option<LossSum>> {
    let Buffers { activations, gradients, scratch } = buffers;
    let (dev, layout) = (context.device, context.layout);
    activations.reserve_gradients(dev, context.config)?;
    let s = Shapes::new(context.config, pass);
    let c = s.residual_len();

    let output = output_loss::ForwardBackward {
        dx: activations.sublayer_output.slice_mut(0..c),
        dweight: gradients.slice_mut(layout.output.clone()),
        x: activations.normed.slice(0..c),
        weight: context.matmul_weight(&layout.output),
        targets: batch.targets,
        scale: batch.scale,
        shape: s.output_loss,
    };
    let losses = if batch.read_losses {
        Some(output_loss::forward_backward(dev, output, scratch)?)
    } else {
        output_loss::accumulate(dev, output, scratch)?;
        None
    };
    check_output_layer(context, activations, gradients, &s)?;
    run_blocks(context, activations, gradients, batch.x, &s)?;
    Ok(losses)
}

/// Runs the backward pass after `forward::run` on the tokens `x`, from the gradient of the logits (n,
/// v) in the dtype of the device's activations.
pub(super) fn run_from_logits(
    context: &PassContext,
    buffers: Buffers,
    dlogits: In,
    x: &[u32],
    pass: Pass,
) -> Result<()> {
    let Buffers { activations, gradients, .. } = buffers;
    let (dev, output) = (context.device, &context.layout.output);
    activations.reserve_gradients(dev, context.config)?;
    let s = Shapes::new(context.config, pass);
    let c = s.residual_len();
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: activations.sublayer_output.slice_mut(0..c),
            dout: dlogits,
            weight: context.matmul_weight(output),
            shape: s.output,
            accumulate: false,
        },
    )?;
    let args = linear::BackwardWeight {
        dweight: gradients.slice_mut(output.clone()),
        dbias: None,
        dout: dlogits,
        x: activations.normed.slice(0..c),
        shape: s.output,
    };
    context.backward_weight(output, args)?;
    check_output_layer(context, activations, gradients, &s)?;
    run_blocks(context, activations, gradients, x, &s)
}

/// Runs the anomaly checks on the gradients of the output layer's input and weight.
fn check_output_layer(
    context: &PassContext,
    activations: &Activations,
    gradients: &Buffer,
    s: &Shapes,
) -> Result<()> {
    let dnormed = activations.sublayer_output.slice(0..s.residual_len());
    context.check("final_layer gradient of its input", dnormed)?;
    context.check_gradient(&context.layout.output, gradients)
}

/// Runs the backward pass from the gradient of the last norm's output, in
/// `activations.sublayer_output`, to the embedding.
fn run_blocks(
    context: &PassContext,
    activations: &mut Activations,
    gradients: &mut Buffer,
    x: &[u32],
    s: &Shapes,
) -> Result<()> {
    let (dev, config, layout) = (context.device, context.config, context.layout);
    let c = s.residual_len();
    let mut grads = activations
        .gradients
        .take()
        .ok_or_else(|| Error::Internal("the backward pass has no memory".to_owned()))?;
    let last = of_layer(&mut activations.residuals, config.num_layers);
    let dresidual = StreamGradient::of(&mut grads.residual, &mut grads.residual_bf16, c);
    rms_norm::backward(
        dev,
        rms_norm::Backward {
            dx: dresidual.values,
            rounded: dresidual.rounded,
            normed: None,
            dweight: gradients.slice_mut(layout.final_norm.clone()),
            dout: activations.sublayer_output.slice(0..c),
            x: last.values.slice(0..c),
            weight: context.weight(&layout.final_norm),
            rstd: last.rstd.slice(0..s.rows()),
            shape: s.norm,
        },
    )?;
    context.check("final_norm gradient of its input", grads.residual.slice(0..c))?;
    context.check_gradient(&layout.final_norm, gradients)?;
    for layer in (0..config.num_layers).rev() {
        // The last block's activations are still in memory.
        if activations.saved == Saved::Residuals && layer + 1 < config.num_layers {
            norm_residual(context, activations, layer, s)?;
            run_block(context, layer, activations, s)?;
        }
        feed_forward(context, layer, activations, &mut grads, gradients, s)?;
        attention(context, layer, activations, &mut grads, gradients, s)?;
    }
    embedding::backward(
        dev,
        embedding::Backward {
            dweight: gradients.slice_mut(layout.embedding.clone()),
            dout: grads.residual.slice(0..c),
            ids: x,
            shape: s.embedding,
        },
    )?;
    context.check_gradient(&layout.embedding, gradients)?;
    activations.gradients = Some(grads);
    Ok(())
}

/// Propagates `grads.residual` from the block's output back to `residual_mid`.
fn feed_forward(
    context: &PassContext,
    layer: usize,
    activations: &mut Activations,
    grads: &mut GradientActivations,
    gradients: &mut Buffer,
    s: &Shapes,
) -> Result<()> {
    let (dev, c, ranges) = (context.device, s.residual_len(), &context.layout.blocks[layer]);
    let Activations { blocks, normed, sublayer_output, hidden, .. } = activations;
    let block = of_layer(blocks, layer);
    let (h, gate_up) = (0..s.hidden_len(), 0..2 * s.hidden_len());
    let GradientActivations { residual, residual_bf16, hidden: dhidden, .. } = grads;
    let dresidual = residual_bf16.as_ref().unwrap_or(residual).slice(0..c);
    let (hidden, recompute) = (of_layer(hidden, layer), dhidden.is_none());
    let dhidden = dhidden.as_mut().unwrap_or(&mut *hidden);
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: dhidden.slice_mut(h.clone()),
            dout: dresidual,
            weight: context.matmul_weight(&ranges.w2),
            shape: s.w2,
            accumulate: false,
        },
    )?;
    let dx = dhidden.slice(h.clone());
    context.check_block(layer, "Feed_Forward linear_w2 gradient of its input", dx)?;
    // Leaves the gated product in `hidden`, for the gradient of w2.
    swiglu::backward_in_place(
        dev,
        swiglu::BackwardInPlace {
            gate_up: block.gate_up.slice_mut(gate_up.clone()),
            out: dhidden.slice_mut(h.clone()),
            recompute,
            shape: s.swiglu,
        },
    )?;
    let dx = block.gate_up.slice(gate_up.clone());
    context.check_block(layer, "Feed_Forward silu gradient of its input", dx)?;
    context.backward_weight(
        &ranges.w2,
        linear::BackwardWeight {
            dweight: gradients.slice_mut(ranges.w2.clone()),
            dbias: None,
            dout: dresidual,
            x: hidden.slice(h),
            shape: s.w2,
        },
    )?;
    context.check_gradient(&ranges.w2, gradients)?;

    let projection = NormedProjection {
        layer,
        outputs: FEED_FORWARD,
        dout: block.gate_up.slice(gate_up),
        x: block.residual_mid.slice(0..c),
        rstd: block.rstd_mid.slice(0..s.rows()),
        gain: &ranges.norm_ff,
        weight: &ranges.w13,
        bias: None,
        shape: s.w13,
    };
    let dresidual = StreamGradient::of(&mut grads.residual, &mut grads.residual_bf16, c);
    normed_projection(context, projection, [normed, sublayer_output], dresidual, gradients, s.norm)
}

/// Propagates `grads.residual` from `residual_mid` back to the block's input.
fn attention(
    context: &PassContext,
    layer: usize,
    activations: &mut Activations,
    grads: &mut GradientActivations,
    gradients: &mut Buffer,
    s: &Shapes,
) -> Result<()> {
    let (dev, c, ranges) = (context.device, s.residual_len(), &context.layout.blocks[layer]);
    let Activations { residuals, blocks, normed, sublayer_output, .. } = activations;
    let (residual, block) = (of_layer(residuals, layer), of_layer(blocks, layer));
    let (qkv, heads) = (0..s.qkv_len(), 0..s.heads_len());
    let dresidual = grads.rounded_residual(c);
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: sublayer_output.slice_mut(heads.clone()),
            dout: dresidual,
            weight: context.matmul_weight(&ranges.o),
            shape: s.o,
            accumulate: false,
        },
    )?;
    let dx = sublayer_output.slice(heads.clone());
    context.check_block(layer, "Multihead_Attn o_proj gradient of its input", dx)?;
    context.backward_weight(
        &ranges.o,
        linear::BackwardWeight {
            dweight: gradients.slice_mut(ranges.o.clone()),
            dbias: None,
            dout: dresidual,
            x: block.attention.slice(heads.clone()),
            shape: s.o,
        },
    )?;
    context.check_gradient(&ranges.o, gradients)?;
    let dout = sublayer_output.slice(heads);
    attend(context, layer, block, grads.qkv.as_mut(), dout, s)?;
    let dqkv = grads.qkv.as_mut().unwrap_or(&mut block.qkv);
    if let (Some(gains), Some(unnormed_qk)) = (&ranges.qk_norm, &block.unnormed_qk) {
        head_norm::backward(
            dev,
            head_norm::Backward {
                dx: dqkv.slice_mut(qkv.clone()),
                dweight: gradients.slice_mut(gains.clone()),
                saved: unnormed_qk.slice(0..s.qk_len()),
                weight: context.weight(gains),
                shape: s.head_norm,
            },
        )?;
        let dx = dqkv.slice(qkv.clone());
        context.check_block(layer, "Multihead_Attn qk_norm gradient of its input", dx)?;
        context.check_gradient(gains, gradients)?;
    }

    let projection = NormedProjection {
        layer,
        outputs: ATTENTION,
        dout: dqkv.slice(qkv),
        x: residual.values.slice(0..c),
        rstd: residual.rstd.slice(0..s.rows()),
        gain: &ranges.norm_attn,
        weight: &ranges.qkv,
        bias: ranges.qkv_bias.as_ref(),
        shape: s.qkv,
    };
    let mut dresidual = StreamGradient::of(&mut grads.residual, &mut grads.residual_bf16, c);
    if layer == 0 {
        // No product reads the rounded copy: the embedding's gradient takes the f32 values.
        dresidual.rounded = None;
    }
    normed_projection(context, projection, [normed, sublayer_output], dresidual, gradients, s.norm)
}

/// Propagates the gradient of the heads' outputs back to q|k|v before their rotation. The result
/// goes to `dqkv` if there is one, otherwise it overwrites q|k|v.
fn attend(
    context: &PassContext,
    layer: usize,
    block: &mut BlockActivations,
    dqkv: Option<&mut Buffer>,
    dout: In,
    s: &Shapes,
) -> Result<()> {
    let (dev, qkv) = (context.device, 0..s.qkv_len());
    let out = block.attention.slice(0..s.heads_len());
    let lse = block.lse.slice(0..s.lse_len());
    let (cos, sin) = (context.cos.view(), context.sin.view());
    if let Some(dqkv) = dqkv {
        attention::backward(
            dev,
            attention::Backward {
                dqkv: dqkv.slice_mut(qkv.clone()),
                dout,
                qkv: block.qkv.slice(qkv.clone()),
                out,
                lse,
                rotation: Some(attention::Rotation { cos, sin }),
                shape: s.attention,
            },
        )?;
        return context.check_block(layer, DQKV, dqkv.slice(qkv));
    }
    attention::backward_in_place(
        dev,
        attention::BackwardInPlace {
            qkv: block.qkv.slice_mut(qkv.clone()),
            dout,
            out,
            lse,
            shape: s.attention,
        },
    )?;
    context.check_block(layer, DQKV, block.qkv.slice(qkv.clone()))?;
    rope::backward(
        dev,
        rope::Backward { dx: block.qkv.slice_mut(qkv.clone()), cos, sin, shape: s.rope },
    )?;
    let dx = block.qkv.slice(qkv);
    context.check_block(layer, "Multihead_Attn rope gradient of its input", dx)
}
