//! CUDA half: the products by cuBLAS, and the bias by launches of `cuda.cu`. out, dout are of the dtype, bias f32.

use super::Shape;
use crate::Result;
use crate::buffer::{In, Out};
use crate::cuda::Cuda;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, row_block};
use crate::ops::matmul;
use crate::ops::matmul::cuda::{product, rows, turned};

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

/// out = x W^T + bias.
pub(super) fn forward(
    gpu: &Cuda,
    out: &Out,
    x: In,
    weight: In,
    bias: Option<In>,
    s: Shape,
) -> Result<()> {
    let shape = matmul::Shape { m: s.rows, k: s.inputs, n: s.outputs };
    product(gpu, out, rows(x), turned(weight), shape, false)?;
    match bias {
        Some(bias) => gpu.run(&[add_bias(out.dtype(), out.pointer(), bias.pointer(), s)]),
        None => Ok(()),
    }
}

/// dx = dout W, or dx += dout W.
pub(super) fn backward_input(
    gpu: &Cuda,
    dx: &Out,
    dout: In,
    weight: In,
    s: Shape,
    accumulate: bool,
) -> Result<()> {
    let shape = matmul::Shape { m: s.rows, k: s.outputs, n: s.inputs };
    product(gpu, dx, rows(dout), rows(weight), shape, accumulate)
}

/// dweight += dout^T x; dbias += column sums of dout.
pub(super) fn backward_weight(
    gpu: &Cuda,
    dweight: &Out,
    dbias: Option<&Out>,
    dout: In,
    x: In,
    s: Shape,
) -> Result<()> {
    let shape = matmul::Shape { m: s.outputs, k: s.rows, n: s.inputs };
    product(gpu, dweight, turned(dout), rows(x), shape, true)?;
    match dbias {
        Some(dbias) => {
            let [partial] = gpu.scratch([partial_len(s) * size_of::<f32>()])?;
            gpu.run(&backward_bias(dout.dtype(), dbias.pointer(), partial, dout.pointer(), s))
        }
        None => Ok(()),
    }
}
