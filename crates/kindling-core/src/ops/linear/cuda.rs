//! CUDA implementation: cuBLASLt computes the products, the kernels in `cuda.cu` handle the bias.
//! The bias is f32; out and dout may be either dtype.

use super::{BackwardInput, BackwardWeight, Forward, Shape};
use crate::Result;
use crate::cuda::{Arg, Cuda, Launch};
use crate::dtype::Dtype;
use crate::ops::kernels::{by_dtype, row_block};
use crate::ops::matmul;
use crate::ops::matmul::cuda::{product, rows, transposed};

/// Maximum number of runs of rows, each of which gets a partial sum.
const MAX_RUNS: usize = 64;

fn runs(s: Shape) -> usize {
    s.rows.div_ceil(64).clamp(1, MAX_RUNS)
}

/// Builds the launch that adds the bias to each row of out.
pub fn add_bias(dtype: Dtype, out: u64, bias: u64, s: Shape) -> Launch {
    Launch {
        kernel: by_dtype(dtype, "linear_add_bias_f32", "linear_add_bias_bf16"),
        grid: [s.rows as u32, 1, 1],
        block: row_block(s.outputs, 1),
        shared_bytes: 0,
        args: vec![Arg::Pointer(out), Arg::Pointer(bias), s.outputs.into()],
    }
}

/// Returns the number of f32 elements of scratch that `backward_bias` needs.
pub fn partial_len(s: Shape) -> usize {
    runs(s) * s.outputs
}

/// Builds the launches that add the column sums of dout to dbias, in order. `partial` is the
/// address of `partial_len(s)` f32 of scratch.
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

pub(super) fn forward(gpu: &Cuda, args: Forward) -> Result<()> {
    let Forward { out, x, weight, bias, shape: s } = args;
    let shape = matmul::Shape { m: s.rows, k: s.inputs, n: s.outputs };
    product(gpu, &out, rows(x), transposed(weight), shape, false)?;
    match bias {
        Some(bias) => gpu.run(&[add_bias(out.dtype(), out.pointer(), bias.pointer(), s)]),
        None => Ok(()),
    }
}

pub(super) fn backward_input(gpu: &Cuda, args: BackwardInput) -> Result<()> {
    let BackwardInput { dx, dout, weight, shape: s, accumulate } = args;
    let shape = matmul::Shape { m: s.rows, k: s.outputs, n: s.inputs };
    product(gpu, &dx, rows(dout), rows(weight), shape, accumulate)
}

pub(super) fn backward_weight(gpu: &Cuda, args: BackwardWeight) -> Result<()> {
    let BackwardWeight { dweight, dbias, dout, x, shape: s } = args;
    let shape = matmul::Shape { m: s.outputs, k: s.rows, n: s.inputs };
    product(gpu, &dweight, transposed(dout), rows(x), shape, true)?;
    match dbias {
        Some(dbias) => {
            let [partial] = gpu.scratch([partial_len(s) * size_of::<f32>()])?;
            gpu.run(&backward_bias(dout.dtype(), dbias.pointer(), partial, dout.pointer(), s))
        }
        None => Ok(()),
    }
}
