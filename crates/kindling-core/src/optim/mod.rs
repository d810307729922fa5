//! Optimizers over the model's flat buffers, with groups of parameters that have settings of their own.

mod adamw;
mod clip;
mod groups;
mod sgd;

pub use adamw::{AdamW, AdamWOptions};
pub use clip::{clip_grad_norm, queue_clip};
pub use groups::{GroupOptions, matches_pattern};
pub use sgd::{Sgd, SgdOptions};

use crate::Result;
use crate::model::{NamedTensor, Transformer};

/// What every optimizer can do.
pub trait Optimizer {
    /// One update at rate `lr`; uses and clears the gradients.
    ///
    /// # Errors
    /// `ERR_NON_FINITE` before any weight changes; `ERR_SHAPE_MISMATCH` for another model. On a CUDA device a norm that is
    /// not finite leaves everything as it is, and the error comes when something is next read.
    fn step(&mut self, model: &mut Transformer, lr: f64) -> Result<()>;

    /// Scales the gradients so that their global norm is at most `max_norm` (0: no clipping); gives the norm before.
    ///
    /// # Errors
    /// `ERR_NON_FINITE` where the norm is NaN or infinite.
    fn clip_grad_norm(&mut self, model: &mut Transformer, max_norm: f64) -> Result<f64> {
        clip_grad_norm(model, max_norm, self.steps() + 1)
    }

    /// As `clip_grad_norm`, but nothing waits for a device: a norm that is not finite is found when something is next
    /// read.
    ///
    /// # Errors
    /// On the CPU as `clip_grad_norm`.
    fn queue_clip(&mut self, model: &mut Transformer, max_norm: f64) -> Result<()> {
        queue_clip(model, max_norm, self.steps() + 1)
    }

    /// Number of updates made.
    fn steps(&self) -> u64;

    /// Its name in files.
    fn kind(&self) -> &'static str;

    /// Its tensors in a file's layout, none for one without state.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    fn state(&self, model: &Transformer) -> Result<Vec<NamedTensor>>;

    /// Takes the tensors of a file and the number of updates made.
    ///
    /// # Errors
    /// `ERR_CHECKPOINT_MISMATCH` naming every difference; nothing is changed then.
    fn load_state(
        &mut self,
        model: &Transformer,
        tensors: &[NamedTensor],
        steps: u64,
    ) -> Result<()>;
}
