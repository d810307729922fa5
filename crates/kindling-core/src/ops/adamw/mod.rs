//! AdamW in one fused pass. Source: arXiv 1711.05101.
//!
//! ```text
//! m <- b1 m + (1 - b1) g
//! v <- b2 v + (1 - b2) g^2
//! p <- p - alpha m / (sqrt(v) + eps) - lr weight_decay p
//! alpha = lr sqrt(1 - b2^t) / (1 - b1^t)
//! ```
//!
//! p, g, m, v: the same length, any run of the flat parameters.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, grad_norm};

/// Hyperparameters of one update.
#[derive(Debug, Clone, Copy)]
pub struct Hyper {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// Added to sqrt(v).
    pub eps: f64,
    /// Decoupled from the gradient.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: u64,
    /// Factor applied to the gradient first (clipping).
    pub grad_scale: f32,
}

impl Hyper {
    /// Returns the learning rate with both bias corrections: lr sqrt(1 - b2^t) / (1 - b1^t).
    pub fn alpha(&self) -> f64 {
        let t = self.step as f64;
        self.lr * (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
    }
}

/// Buffers of `step`: parameters, moments and gradients.
#[derive(Debug)]
pub struct Step<'a> {
    pub p: Out<'a>,
    pub m: Out<'a>,
    pub v: Out<'a>,
    pub g: In<'a>,
    pub hyper: Hyper,
}

/// Updates p, m and v.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if the lengths differ.
pub fn step(dev: &Device, args: Step) -> Result<()> {
    const OP: &str = "adamw::step";
    let n = args.p.len();
    check(OP, "g", n, args.g.len())?;
    check(OP, "m", n, args.m.len())?;
    check(OP, "v", n, args.v.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::step(cpu, args),
        Device::Cuda(gpu) => {
            let [settings, clip] = gpu.scratch([4 * cuda::SETTINGS, 8 * grad_norm::cuda::STATE])?;
            gpu.upload(settings, &cuda::settings(args.hyper))?;
            gpu.upload(clip, &[0.0, 0.0, f64::from(args.hyper.grad_scale)])?;
            gpu.run(&[cuda::step(cuda::Step {
                p: args.p.pointer(),
                p_bf16: 0,
                g: args.g.pointer(),
                m: args.m.pointer(),
                v: args.v.pointer(),
                n,
                settings,
                clip,
                clear_gradients: false,
            })])?;
        }
    }
    Ok(())
}
