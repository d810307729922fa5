//! Optimizers over the flat weights and gradients of a model, with per-group settings.

mod adamw;
mod groups;
mod sgd;

pub use adamw::{AdamW, AdamWOptions};
pub use groups::GroupOptions;
pub use sgd::{Sgd, SgdOptions};

use crate::buffer::Buffer;
use crate::model::{NamedTensor, Transformer, match_tensors};
use crate::{Error, Result};

/// An optimizer of one model.
pub trait Optimizer {
    /// Updates the weights at learning rate `lr`, and sets the gradients to zero.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if a gradient is NaN or infinite, before any weight changes, and
    /// `ERR_SHAPE_MISMATCH` if the model has another shape. On a CUDA device the update does not
    /// wait for the norm: if it is not finite, the update changes nothing, and the next call that
    /// reads from the device returns the error.
    fn step(&mut self, model: &mut Transformer, lr: f64) -> Result<()>;

    /// Scales the gradients so that their global L2 norm is at most `max_norm`. With `max_norm` 0
    /// they are not scaled. Returns the norm before scaling.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if the norm is NaN or infinite, with the gradients unchanged, and
    /// `ERR_INVALID_ARGUMENT` if `max_norm` is negative or NaN.
    fn clip_grad_norm(&mut self, model: &mut Transformer, max_norm: f64) -> Result<f64> {
        check_max_norm(max_norm)?;
        model.clip_gradients(max_norm, self.steps() + 1)
    }

    /// Like `clip_grad_norm`, but never waits for a device: the next call that reads from it
    /// reports a non-finite norm.
    ///
    /// # Errors
    /// As `clip_grad_norm` on the CPU.
    fn queue_clip(&mut self, model: &mut Transformer, max_norm: f64) -> Result<()> {
        check_max_norm(max_norm)?;
        model.queue_clip(max_norm, self.steps() + 1)
    }

    /// Returns the number of updates made.
    fn steps(&self) -> u64;

    /// Returns the optimizer's name in checkpoint files.
    fn kind(&self) -> &'static str;

    /// Returns the flat buffers of the state, laid out like the weights, each with the prefix that
    /// the names of its tensors have in files. Empty if there is no state.
    fn buffers(&self) -> Vec<(&'static str, &Buffer)>;

    /// Like `buffers`, but mutable.
    fn buffers_mut(&mut self) -> Vec<(&'static str, &mut Buffer)>;

    /// Sets the number of updates made.
    fn set_steps(&mut self, steps: u64);

    /// Returns the optimizer's tensors in the layout of checkpoint files. Empty if it has no state.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if they cannot be read from the device.
    fn state(&self, model: &Transformer) -> Result<Vec<NamedTensor>> {
        let mut tensors = Vec::new();
        for (prefix, buffer) in self.buffers() {
            let flat = buffer.read()?;
            tensors.extend(model.parameters().iter().map(|parameter| {
                let tensor = parameter.to_file(&flat);
                NamedTensor { name: format!("{prefix}{}", tensor.name), ..tensor }
            }));
        }
        Ok(tensors)
    }

    /// Restores the tensors of a checkpoint and the number of updates made.
    ///
    /// # Errors
    /// Returns `ERR_CHECKPOINT_MISMATCH` naming every difference; the optimizer is unchanged then.
    fn load_state(
        &mut self,
        model: &Transformer,
        tensors: &[NamedTensor],
        steps: u64,
    ) -> Result<()> {
        let prefixes: Vec<_> = self.buffers().iter().map(|(prefix, _)| *prefix).collect();
        let found = match_tensors(model.parameters(), &prefixes, tensors)
            .map_err(Error::CheckpointMismatch)?;
        for (prefix, buffer) in self.buffers_mut() {
            buffer.write(|flat| {
                for parameter in model.parameters() {
                    let data = &found[&format!("{prefix}{}", parameter.name)].data;
                    flat[parameter.range.clone()].copy_from_slice(&parameter.in_memory(data));
                }
            })?;
        }
        self.set_steps(steps);
        Ok(())
    }
}

fn check_max_norm(max_norm: f64) -> Result<()> {
    if max_norm >= 0.0 {
        return Ok(());
    }
    Err(Error::argument(format!("max_norm is {max_norm}; it must be at least 0 (0: no clipping)")))
}
