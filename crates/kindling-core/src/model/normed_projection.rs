//! The backward pass of a norm and the projection after it, with which attention and feed-forward
//! begin.

use std::ops::Range;

use super::activations::StreamGradient;
use super::pass::PassContext;
use crate::Result;
use crate::buffer::{Buffer, In};
use crate::ops::{linear, rms_norm};

/// A norm and the projection after it, with which attention or feed-forward begins.
#[derive(Clone, Copy)]
pub(super) struct NormedProjection<'a> {
    pub layer: usize,
    /// Names of the gradients of the projection's input and of the norm's, for
    /// `PassContext::check_block`.
    pub outputs: [&'static str; 2],
    /// Gradient of the projection's output.
    pub dout: In<'a>,
    /// Input of the norm.
    pub x: In<'a>,
    pub rstd: In<'a>,
    pub gain: &'a Range<usize>,
    pub weight: &'a Range<usize>,
    /// Bias of the projection, which follows `weight` in memory.
    pub bias: Option<&'a Range<usize>>,
    pub shape: linear::Shape,
}

/// Computes dW += dout^T norm(x), and dresidual += `rms_norm`'(dout W).
///
/// The scratch buffers hold the norm's output and its gradient. The norm's backward pass recomputes
/// the output, since it reads x anyway.
pub(super) fn normed_projection(
    context: &PassContext,
    projection: NormedProjection,
    [normed, dnormed]: [&mut Buffer; 2],
    mut dresidual: StreamGradient,
    gradients: &mut Buffer,
    norm: rms_norm::Shape,
) -> Result<()> {
    let NormedProjection { layer, outputs, dout, x, rstd, gain, weight, bias, shape } = projection;
    let (dev, c) = (context.device, norm.rows * norm.width);
    linear::backward_input(
        dev,
        linear::BackwardInput {
            dx: dnormed.slice_mut(0..c),
            dout,
            weight: context.matmul_weight(weight),
            shape,
            accumulate: false,
        },
    )?;
    context.check_block(layer, outputs[0], dnormed.slice(0..c))?;
    rms_norm::backward_residual(
        dev,
        rms_norm::BackwardResidual {
            dx: dresidual.values.reborrow(),
            rounded: dresidual.rounded,
            normed: Some(normed.slice_mut(0..c)),
            dweight: gradients.slice_mut(gain.clone()),
            dout: dnormed.slice(0..c),
            x,
            weight: context.weight(gain),
            rstd,
            shape: norm,
        },
    )?;
    context.check_block(layer, outputs[1], dresidual.values.read())?;
    context.check_gradient(gain, gradients)?;
    let (dweight, dbias) = match bias {
        Some(bias) => {
            let both = gradients.slice_mut(weight.start..bias.end).split_at(weight.len());
            (both.0, Some(both.1))
        }
        None => (gradients.slice_mut(weight.clone()), None),
    };
    let whole = weight.start..bias.map_or(weight.end, |bias| bias.end);
    context.backward_weight(
        &whole,
        linear::BackwardWeight { dweight, dbias, dout, x: normed.slice(0..c), shape },
    )?;
    context.check_gradient(&whole, gradients)
}
