//! Parameter groups: settings for the parameters whose names match a pattern.
//!
//! The first matching group applies, and inherits what it leaves out from the optimizer's own
//! settings. Adjacent parameters with equal settings form one run of the flat buffers, and an
//! update makes one pass per run.

use std::ops::Range;

use crate::cuda::Launch;
use crate::model::{CudaUpdate, Frozen, Parameter, matching};
use crate::{Error, Result};

/// Settings of one parameter group; `None` inherits the optimizer's.
#[derive(Debug, Clone, Default)]
pub struct GroupOptions {
    /// Pattern of parameter names, in which `*` matches any characters. `matrices` matches every
    /// matrix.
    pub pattern: String,
    /// Learning rate, in place of the one passed to `step`.
    pub lr: Option<f64>,
    /// Decay rates of the moments.
    pub betas: Option<(f64, f64)>,
    /// Added to the square root of the second moment.
    pub eps: Option<f64>,
    pub weight_decay: Option<f64>,
}

/// Settings of a parameter. SGD ignores `betas` and `eps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    /// Learning rate, in place of the one passed to `step`.
    pub lr: Option<f64>,
    pub betas: (f64, f64),
    pub eps: f64,
    pub weight_decay: f64,
}

impl Settings {
    /// Replaces the settings that `group` has.
    fn with(self, group: &GroupOptions) -> Self {
        Self {
            lr: group.lr.or(self.lr),
            betas: group.betas.unwrap_or(self.betas),
            eps: group.eps.unwrap_or(self.eps),
            weight_decay: group.weight_decay.unwrap_or(self.weight_decay),
        }
    }

    fn check(&self) -> Result<()> {
        check_setting("beta1", self.betas.0, 0.0..1.0)?;
        check_setting("beta2", self.betas.1, 0.0..1.0)?;
        check_setting("eps", self.eps, 0.0..f64::INFINITY)?;
        check_setting("weight_decay", self.weight_decay, 0.0..f64::INFINITY)?;
        check_setting("lr", self.lr.unwrap_or(0.0), 0.0..f64::INFINITY)
    }
}

/// A range of the flat buffers whose parameters have the same settings.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub range: Range<usize>,
    pub settings: Settings,
}

/// Splits the flat buffers into runs of equal settings. A parameter's settings are those of the
/// first matching group, and `defaults` where the group has none.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` for a setting out of range, or a pattern that matches no
/// parameter.
pub(super) fn runs(
    parameters: &[Parameter],
    groups: &[GroupOptions],
    defaults: Settings,
) -> Result<Vec<Run>> {
    for group in groups {
        matching(parameters, &group.pattern)?;
    }
    let mut runs: Vec<Run> = Vec::new();
    for parameter in parameters {
        let group = groups.iter().find(|group| parameter.matches(&group.pattern));
        let settings = group.map_or(defaults, |group| defaults.with(group));
        settings.check()?;
        match runs.last_mut() {
            Some(run) if run.settings == settings && run.range.end == parameter.range.start => {
                run.range.end = parameter.range.end;
            }
            _ => runs.push(Run { range: parameter.range.clone(), settings }),
        }
    }
    Ok(runs)
}

/// Returns the runs with the frozen parameters cut out.
pub(super) fn trained(runs: &[Run], frozen: &Frozen) -> Vec<Run> {
    let parts = runs.iter().flat_map(|run| {
        let parts = frozen.trained_parts(&run.range).into_iter();
        parts.map(|range| Run { range, settings: run.settings })
    });
    parts.collect()
}

/// Device addresses of one run, for an update on a CUDA device.
pub(super) struct CudaRun {
    pub weights: u64,
    /// The bf16 copy of the weights; 0 if there is none.
    pub weights_bf16: u64,
    pub gradients: u64,
    /// Bytes from the start of an f32 buffer of the model's length, such as a moment, to the run.
    pub offset: u64,
    pub len: usize,
    /// The run's settings, as the kernel reads them.
    pub settings: u64,
    /// Norm and clip factor of the gradients.
    pub clip: u64,
}

/// Queues one launch per run. `settings` returns the numbers that the kernel reads for a run; those
/// of all runs are uploaded in one copy.
///
/// # Errors
/// Returns `ERR_DEVICE` or `ERR_OUT_OF_MEMORY` if the device fails.
pub(super) fn queue_runs<const N: usize>(
    update: &CudaUpdate,
    runs: &[Run],
    settings: impl Fn(&Settings) -> [f32; N],
    launch: impl Fn(CudaRun) -> Launch,
) -> Result<()> {
    let all: Vec<f32> = runs.iter().flat_map(|run| settings(&run.settings)).collect();
    let staged = update.gpu.staged(&all)?;
    runs.iter().zip(0u64..).try_for_each(|(Run { range, .. }, index)| {
        let offset = (range.start * size_of::<f32>()) as u64;
        // bf16 elements have half the size; without a bf16 copy the address stays 0.
        let bf16_offset = if update.weights_bf16 == 0 { 0 } else { offset / 2 };
        update.gpu.run(&[launch(CudaRun {
            weights: update.weights + offset,
            weights_bf16: update.weights_bf16 + bf16_offset,
            gradients: update.gradients + offset,
            offset,
            len: range.len(),
            settings: staged + index * (N * size_of::<f32>()) as u64,
            clip: update.clip,
        })])
    })
}

/// Checks that a setting is a number in `range`.
pub(super) fn check_setting(name: &str, value: f64, range: Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let bound =
        if range.end.is_finite() { format!(" and below {}", range.end) } else { String::new() };
    Err(Error::argument(format!("{name} is {value}; it must be at least {}{bound}", range.start)))
}
