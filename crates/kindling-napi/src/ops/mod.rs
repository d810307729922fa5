//! The ops of the engine as synchronous functions of arrays and sizes, for `src/ops.ts`.
//!
//! Lengths are checked here, before results are allocated. The ops check their shapes again.

mod attention;
mod dense;
mod layers;
mod loss;
mod update;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use kindling_core::device::Device;
use kindling_core::{Error, Result};

use crate::error::{from_panic, to_napi};

/// The CPU device of all calls, with one thread per core. The first call starts the threads.
static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::cpu(0));

/// Runs `work` on the device and converts a panic to an error.
fn run<R>(work: impl FnOnce(&Device) -> Result<R>) -> napi::Result<R> {
    catch_unwind(AssertUnwindSafe(|| work(&DEVICE)))
        .unwrap_or_else(|panic| Err(from_panic(panic.as_ref())))
        .map_err(to_napi)
}

/// Checks that the length of `what` is the product of `dimensions`.
fn need(op: &'static str, what: &'static str, actual: usize, dimensions: &[usize]) -> Result<()> {
    let expected =
        dimensions.iter().try_fold(1usize, |all, &d| all.checked_mul(d)).unwrap_or(usize::MAX);
    if actual == expected {
        Ok(())
    } else {
        Err(Error::ShapeMismatch { op, what, expected, actual })
    }
}

/// Returns the number of rows of `width` columns in `len` elements, which must be at least one.
fn rows(op: &'static str, what: &'static str, len: usize, width: usize) -> Result<usize> {
    let rows = len.checked_div(width).unwrap_or(0);
    let expected = rows.max(1) * width;
    if width > 0 && len == expected {
        Ok(rows)
    } else {
        Err(Error::ShapeMismatch { op, what, expected, actual: len })
    }
}

/// Transposes `matrix` (rows, columns). Users and files have weights as (in, out), the engine has
/// them as (out, in).
fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; matrix.len()];
    for (r, row) in matrix.chunks_exact(columns).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * rows + r] = value;
        }
    }
    out
}
