//! SGD. Its only state is the number of updates made; `ops::sgd` has the formula.

use super::Optimizer;
use super::groups::{GroupOptions, Run, Settings, check_setting, queue_runs, runs, trained};
use crate::Result;
use crate::buffer::Buffer;
use crate::model::{Transformer, Update};
use crate::ops::sgd;

#[derive(Debug, Clone)]
pub struct SgdOptions {
    /// Weight decay, coupled to the learning rate.
    pub weight_decay: f64,
    /// Keeps the learning rate constant instead of dividing it by the square root of the number of
    /// updates.
    pub constant: bool,
    /// Parameter groups; the first match applies. `betas` and `eps` are ignored.
    pub groups: Vec<GroupOptions>,
}

/// SGD over one model.
#[derive(Debug)]
pub struct Sgd {
    runs: Vec<Run>,
    constant: bool,
    steps: u64,
}

impl Sgd {
    /// Creates an optimizer for `model`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for a setting out of range or a pattern that matches no
    /// parameter.
    pub fn new(model: &Transformer, options: &SgdOptions) -> Result<Self> {
        let defaults =
            Settings { lr: None, betas: (0.0, 0.0), eps: 0.0, weight_decay: options.weight_decay };
        let runs = runs(model.parameters(), &options.groups, defaults)?;
        Ok(Self { runs, constant: options.constant, steps: 0 })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, model: &mut Transformer, lr: f64) -> Result<()> {
        check_setting("lr", lr, 0.0..f64::INFINITY)?;
        let covered = self.runs.last().map_or(0, |run| run.range.end);
        crate::ops::check("Sgd::step", "model", covered, model.num_parameters())?;
        let runs = trained(&self.runs, model.frozen());
        let update = model.begin_update(self.steps + 1)?;
        let (step, constant) = (self.steps, self.constant);
        self.steps += 1;
        let hyper = |s: &Settings, grad_scale: f32| sgd::Hyper {
            lr: s.lr.unwrap_or(lr),
            weight_decay: s.weight_decay,
            step,
            constant,
            grad_scale,
        };
        let grad_scale = match update {
            Update::Cpu { grad_scale } => grad_scale,
            Update::Cuda(update) => {
                let _span = update.gpu.profile.span("sgd::step");
                let settings = |s: &Settings| sgd::cuda::settings(hyper(s, 1.0));
                return queue_runs(&update, &runs, settings, |run| {
                    sgd::cuda::step(sgd::cuda::Step {
                        p: run.weights,
                        p_bf16: run.weights_bf16,
                        g: run.gradients,
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
            let (p, g) = (weights.slice_mut(range.clone()), gradients.slice(range.clone()));
            sgd::step(device, sgd::Step { p, g, hyper: hyper(settings, grad_scale) })?;
        }
        model.zero_gradients()
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn kind(&self) -> &'static str {
        "sgd"
    }

    fn buffers(&self) -> Vec<(&'static str, &Buffer)> {
        Vec::new()
    }

    fn buffers_mut(&mut self) -> Vec<(&'static str, &mut Buffer)> {
        Vec::new()
    }

    fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}
