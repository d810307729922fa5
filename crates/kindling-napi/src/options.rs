//! Numbers of JavaScript as the engine's: a count must be a whole number, a rate a finite one.

use kindling_core::{Error, Result};

/// The largest integer a JavaScript number holds exactly.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// `value` as an integer from 0.
pub fn integer(name: &str, value: f64) -> Result<u64> {
    if value.fract() == 0.0 && (0.0..=MAX_SAFE_INTEGER).contains(&value) {
        return Ok(value as u64);
    }
    Err(Error::argument(format!("{name} is {value}; it must be a whole number of at least 0")))
}

/// `value` as a size. Zero passes here and is refused where it makes no sense.
pub fn size(name: &str, value: f64) -> Result<usize> {
    // No size of a model comes near: a vocabulary times a width must still fit the address space.
    let size = integer(name, value)?;
    u32::try_from(size)
        .map(|size| size as usize)
        .map_err(|_| Error::argument(format!("{name} is {value}; it must be below 2^32")))
}

/// `value` if it is finite and not negative.
pub fn rate(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(Error::argument(format!("{name} is {value}; it must be a finite number of at least 0")))
}

/// `value` if it is finite.
pub fn finite(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::argument(format!("{name} is {value}; it must be a finite number")))
}
