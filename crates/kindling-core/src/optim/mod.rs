//! Optimizers over the flat weights and gradients of a model, with per-group settings.

mod adamw;
mod groups;
mod sgd;

pub use adamw::{AdamW, AdamWOptions};
pub use groups::GroupOptions;
pub use sgd::{Sgd, SgdOptions};

use crate::model::{NamedTensor, Transformer};
use crate::{Error, Result};

/// An optimizer of one model.
pub trait Optimizer {
    /// Updates the weights at learning rate `lr`, and sets the gradients to zero.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if a gradient is NaN or infinite, before any weight changes, and
    /// `ERR_SHAPE_MISMATCH` if the model has another shape. On a CUDA device nothing waits for the
    /// norm: a non-finite one turns the update into a no-op, and the next call that reads from the
    /// device returns the error.
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

    /// Returns the optimizer's tensors in the layout of checkpoint files; none if it has no state.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if they cannot be read from the device.
    fn state(&self, model: &Transformer) -> Result<Vec<NamedTensor>>;

    /// Restores the tensors of a checkpoint and the number of updates made.
    ///
    /// # Errors
    /// Returns `ERR_CHECKPOINT_MISMATCH` naming every difference; the optimizer is unchanged then.
    fn load_state(
        &mut self,
        model: &Transformer,
        tensors: &[NamedTensor],
        steps: u64,
    ) -> Result<()>;
}

fn check_max_norm(max_norm: f64) -> Result<()> {
    if max_norm >= 0.0 {
        return Ok(());
    }
    Err(Error::argument(format!("max_norm is {max_norm}; it must be at least 0 (0: no clipping)")))
}
