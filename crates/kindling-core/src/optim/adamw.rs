//! `AdamW` with its moments in flat buffers beside the weights.

use std::ops::Range;

use super::Optimizer;
use super::groups::{GroupOptions, check_setting, runs};
use crate::Result;
use crate::buffer::Buffer;
use crate::model::{NamedTensor, Transformer};
use crate::ops::adamw;

/// Settings of `AdamW`.
#[derive(Debug, Clone)]
pub struct AdamWOptions {
    /// Decays of the moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Parameters with settings of their own.
    pub groups: Vec<GroupOptions>,
}

/// Settings of one run of parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Settings {
    lr: Option<f64>,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
}

/// The optimizer; see `ops::adamw` for the formula.
#[derive(Debug)]
pub struct AdamW {
    runs: Vec<(Range<usize>, Settings)>,
    m: Buffer,
    v: Buffer,
    steps: u64,
}

impl AdamW {
    /// An optimizer for this model, its moments zero.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a setting out of its range or a pattern that matches nothing.
    pub fn new(model: &Transformer, options: &AdamWOptions) -> Result<Self> {
        let runs = runs(model.parameters(), &options.groups, |group| Settings {
            lr: group.and_then(|g| g.lr),
            betas: group.and_then(|g| g.betas).unwrap_or(options.betas),
            eps: group.and_then(|g| g.eps).unwrap_or(options.eps),
            weight_decay: group.and_then(|g| g.weight_decay).unwrap_or(options.weight_decay),
        })?;
        for (_, s) in &runs {
            check_setting("beta1", s.betas.0, 0.0..1.0)?;
            check_setting("beta2", s.betas.1, 0.0..1.0)?;
            check_setting("eps", s.eps, 0.0..f64::INFINITY)?;
            check_setting("weight_decay", s.weight_decay, 0.0..f64::INFINITY)?;
            check_setting("lr", s.lr.unwrap_or(0.0), 0.0..f64::INFINITY)?;
        }
        let zeros = || Buffer::zeros(model.device(), model.num_parameters());
        Ok(Self { runs, m: zeros()?, v: zeros()?, steps: 0 })
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, model: &mut Transformer, lr: f64) -> Result<()> {
        check_setting("lr", lr, 0.0..f64::INFINITY)?;
        crate::ops::check("AdamW::step", "model", self.m.len(), model.num_parameters())?;
        let update = model.begin_update(self.steps + 1)?;
        self.steps += 1;
        let step = self.steps;
        let hyper = |s: &Settings| adamw::Hyper {
            lr: s.lr.unwrap_or(lr),
            beta1: s.betas.0,
            beta2: s.betas.1,
            eps: s.eps,
            weight_decay: s.weight_decay,
            step,
            grad_scale: 1.0,
        };
        if let Some(update) = update {
            let _span = update.gpu.profile.span("adamw::step");
            let settings: Vec<f32> =
                self.runs.iter().flat_map(|(_, s)| adamw::cuda::settings(hyper(s))).collect();
            let settings = update.gpu.staged(&settings)?;
            let (m, v) = (self.m.view_mut().pointer(), self.v.view_mut().pointer());
            return self.runs.iter().zip(0u64..).try_for_each(|((range, _), run)| {
                let at = |pointer: u64| pointer + (range.start * size_of::<f32>()) as u64;
                let copy = if update.weights_bf16 == 0 {
                    0
                } else {
                    update.weights_bf16 + 2 * range.start as u64
                };
                let settings = settings + run * (adamw::cuda::SETTINGS * size_of::<f32>()) as u64;
                update.gpu.run(&[adamw::cuda::step(adamw::cuda::Step {
                    p: at(update.weights),
                    p_bf16: copy,
                    g: at(update.gradients),
                    m: at(m),
                    v: at(v),
                    n: range.len(),
                    settings,
                    clip: update.clip,
                    clear_gradients: true,
                })])
            });
        }
        let (device, weights, gradients) = model.weights_and_gradients();
        for (range, s) in &self.runs {
            let range = || range.clone();
            adamw::step(
                device,
                adamw::Step {
                    p: weights.slice_mut(range()),
                    g: gradients.slice(range()),
                    m: self.m.slice_mut(range()),
                    v: self.v.slice_mut(range()),
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
        "adamw"
    }

    fn state(&self, model: &Transformer) -> Result<Vec<NamedTensor>> {
        let (m, v) = (self.m.read()?, self.v.read()?);
        let tensors = [("m.", &m), ("v.", &v)].into_iter().flat_map(|(prefix, flat)| {
            model.parameters().iter().map(move |p| {
                let tensor = p.to_file(flat);
                NamedTensor { name: format!("{prefix}{}", tensor.name), ..tensor }
            })
        });
        Ok(tensors.collect())
    }

    fn load_state(
        &mut self,
        model: &Transformer,
        tensors: &[NamedTensor],
        steps: u64,
    ) -> Result<()> {
        use crate::model::match_tensors;
        let first = match_tensors(model.parameters(), tensors, "m.")?;
        let second = match_tensors(model.parameters(), tensors, "v.")?;
        for (moments, tensors) in [(&mut self.m, first), (&mut self.v, second)] {
            moments.write(|flat| {
                for parameter in model.parameters() {
                    parameter.copy_from_file(flat, &tensors[&parameter.name].data);
                }
            })?;
        }
        self.steps = steps;
        Ok(())
    }
}
