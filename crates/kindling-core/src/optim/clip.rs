//! Clipping by the global gradient norm over all parameters.

use crate::model::Transformer;
use crate::{Error, Result};

/// Scales the gradients so that their global L2 norm is at most `max_norm` (0: no clipping); gives the norm before.
///
/// # Errors
/// `ERR_NON_FINITE` where the norm is NaN or infinite; the gradients are left as they are.
pub fn clip_grad_norm(model: &mut Transformer, max_norm: f64, step: u64) -> Result<f64> {
    check_max_norm(max_norm)?;
    model.clip_gradients(max_norm, step)
}

/// As `clip_grad_norm`, but nothing waits for a device: a norm that is not finite is found when something is next read.
///
/// # Errors
/// On the CPU as `clip_grad_norm`.
pub fn queue_clip(model: &mut Transformer, max_norm: f64, step: u64) -> Result<()> {
    check_max_norm(max_norm)?;
    model.queue_clip(max_norm, step)
}

fn check_max_norm(max_norm: f64) -> Result<()> {
    if max_norm >= 0.0 {
        return Ok(());
    }
    Err(Error::argument(format!("max_norm is {max_norm}; it must be at least 0 (0: no clipping)")))
}
