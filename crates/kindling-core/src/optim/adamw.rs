//! AdamW. The moments are flat buffers laid out like the weights; `ops::adamw` has the formula and
//! its source.

use super::Optimizer;
use super::groups::{GroupOptions, Run, Settings, check_setting, queue_runs, runs, trained};
use crate::Result;
use crate::buffer::Buffer;
use crate::model::{Transformer, Update};
use crate::ops::adamw;

#[derive(Debug, Clone)]
pub struct AdamWOptions {
    /// Decay rates of the moments, each at least 0 and below 1.
    pub betas: (f64, f64),
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Parameter groups; the first match applies.
    pub groups: Vec<GroupOptions>,
}

/// AdamW over one model.
#[derive(Debug)]
pub struct AdamW {
    runs: Vec<Run>,
    m: Buffer,
    v: Buffer,
    steps: u64,
}

impl AdamW {
    /// Creates an optimizer for `model` with zero moments.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for a setting out of range or a pattern that matches no
    /// parameter, and `ERR_OUT_OF_MEMORY` if the moments do not fit.
    pub fn new(model: &Transformer, options: &AdamWOptions) -> Result<Self> {
        let defaults = Settings {
            lr: None,
            betas: options.betas,
            eps: options.eps,
            weight_decay: options.weight_decay,
        };
        let runs = runs(model.parameters(), &options.groups, defaults)?;
        let zeros = || Buffer::zeros(model.device(), model.num_parameters());
        Ok(Self { runs, m: zeros()?, v: zeros()?, steps: 0 })
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, model: &mut Transformer, lr: f64) -> Result<()> {
        check_setting("lr", lr, 0.0..f64::INFINITY)?;
        crate::ops::check("AdamW::step", "model", self.m.len(), model.num_parameters())?;
        let runs = trained(&self.runs, model.frozen());
        let update = model.begin_update(self.steps + 1)?;
        self.steps += 1;
        let step = self.steps;
        let hyper = |s: &Settings, grad_scale: f32| adamw::Hyper {
            lr: s.lr.unwrap_or(lr),
            beta1: s.betas.0,
            beta2: s.betas.1,
            eps: s.eps,
            weight_decay: s.weight_decay,
            step,
            grad_scale,
        };
        let grad_scale = match update {
            Update::Cpu { grad_scale } => grad_scale,
            Update::Cuda(update) => {
                let _span = update.gpu.profile.span("adamw::step");
                let (m, v) = (self.m.view_mut().pointer(), self.v.view_mut().pointer());
                let settings = |s: &Settings| adamw::cuda::settings(hyper(s, 1.0));
                return queue_runs(&update, &runs, settings, |run| {
                    adamw::cuda::step(adamw::cuda::Step {
                        p: run.weights,
                        p_bf16: run.weights_bf16,
                        g: run.gradients,
                        m: m + run.offset,
                        v: v + run.offset,
                        n: run.len,
                        settings: run.settings,
                        clip: run.clip,
                        clear_gradients: true,
                    })
                });
            }
        };
        let (device, weights, gradients) = model.weights_and_gradients()?;
        for Run { range, settings } in &runs {
            let range = || range.clone();
            adamw::step(
                device,
                adamw::Step {
                    p: weights.slice_mut(range()),
                    m: self.m.slice_mut(range()),
                    v: self.v.slice_mut(range()),
                    g: gradients.slice(range()),
                    hyper: hyper(settings, grad_scale),
                },
            )?;
        }
        model.zero_gradients()
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn kind(&self) -> &'static str {
        "adamw"
    }

    fn buffers(&self) -> Vec<(&'static str, &Buffer)> {
        vec![("m.", &self.m), ("v.", &self.v)]
    }

    fn buffers_mut(&mut self) -> Vec<(&'static str, &mut Buffer)> {
        vec![("m.", &mut self.m), ("v.", &mut self.v)]
    }

    fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}
