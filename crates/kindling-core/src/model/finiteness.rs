//! Finding the tensors whose weights or gradients are NaN or infinite.

use super::params::Parameter;
use super::transformer::Transformer;
use crate::Result;

/// Mask of the bits of an f32 without its sign. Masked, infinity is `INFINITE` and NaNs are above
/// it.
const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITE: u32 = 0x7f80_0000;

impl Transformer {
    /// Returns the name of the first tensor of weights with a NaN or an infinity.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the device failed.
    pub fn non_finite_weight(&self) -> Result<Option<&str>> {
        let weights = self.weights.read()?;
        Ok(first_non_finite(&self.layout.parameters, &weights))
    }

    /// Returns the name of the first tensor of gradients with a NaN or an infinity.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the device failed.
    pub fn non_finite_gradient(&self) -> Result<Option<&str>> {
        let Some(gradients) = self.gradients.allocated() else { return Ok(None) };
        let gradients = gradients.read()?;
        Ok(first_non_finite(&self.layout.parameters, &gradients))
    }
}

fn first_non_finite<'a>(parameters: &'a [Parameter], flat: &[f32]) -> Option<&'a str> {
    let parameter = parameters.iter().find(|p| !all_finite(&flat[p.range.clone()]))?;
    Some(&parameter.name)
}

/// Returns whether no value is NaN or infinite. The maximum of the bits compiles to vector
/// instructions, unlike a search that may end early.
fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(0, |largest: u32, value| largest.max(value.to_bits() & MAGNITUDE)) < INFINITE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_non_finite_value_is_found_and_no_finite_one() {
        for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!all_finite(&[0.0, value, 1.0]), "{value}");
        }
        assert!(all_finite(&[0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45]));
        assert!(all_finite(&[]));
    }
}
