//! `AdamW`, one fused pass. m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2;
//! p <- p - alpha m / (sqrt v + eps) - lr `weight_decay` p, alpha = lr sqrt(1 - b2^t) / (1 - b1^t). Source: arXiv 1711.05101.
//!
//! p, g, m, v: a flat run of any length, all the same.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::{check, grad_norm};

/// Settings of one update.
#[derive(Debug, Clone, Copy)]
pub struct Hyper {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to sqrt v.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: u64,
    /// The gradient is multiplied with this first (clipping).
    pub grad_scale: f32,
}

impl Hyper {
    /// lr sqrt(1 - b2^t) / (1 - b1^t).
    pub fn alpha(&self) -> f64 {
        let t = self.step as f64;
        self.lr * (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
    }
}

/// One update of p, m and v.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when the lengths differ.
pub fn step(dev: &Device, p: Out, g: In, m: Out, v: Out, hyper: Hyper) -> Result<()> {
    const OP: &str = "adamw::step";
    check(OP, "g", p.len(), g.len())?;
    check(OP, "m", p.len(), m.len())?;
    check(OP, "v", p.len(), v.len())?;
    let _span = dev.span(OP);
    match dev {
        Device::Cpu(cpu) => cpu::step(cpu, p.cpu(), g.cpu(), m.cpu(), v.cpu(), hyper),
        Device::Cuda(gpu) => {
            let [settings, clip] = gpu.scratch([4 * cuda::SETTINGS, 8 * grad_norm::cuda::STATE])?;
            gpu.upload(settings, &cuda::settings(hyper))?;
            gpu.upload(clip, &[0.0, 0.0, f64::from(hyper.grad_scale)])?;
            let (n, p, g) = (p.len(), p.pointer(), g.pointer());
            gpu.run(&[cuda::step(p, 0, g, m.pointer(), v.pointer(), n, settings, clip, false)])?;
        }
    }
    Ok(())
}
