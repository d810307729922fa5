//! SGD, without state but for its count of updates.

use std::ops::Range;

use super::Optimizer;
use super::groups::{GroupOptions, check_setting, runs};
use crate::model::{NamedTensor, Transformer};
use crate::ops::sgd;
use crate::{Error, Result};

/// Settings of SGD.
#[derive(Debug, Clone)]
pub struct SgdOptions {
    /// Weight decay, coupled to the rate.
    pub weight_decay: f64,
    /// The rate does not fall with the square root of the steps.
    pub constant: bool,
    /// Parameters with settings of their own (`betas` and `eps` are not read).
    pub groups: Vec<GroupOptions>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Settings {
    lr: Option<f64>,
    weight_decay: f64,
}

/// The optimizer; see `ops::sgd` for the formula.
#[derive(Debug)]
pub struct Sgd {
    runs: Vec<(Range<usize>, Settings)>,
    constant: bool,
    steps: u64,
}

impl Sgd {
    /// An optimizer for this model.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a setting out of its range or a pattern that matches nothing.
    pub fn new(model: &Transformer, options: &SgdOptions) -> Result<Self> {
        let runs = runs(model.parameters(), &options.groups, |group| Settings {
            lr: group.and_then(|g| g.lr),
            weight_decay: group.and_then(|g| g.weight_decay).unwrap_or(options.weight_decay),
        })?;
        for (_, s) in &runs {
            check_setting("weight_decay", s.weight_decay, 0.0..f64::INFINITY)?;
            check_setting("lr", s.lr.unwrap_or(0.0), 0.0..f64::INFINITY)?;
        }
        Ok(Self { runs, constant: options.constant, steps: 0 })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, model: &mut Transformer, lr: f64) -> Result<()> {
        check_setting("lr", lr, 0.0..f64::INFINITY)?;
        let covered = self.runs.last().map_or(0, |(range, _)| range.end);
        crate::ops::check("Sgd::step", "model", covered, model.num_parameters())?;
        let update = model.begin_update(self.steps + 1)?;
        let step = self.steps;
        self.steps += 1;
        let constant = self.constant;
        let hyper = |s: &Settings| sgd::Hyper {
            lr: s.lr.unwrap_or(lr),
            weight_decay: s.weight_decay,
            step,
            constant,
            grad_scale: 1.0,
        };
        if let Some(update) = update {
            let _span = update.gpu.profile.span("sgd::step");
            let settings: Vec<f32> =
                self.runs.iter().flat_map(|(_, s)| sgd::cuda::settings(hyper(s))).collect();
            let settings = update.gpu.staged(&settings)?;
            return self.runs.iter().zip(0u64..).try_for_each(|((range, _), run)| {
                let at = |pointer: u64| pointer + (range.start * size_of::<f32>()) as u64;
                let copy = if update.weights_bf16 == 0 {
                    0
                } else {
                    update.weights_bf16 + 2 * range.start as u64
                };
                let settings = settings + run * (sgd::cuda::SETTINGS * size_of::<f32>()) as u64;
                let (weights, gradients) = (at(update.weights), at(update.gradients));
                update.gpu.run(&[sgd::cuda::step(sgd::cuda::Step {
                    p: weights,
                    p_bf16: copy,
                    g: gradients,
                    n: range.len(),
                    settings,
                    clip: update.clip,
                    clear_gradients: true,
                })])
            });
        }
        let (device, weights, gradients) = model.weights_and_gradients();
        for (range, s) in &self.runs {
            sgd::step(
                device,
                sgd::Step {
                    p: weights.slice_mut(range.clone()),
                    g: gradients.slice(range.clone()),
                    hyper: hyper(s),
                },
            )?;
        }
        model.zero_gradients()
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn kind(&self) -> &'static str {
        "sgd"
    }

    fn state(&self, _model: &Transformer) -> Result<Vec<NamedTensor>> {
        Ok(Vec::new())
    }

    fn load_state(
        &mut self,
        _model: &Transformer,
        tensors: &[NamedTensor],
        steps: u64,
    ) -> Result<()> {
        if let Some(tensor) = tensors.first() {
            return Err(Error::CheckpointMismatch(format!(
                "unexpected: {} (SGD keeps no tensors)",
                tensor.name
            )));
        }
        self.steps = steps;
        Ok(())
    }
}
