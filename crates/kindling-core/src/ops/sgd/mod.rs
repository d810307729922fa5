//! SGD. p <- p - rate (g + `weight_decay` p), rate = lr / sqrt(t + 1) with t from 0, or lr where it is constant.
//!
//! p, g: a flat run of any length, both the same.

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
    /// Weight decay, coupled to the rate.
    pub weight_decay: f64,
    /// Number of updates made before, from 0.
    pub step: u64,
    /// No decay of the rate with the steps.
    pub constant: bool,
    /// The gradient is multiplied with this first (clipping).
    pub grad_scale: f32,
}

impl Hyper {
    /// lr / sqrt(t + 1), or lr.
    pub fn rate(&self) -> f64 {
        if self.constant { self.lr } else { self.lr / (self.step as f64 + 1.0).sqrt() }
    }
}

/// One update of p.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when the lengths differ.
pub fn step(dev: &Device, p: Out, g: In, hyper: Hyper) -> Result<()> {
    check("sgd::step", "g", p.len(), g.len())?;
    let _span = dev.span("sgd::step");
    match dev {
        Device::Cpu(cpu) => cpu::step(cpu, p.cpu(), g.cpu(), hyper),
        Device::Cuda(gpu) => {
            let [settings, clip] = gpu.scratch([4 * cuda::SETTINGS, 8 * grad_norm::cuda::STATE])?;
            gpu.upload(settings, &cuda::settings(hyper))?;
            gpu.upload(clip, &[0.0, 0.0, f64::from(hyper.grad_scale)])?;
            gpu.run(&[cuda::step(p.pointer(), 0, g.pointer(), p.len(), settings, clip, false)])?;
        }
    }
    Ok(())
}
