//! SGD. p <- p - rate (g + `weight_decay` p), with rate = lr / sqrt(t + 1) for t = 0, 1, ..., or
//! rate = lr if it is constant.
//!
//! p, g: the same length, any run of the flat parameters.

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
    /// Multiplied by the rate.
    pub weight_decay: f64,
    /// Number of this update, from 0.
    pub step: u64,
    /// Keeps the rate at lr.
    pub constant: bool,
    /// Factor applied to the gradient first (clipping).
    pub grad_scale: f32,
}

impl Hyper {
    /// Returns the learning rate of this step.
    pub fn rate(&self) -> f64 {
        if self.constant { self.lr } else { self.lr / (self.step as f64 + 1.0).sqrt() }
    }
}

/// Buffers of `step`: parameters and gradients.
#[derive(Debug)]
pub struct Step<'a> {
    pub p: Out<'a>,
    pub g: In<'a>,
    pub hyper: Hyper,
}

/// Updates p.
///
/// # Errors
/// Returns `ERR_SHAPE_MISMATCH` if the lengths differ.
pub fn step(dev: &Device, args: Step) -> Result<()> {
    const OP: &str = "sgd::step";
    let n = args.p.len();
    check(OP, "g", n, args.g.len())?;
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
                n,
                settings,
                clip,
                clear_gradients: false,
            })])?;
        }
    }
    Ok(())
}
