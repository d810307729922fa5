//! The backward pass, last block first. Gradients of activations are overwritten, those of parameters added to.

use super::activations::{BlockActivations, GradientActivations};
use super::forward::Shapes;
use super::params::BlockRanges;
use super::transformer::{Pass, Transformer, no_pass};
use crate::Result;
use crate::buffer::{Buffer, In, Out};
use crate::device::Device;
use crate::ops::cross_entropy::LossSum;
use crate::ops::{attention, embedding, linear, output_loss, rms_norm, rope, swiglu};

/// What the blocks' backward passes share.
struct Context<'a> {
    device: &'a Device,
    weights: &'a Buffer,
    cos: &'a Buffer,
    sin: &'a Buffer,
    shapes: Shapes,
}

impl Transformer {
    /// From the norm of the last stream back to the embedding; gives the losses.
    pub(super) fn backward(&mut self, x: &[u32], targets: &[i32], pass: Pass, scale: f32) -> Result<LossSum> {
        let Self { config, device, layout, weights, gradients, cos, sin, activations, scratch } = self;
        let activations = activations.as_mut().ok_or_else(no_pass)?;
        activations.reserve_gradients(device, config)?;
        let context = Context { device, weights, cos, sin, shapes: Shapes::new(config, pass) };
        let (n, c) = (pass.rows(), context.shapes.stream);
        let grads = activations.gradients.as_mut().ok_or_else(no_pass)?;

        let s = output_loss::Shape { rows: n, d_model: config.d_model, vocab_size: config.vocab_size };
        let losses = output_loss::forward_backward(
            device,
            grads.normed.slice_mut(0..c),
            gradients.slice_mut(layout.output.clone()),
            activations.normed_last.slice(0..c),
            weights.slice(layout.output.clone()),
            targets,
            s,
            scale,
            scratch,
        )?;
        rms_norm::backward(
            device,
            grads.stream.slice_mut(0..c),
            gradients.slice_mut(layout.final_norm.clone()),
            grads.normed.slice(0..c),
            activations.last.slice(0..c),
            weights.slice(layout.final_norm.clone()),
            activations.rstd_last.slice(0..n),
            context.shapes.norm,
        )?;
        for (block, ranges) in activations.blocks.iter().zip(&layout.blocks).rev() {
            context.feed_forward(block, ranges, grads, gradients)?;
            context.attention(block, ranges, grads, gradients)?;
        }
        let s = embedding::Shape { rows: n, d_model: config.d_model, vocab_size: config.vocab_size };
        let table = gradients.slice_mut(layout.embedding.clone());
        embedding::backward(device, table, grads.stream.slice(0..c), x, s)?;
        Ok(losses)
    }
}

impl Context<'_> {
    fn weight(&self, range: &std::ops::Range<usize>) -> In<'_> {
        self.weights.slice(range.clone())
    }

    /// grads.stream, at the block's output -> grads.middle, at the stream between attention and feed-forward.
    fn feed_forward(
        &self,
        block: &BlockActivations,
        ranges: &BlockRanges,
        grads: &mut GradientActivations,
        gradients: &mut Buffer,
    ) -> Result<()> {
        let (dev, s, c) = (self.device, &self.shapes, self.shapes.stream);
        let (hidden, gate_up) = (0..s.hidden_len(), 0..2 * s.hidden_len());
        let dstream = grads.stream.slice(0..c);
        let dhidden = grads.hidden.slice_mut(hidden.clone());
        linear::backward_input(dev, dhidden, dstream, self.weight(&ranges.w2), s.w2, false)?;
        let dw2 = gradients.slice_mut(ranges.w2.clone());
        linear::backward_weight(dev, dw2, None, dstream, block.hidden.slice(hidden.clone()), s.w2)?;
        swiglu::backward(
            dev,
            grads.gate_up.slice_mut(gate_up.clone()),
            grads.hidden.slice(hidden),
            block.gate_up.slice(gate_up.clone()),
            s.swiglu,
        )?;
        let dgate_up = grads.gate_up.slice(gate_up);
        let dnormed = grads.normed.slice_mut(0..c);
        linear::backward_input(dev, dnormed, dgate_up, self.weight(&ranges.w13), s.w13, false)?;
        let dw13 = gradients.slice_mut(ranges.w13.clone());
        linear::backward_weight(dev, dw13, None, dgate_up, block.normed_ff.slice(0..c), s.w13)?;
        rms_norm::backward_residual(
            dev,
            grads.middle.slice_mut(0..c),
            gradients.slice_mut(ranges.norm_ff.clone()),
            grads.normed.slice(0..c),
            dstream,
            block.middle.slice(0..c),
            self.weight(&ranges.norm_ff),
            block.rstd_ff.slice(0..s.norm.rows),
            s.norm,
        )
    }

    /// grads.middle -> grads.stream, at the block's input.
    fn attention(
        &self,
        block: &BlockActivations,
        ranges: &BlockRanges,
        grads: &mut GradientActivations,
        gradients: &mut Buffer,
    ) -> Result<()> {
        let (dev, s, c) = (self.device, &self.shapes, self.shapes.stream);
        let qkv = 0..s.qkv_len();
        let dmiddle = grads.middle.slice(0..c);
        let dattention = grads.attention.slice_mut(0..c);
        linear::backward_input(dev, dattention, dmiddle, self.weight(&ranges.o), s.o, false)?;
        let dweight = gradients.slice_mut(ranges.o.clone());
        linear::backward_weight(dev, dweight, None, dmiddle, block.attention.slice(0..c), s.o)?;
        attention::backward(
            dev,
            grads.qkv.slice_mut(qkv.clone()),
            grads.attention.slice(0..c),
            block.qkv.slice(qkv.clone()),
            block.attention.slice(0..c),
            block.lse.slice(0..s.lse_len()),
            s.attention,
        )?;
        rope::backward(dev, grads.qkv.slice_mut(qkv.clone()), self.cos.view(), self.sin.view(), s.rope)?;
        let dqkv = grads.qkv.slice(qkv);
        let dnormed = grads.normed.slice_mut(0..c);
        linear::backward_input(dev, dnormed, dqkv, self.weight(&ranges.qkv), s.qkv, false)?;
        let (dweight, dbias) = match &ranges.qkv_bias {
            // The biases follow the matrices in memory.
            Some(bias) => {
                let both = gradients.host_mut()[ranges.qkv.start..bias.end].split_at_mut(ranges.qkv.len());
                (Out::from(both.0), Some(Out::from(both.1)))
            }
            None => (gradients.slice_mut(ranges.qkv.clone()), None),
        };
        linear::backward_weight(dev, dweight, dbias, dqkv, block.normed_attn.slice(0..c), s.qkv)?;
        rms_norm::backward_residual(
            dev,
            grads.stream.slice_mut(0..c),
            gradients.slice_mut(ranges.norm_attn.clone()),
            grads.normed.slice(0..c),
            dmiddle,
            block.input.slice(0..c),
            self.weight(&ranges.norm_attn),
            block.rstd_attn.slice(0..s.norm.rows),
            s.norm,
        )
    }
}
