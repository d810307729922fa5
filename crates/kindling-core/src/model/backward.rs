//! The backward pass, last block first. Gradients of activations are overwritten, those of parameters added to.

use super::activations::{Activations, GradientActivations, Kept, of_layer};
use super::forward::{CacheUse, Context, Shapes, norm_stream, run_block};
use super::transformer::{Pass, Transformer, no_pass};
use crate::Result;
use crate::buffer::Buffer;
use crate::ops::cross_entropy::LossSum;
use crate::ops::{attention, embedding, linear, output_loss, rms_norm, rope, swiglu};

impl Transformer {
    /// From the norm of the last stream back to the embedding; gives the losses where they are read.
    pub(super) fn backward(
        &mut self,
        x: &[u32],
        targets: &[i32],
        pass: Pass,
        scale: f32,
        read: bool,
    ) -> Result<Option<LossSum>> {
        let Self {
            config,
            device,
            layout,
            weights,
            operands,
            gradients,
            cos,
            sin,
            activations,
            scratch,
            ..
        } = self;
        let activations = activations.as_mut().ok_or_else(no_pass)?;
        activations.reserve_gradients(device, config)?;
        let mut grads = activations.gradients.take().ok_or_else(no_pass)?;
        let operands = operands.as_ref();
        let context = Context { device, config, layout, weights, operands, narrow: None, cos, sin };
        let s = Shapes::new(config, pass);
        let (n, c) = (pass.rows(), s.stream);

        let table =
            output_loss::Shape { rows: n, d_model: config.d_model, vocab_size: config.vocab_size };
        let (dx, dweight) =
            (activations.branch.slice_mut(0..c), gradients.slice_mut(layout.output.clone()));
        let (hidden, weight) = (activations.normed.slice(0..c), context.operand(&layout.output));
        let losses = if read {
            Some(output_loss::forward_backward(
                device, dx, dweight, hidden, weight, targets, table, scale, scratch,
            )?)
        } else {
            output_loss::accumulate(
                device, dx, dweight, hidden, weight, targets, table, scale, scratch,
            )?;
            None
        };
        let last = of_layer(&mut activations.streams, config.num_layers);
        rms_norm::backward(
            device,
            grads.stream.slice_mut(0..c),
            gradients.slice_mut(layout.final_norm.clone()),
            activations.branch.slice(0..c),
            last.values.slice(0..c),
            weights.slice(layout.final_norm.clone()),
            last.rstd.slice(0..n),
            s.norm,
        )?;
        for layer in (0..config.num_layers).rev() {
            // The last block's memory still holds its forward pass.
            if activations.kept == Kept::Streams && layer + 1 < config.num_layers {
                norm_stream(&context, activations, layer, &s)?;
                run_block(&context, layer, activations, &s, &mut CacheUse::None)?;
            }
            feed_forward(&context, layer, activations, &mut grads, gradients, &s)?;
            attention(&context, layer, activations, &mut grads, gradients, &s)?;
        }
        let table =
            embedding::Shape { rows: n, d_model: config.d_model, vocab_size: config.vocab_size };
        let dweight = gradients.slice_mut(layout.embedding.clone());
        embedding::backward(device, dweight, grads.stream.slice(0..c), x, table)?;
        activations.gradients = Some(grads);
        Ok(losses)
    }
}

/// grads.stream, from the block's output to the stream between attention and feed-forward.
fn feed_forward(
    context: &Context,
    layer: usize,
    activations: &mut Activations,
    grads: &mut GradientActivations,
    gradients: &mut Buffer,
    s: &Shapes,
) -> Result<()> {
    let (dev, c, ranges) = (context.device, s.stream, &context.layout.blocks[layer]);
    let Activations { blocks, normed, branch, hidden, .. } = activations;
    let block = of_layer(blocks, layer);
    let (h, gate_up) = (0..s.hidden_len(), 0..2 * s.hidden_len());
    grads.round_stream(dev, c)?;
    let dstream = grads.stream_operand(c);
    let weight = context.operand(&ranges.w2);
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: hidden.slice_mut(h.clone()),
            dout: dstream,
            weight,
            shape: s.w2,
            accumulate: false,
        },
    )?;
    swiglu::backward_in_place(
        dev,
        block.gate_up.slice_mut(gate_up.clone()),
        hidden.slice_mut(h.clone()),
        s.swiglu,
    )?;
    linear::backward_weight(
        dev,
        linear::BackwardWeight {
            dweight: gradients.slice_mut(ranges.w2.clone()),
            dbias: None,
            dout: dstream,
            x: hidden.slice(h),
            shape: s.w2,
        },
    )?;

    let (x, gain, rstd) = (
        block.middle.slice(0..c),
        context.weight(&ranges.norm_ff),
        block.rstd_ff.slice(0..s.norm.rows),
    );
    rms_norm::recompute(dev, normed.slice_mut(0..c), x, gain, rstd, s.norm)?;
    let dgate_up = block.gate_up.slice(gate_up);
    linear::backward_weight(
        dev,
        linear::BackwardWeight {
            dweight: gradients.slice_mut(ranges.w13.clone()),
            dbias: None,
            dout: dgate_up,
            x: normed.slice(0..c),
            shape: s.w13,
        },
    )?;
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: branch.slice_mut(0..c),
            dout: dgate_up,
            weight: context.operand(&ranges.w13),
            shape: s.w13,
            accumulate: false,
        },
    )?;
    let dgain = gradients.slice_mut(ranges.norm_ff.clone());
    let dstream = grads.stream.slice_mut(0..c);
    rms_norm::backward_residual(dev, dstream, dgain, branch.slice(0..c), x, gain, rstd, s.norm)
}

/// grads.stream, from the stream between attention and feed-forward to the block's input.
fn attention(
    context: &Context,
    layer: usize,
    activations: &mut Activations,
    grads: &mut GradientActivations,
    gradients: &mut Buffer,
    s: &Shapes,
) -> Result<()> {
    let (dev, c, ranges) = (context.device, s.stream, &context.layout.blocks[layer]);
    let Activations { streams, blocks, normed, branch, .. } = activations;
    let (stream, block) = (of_layer(streams, layer), of_layer(blocks, layer));
    let qkv = 0..s.qkv_len();
    grads.round_stream(dev, c)?;
    let GradientActivations { stream: dstream, stream_operand, qkv: dqkv } = grads;
    let operand = stream_operand.as_ref().unwrap_or(dstream).slice(0..c);
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: branch.slice_mut(0..c),
            dout: operand,
            weight: context.operand(&ranges.o),
            shape: s.o,
            accumulate: false,
        },
    )?;
    linear::backward_weight(
        dev,
        linear::BackwardWeight {
            dweight: gradients.slice_mut(ranges.o.clone()),
            dbias: None,
            dout: operand,
            x: block.attention.slice(0..c),
            shape: s.o,
        },
    )?;
    let (dout, out) = (branch.slice(0..c), block.attention.slice(0..c));
    let lse = block.lse.slice(0..s.lse_len());
    let dqkv = if let Some(dqkv) = dqkv {
        let (values, qkv) = (block.qkv.slice(qkv.clone()), dqkv.slice_mut(qkv.clone()));
        attention::backward(dev, qkv, dout, values, out, lse, s.attention)?;
        dqkv
    } else {
        attention::backward_in_place(
            dev,
            block.qkv.slice_mut(qkv.clone()),
            dout,
            out,
            lse,
            s.attention,
        )?;
        &mut block.qkv
    };
    let rotated = dqkv.slice_mut(qkv.clone());
    rope::backward(dev, rotated, context.cos.view(), context.sin.view(), s.rope)?;

    let (x, gain, rstd) = (
        stream.values.slice(0..c),
        context.weight(&ranges.norm_attn),
        stream.rstd.slice(0..s.norm.rows),
    );
    rms_norm::recompute(dev, normed.slice_mut(0..c), x, gain, rstd, s.norm)?;
    let dqkv = dqkv.slice(qkv);
    let (dweight, dbias) = match &ranges.qkv_bias {
        // The biases follow the matrices in memory.
        Some(bias) => {
            let both = gradients.slice_mut(ranges.qkv.start..bias.end).split_at(ranges.qkv.len());
            (both.0, Some(both.1))
        }
        None => (gradients.slice_mut(ranges.qkv.clone()), None),
    };
    let x = normed.slice(0..c);
    linear::backward_weight(
        dev,
        linear::BackwardWeight { dweight, dbias, dout: dqkv, x, shape: s.qkv },
    )?;
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: branch.slice_mut(0..c),
            dout: dqkv,
            weight: context.operand(&ranges.qkv),
            shape: s.qkv,
            accumulate: false,
        },
    )?;
    let dgain = gradients.slice_mut(ranges.norm_attn.clone());
    let dstream = dstream.slice_mut(0..c);
    rms_norm::backward_residual(dev, dstream, dgain, branch.slice(0..c), x, gain, rstd, s.norm)
}
