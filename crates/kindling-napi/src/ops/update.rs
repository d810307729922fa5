//! Gradient clipping, AdamW and SGD. Shapes are those of `src/ops/update.ts`.

use kindling_core::ops::{adamw as adamw_op, grad_norm, sgd as sgd_op};
use napi::bindgen_prelude::Float32Array;

use super::{need, run};

/// The gradients after clipping, and their norm before it.
#[napi(object)]
pub struct ClippedGradients {
    /// Global L2 norm before clipping.
    pub norm: f64,
    pub gradients: Vec<Float32Array>,
}

/// Clips `gradients` by their global L2 norm: if it exceeds `maxNorm`, all are multiplied by
/// `maxNorm` / (norm + 1e-6). A `maxNorm` of 0 disables clipping.
#[napi(catch_unwind, namespace = "ops")]
pub fn clip_grad_norm(
    gradients: Vec<Float32Array>,
    max_norm: f64,
) -> napi::Result<ClippedGradients> {
    run(|dev| {
        let mut sum = 0.0;
        for gradient in &gradients {
            sum += grad_norm::sum_of_squares(dev, gradient[..].into())?;
        }
        let norm = sum.sqrt();
        let factor = grad_norm::clip_factor(norm, max_norm) as f32;
        let mut clipped = Vec::with_capacity(gradients.len());
        for gradient in &gradients {
            let mut own = gradient.to_vec();
            grad_norm::scale(dev, own.as_mut_slice().into(), factor)?;
            clipped.push(own.into());
        }
        Ok(ClippedGradients { norm, gradients: clipped })
    })
}

/// Hyperparameters of one AdamW update.
#[napi(object)]
pub struct AdamwHyper {
    pub lr: f64,
    /// Number of this update, from 1.
    pub step: u32,
    pub beta1: f64,
    pub beta2: f64,
    /// Added to sqrt(v) in the denominator.
    pub eps: f64,
    /// Decoupled weight decay: `lr` times this times the parameter is subtracted.
    pub weight_decay: f64,
}

/// One AdamW update: param, grad, m, v (n) -> the new param, m, v.
#[napi(catch_unwind, namespace = "ops")]
pub fn adamw(
    param: &[f32],
    grad: &[f32],
    m: &[f32],
    v: &[f32],
    hyper: AdamwHyper,
) -> napi::Result<(Float32Array, Float32Array, Float32Array)> {
    run(|dev| {
        need("adamw", "grad", grad.len(), &[param.len()])?;
        need("adamw", "m", m.len(), &[param.len()])?;
        need("adamw", "v", v.len(), &[param.len()])?;
        let (mut param, mut m, mut v) = (param.to_vec(), m.to_vec(), v.to_vec());
        let hyper = adamw_op::Hyper {
            lr: hyper.lr,
            beta1: hyper.beta1,
            beta2: hyper.beta2,
            eps: hyper.eps,
            weight_decay: hyper.weight_decay,
            step: u64::from(hyper.step),
            grad_scale: 1.0,
        };
        adamw_op::step(
            dev,
            adamw_op::Step {
                p: param.as_mut_slice().into(),
                g: grad.into(),
                m: m.as_mut_slice().into(),
                v: v.as_mut_slice().into(),
                hyper,
            },
        )?;
        Ok((param.into(), m.into(), v.into()))
    })
}

/// Hyperparameters of one SGD update.
#[napi(object)]
pub struct SgdHyper {
    pub lr: f64,
    /// Number of this update, from 0.
    pub step: u32,
    /// Coupled weight decay: this times the parameter is added to its gradient.
    pub weight_decay: f64,
    /// Keeps the learning rate at `lr` instead of lr / sqrt(step + 1).
    pub constant: bool,
}

/// One SGD update: param, grad (n) -> the new param.
#[napi(catch_unwind, namespace = "ops")]
pub fn sgd(param: &[f32], grad: &[f32], hyper: SgdHyper) -> napi::Result<Float32Array> {
    run(|dev| {
        need("sgd", "grad", grad.len(), &[param.len()])?;
        let mut param = param.to_vec();
        let hyper = sgd_op::Hyper {
            lr: hyper.lr,
            weight_decay: hyper.weight_decay,
            step: u64::from(hyper.step),
            constant: hyper.constant,
            grad_scale: 1.0,
        };
        sgd_op::step(dev, sgd_op::Step { p: param.as_mut_slice().into(), g: grad.into(), hyper })?;
        Ok(param.into())
    })
}
