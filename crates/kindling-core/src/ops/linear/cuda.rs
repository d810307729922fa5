//! CUDA half, the bias only: launches of `cuda.cu`. The products are cuBLAS's. out, dout are of the dtype, bias f32.

use super::Shape;
use crate::ops::cuda::{Arg, Dtype, Launch, by_dtype, row_block};

/// Runs of rows with a partial sum each.
const MOST_RUNS: usize = 64;

fn runs(s: Shape) -> usize {
    s.rows.div_ceil(64).clamp(1, MOST_RUNS)
}

/// out += bias, row by row.
pub fn add_bias(dtype: Dtype, out: u64, bias: u64, s: Shape) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "linear_add_bias_f32", "linear_add_bias_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.outputs, 1),
        shared_bytes: 0,
        args: vec![Arg::Pointer(out), Arg::Pointer(bias), s.outputs.into()],
    }
}

/// Elements of f32 scratch that `backward_bias` needs.
pub fn partial_len(s: Shape) -> usize {
    runs(s) * s.outputs
}

/// dbias += column sums of dout, through `partial`, scratch of `partial_len`. Two launches, in order.
pub fn backward_bias(dtype: Dtype, dbias: u64, partial: u64, dout: u64, s: Shape) -> [Launch; 2] {
    let rows = Launch {
        kernel: by_dtype(dtype, "linear_sum_rows_f32", "linear_sum_rows_bf16"),
        grid: [s.outputs.div_ceil(256) as u32, runs(s) as u32, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(partial), Arg::Pointer(dout), s.rows.into(), s.outputs.into()],
    };
    let columns = Launch {
        kernel: "linear_add_partial",
        grid: [s.outputs.div_ceil(32) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        args: vec![Arg::Pointer(dbias), Arg::Pointer(partial), runs(s).into(), s.outputs.into()],
    };
    [rows, columns]
}
