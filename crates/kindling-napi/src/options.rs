//! Converts JavaScript option values to the engine's types.

use std::path::PathBuf;

use kindling_core::data::{Element, Format};
use kindling_core::{Error, Result};

/// Largest integer that a JavaScript number represents exactly (`Number.MAX_SAFE_INTEGER`).
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Converts a non-negative integer.
pub fn integer(name: &str, value: f64) -> Result<u64> {
    if value.fract() == 0.0 && (0.0..=MAX_SAFE_INTEGER).contains(&value) {
        return Ok(value as u64);
    }
    Err(Error::argument(format!("{name} is {value}; it must be a non-negative integer")))
}

/// Converts a size below 2^32. Zero is accepted here and rejected by whatever cannot use it.
pub fn size(name: &str, value: f64) -> Result<usize> {
    // 32 bits are enough for any dimension, and keep the product of two of them in 64 bits.
    let size = integer(name, value)?;
    u32::try_from(size)
        .map(|size| size as usize)
        .map_err(|_| Error::argument(format!("{name} is {value}; it must be below 2^32")))
}

/// Converts a number of threads; 0 leaves the choice to the engine.
pub fn thread_count(value: f64) -> Result<usize> {
    const MOST: usize = 1024;
    let threads = size("threads", value)?;
    if threads <= MOST {
        return Ok(threads);
    }
    Err(Error::argument(format!("threads is {threads}; it must be at most {MOST}")))
}

/// Checks that `value` is finite and not negative.
pub fn rate(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(Error::argument(format!("{name} is {value}; it must be a finite number of at least 0")))
}

/// Checks that `value` is finite.
pub fn finite(name: &str, value: f64) -> Result<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::argument(format!("{name} is {value}; it must be a finite number")))
}

/// Parses the format of text files.
pub fn format(name: &str) -> Result<Format> {
    match name {
        "text" => Ok(Format::Text),
        "jsonl" => Ok(Format::Jsonl),
        "parquet" => Ok(Format::Parquet),
        other => {
            let message = format!("format is {other}; it must be text, jsonl or parquet");
            Err(Error::argument(message))
        }
    }
}

/// Parses the element type of token chunk files.
pub fn element(name: &str) -> Result<Element> {
    Element::of_chunks(name)
        .ok_or_else(|| Error::argument(format!("tokenDtype is {name}; it must be int32 or uint16")))
}

/// Converts file names to paths.
pub fn paths(files: Vec<String>) -> Vec<PathBuf> {
    files.into_iter().map(PathBuf::from).collect()
}
