//! `AdamW` with its moments in flat buffers beside the weights.

use std::ops::Range;

use super::Optimizer;
use super::clip::check_finite;
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
        check_finite(model, self.steps + 1)?;
        self.steps += 1;
        let (device, weights, gradients) = model.weights_and_gradients();
        for (range, s) in &self.runs {
            let hyper = adamw::Hyper {
                lr: s.lr.unwrap_or(lr),
                beta1: s.betas.0,
                beta2: s.betas.1,
                eps: s.eps,
                weight_decay: s.weight_decay,
                step: self.steps,
                grad_scale: 1.0,
            };
            let range = || range.clone();
            adamw::step(
                device,
                weights.slice_mut(range()),
                gradients.slice(range()),
                self.m.slice_mut(range()),
                self.v.slice_mut(range()),
                hyper,
            )?;
        }
        model.zero_gradients();
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn kind(&self) -> &'static str {
        "adamw"
    }

    fn state(&self, model: &Transformer) -> Vec<NamedTensor> {
        [("m.", &self.m), ("v.", &self.v)]
            .into_iter()
            .flat_map(|(prefix, flat)| {
                model.parameters().iter().map(move |p| {
                    let tensor = p.to_file(flat.host());
                    NamedTensor { name: format!("{prefix}{}", tensor.name), ..tensor }
                })
            })
            .collect()
    }

    fn load_state(&mut self, model: &Transformer, tensors: &[NamedTensor], steps: u64) -> Result<()> {
        use crate::model::match_tensors;
        let first = match_tensors(model.parameters(), tensors, "m.")?;
        let second = match_tensors(model.parameters(), tensors, "v.")?;
        for parameter in model.parameters() {
            parameter.copy_from_file(self.m.host_mut(), &first[&parameter.name].data);
            parameter.copy_from_file(self.v.host_mut(), &second[&parameter.name].data);
        }
        self.steps = steps;
        Ok(())
    }
}
