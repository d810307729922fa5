//! The global gradient norm over all parameters, and clipping by it.

use crate::model::Transformer;
use crate::ops::grad_norm;
use crate::{Error, Result};

/// Says whether the gradients may be used: their norm is finite, as clipping has seen or is seen now.
///
/// # Errors
/// `ERR_NON_FINITE`.
pub(super) fn check_finite(model: &mut Transformer, step: u64) -> Result<()> {
    if model.gradients_are_finite() { Ok(()) } else { clip_grad_norm(model, 0.0, step).map(|_| ()) }
}

/// Scales the gradients so that their global L2 norm is at most `max_norm` (0: no clipping); gives the norm before.
///
/// # Errors
/// `ERR_NON_FINITE` where the norm is NaN or infinite; the gradients are left as they are.
pub fn clip_grad_norm(model: &mut Transformer, max_norm: f64, step: u64) -> Result<f64> {
    if max_norm.is_nan() || max_norm < 0.0 {
        return Err(Error::argument(format!(
            "max_norm is {max_norm}; it must be at least 0 (0: no clipping)"
        )));
    }
    let (device, gradients) = model.flat_gradients();
    let norm = grad_norm::sum_of_squares(device, gradients.view())?.sqrt();
    if !norm.is_finite() {
        return Err(Error::NonFinite { what: "the gradient norm", step });
    }
    let factor = grad_norm::clip_factor(norm, max_norm);
    if factor < 1.0 {
        grad_norm::scale(device, gradients.view_mut(), factor as f32)?;
    }
    model.found_gradients_finite();
    Ok(norm)
}
