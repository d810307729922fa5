//! Each op of the engine as a synchronous function of arrays and sizes: `ops` of `src/ops.ts`.
//!
//! Lengths are checked here, before results are allocated; each op checks its shapes again.

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

/// The processor that `ops` runs on; its threads start with the first call.
static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::cpu(0));

/// Runs `work` on the device of `ops`; a panic becomes an error.
fn run<R>(work: impl FnOnce(&Device) -> Result<R>) -> napi::Result<R> {
    catch_unwind(AssertUnwindSafe(|| work(&DEVICE)))
        .unwrap_or_else(|panic| Err(from_panic(panic.as_ref())))
        .map_err(to_napi)
}

/// Says whether `what` has as many elements as its dimensions multiply to.
fn need(op: &'static str, what: &'static str, actual: usize, dimensions: &[usize]) -> Result<()> {
    let expected =
        dimensions.iter().try_fold(1usize, |all, &d| all.checked_mul(d)).unwrap_or(usize::MAX);
    if actual == expected {
        Ok(())
    } else {
        Err(Error::ShapeMismatch { op, what, expected, actual })
    }
}

/// Rows of `width` columns in `len` elements.
fn rows(op: &'static str, what: &'static str, len: usize, width: usize) -> Result<usize> {
    let rows = len.checked_div(width).unwrap_or(0);
    let expected = rows.max(1) * width;
    if width > 0 && len == expected {
        Ok(rows)
    } else {
        Err(Error::ShapeMismatch { op, what, expected, actual: len })
    }
}

/// The transpose of `matrix` (rows, columns): files keep weights as [in, out], the engine as [out, in].
fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; matrix.len()];
    for (r, row) in matrix.chunks_exact(columns).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * rows + r] = value;
        }
    }
    out
}
