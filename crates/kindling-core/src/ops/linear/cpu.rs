//! CPU implementation.
//!
//! | operands | rows | product |
//! |---|---|---|
//! | f32 | below `FEW_ROWS`, forward | dot products of a row of x and rows of the weight |
//! | f32 with AVX-512 | from `MANY_ROWS`, forward; large, backward | `matmul::packed` |
//! | f32 | the others | `matmul::gemm`; from `MANY_ROWS`, forward, of the transposed weight |
//! | bf16 | all | `matmul::packed` |

use std::borrow::Cow;
use std::ops::Range;

use super::dot::{Operands, multiply_bf16, multiply_f32};
use super::{BackwardInput, BackwardWeight, Forward, ForwardBf16Weight, Shape};
use crate::buffer::{In, Out};
use crate::cpu::{Cpu, MatmulBackend, MatmulKernel};
use crate::dtype::Dtype;
use crate::ops::matmul::gemm;
use crate::ops::matmul::matrix::Matrix;
use crate::ops::matmul::packed::{self, Operand};
use crate::ops::{BlockMut, BlocksMut, RowsMut, Tasks, split_grid, split_rows, with_dirty_scratch};
use crate::simd::bf16::round_all;

/// Rows below which a forward product is cut into tasks by outputs only, so that each weight is
/// read from memory once.
const FEW_ROWS: usize = 32;
/// Maximum number of tasks of a product of few rows.
const MAX_TASKS: usize = 16;
/// Rows from which packing or transposing the weight is a small part of the forward product.
const MANY_ROWS: usize = 256;
/// Multiply-adds below which the `gemm` crate, which packs less, is faster for an f32 product of
/// the backward pass.
const MIN_PACKED_WORK: usize = 1 << 27;
/// Elements of a weight that are transposed at a time: 4 MiB.
const TRANSPOSE_BLOCK: usize = 1 << 20;

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let Forward { mut out, x, weight, bias, shape: s } = args;
    if s.rows < FEW_ROWS && cpu.matmul.dtype() == Dtype::F32 {
        let (x, weight) = (x.cpu(), weight.cpu());
        for_few_rows(cpu, out.cpu(), bias.map(In::cpu), s, |out, weights| {
            multiply_f32(cpu.isa, out, Operands { x, weight: &weight[weights], inputs: s.inputs });
        });
        return;
    }
    let accumulate = write_bias(&mut out, bias, s);
    let many_rows = s.rows >= MANY_ROWS;
    if let Some(kernel) = packed_kernel(cpu.matmul, s, many_rows) {
        let a = Operand::new(x, s.rows, s.inputs);
        let b = Operand::new(weight, s.outputs, s.inputs).transposed();
        packed::product(cpu, kernel, packed::Product { out, a, b, accumulate });
        return;
    }
    let x = Matrix::new(x.cpu(), s.rows, s.inputs);
    if many_rows {
        forward_via_transpose(cpu, out.cpu(), x, weight.cpu(), accumulate);
    } else {
        let weight = Matrix::new(weight.cpu(), s.outputs, s.inputs);
        gemm::product(&cpu.pool, out.cpu(), x, weight.transposed(), accumulate);
    }
}

/// Computes out = x W^T (or +=) with W^T written out, some outputs at a time: the `gemm` crate
/// packs contiguous outputs much faster than contiguous inputs.
fn forward_via_transpose(cpu: &Cpu, out: &mut [f32], x: Matrix, weight: &[f32], accumulate: bool) {
    let inputs = x.width;
    let outputs = weight.len() / inputs;
    let blocks = transpose_blocks(inputs, outputs);
    let mut scratch = cpu.scratch.lock();
    let scratch = scratch.floats(transpose_len(inputs, outputs));
    for block in (0..blocks.count).map(|block| blocks.range(block)) {
        let transposed = &mut scratch[..block.len() * inputs];
        transpose(cpu, transposed, &weight[block.start * inputs..block.end * inputs], block.len());
        let transposed = Matrix::new(transposed, inputs, block.len());
        let (_, out) = BlocksMut::new(out, outputs).split_columns(block.start);
        let (out, _) = out.split_columns(block.len());
        gemm::product_into(&cpu.pool, out, x, transposed, accumulate);
    }
}

/// Cuts a weight into blocks of outputs that are transposed one after the other.
fn transpose_blocks(inputs: usize, outputs: usize) -> Tasks {
    Tasks::exactly(outputs, (outputs * inputs).div_ceil(TRANSPOSE_BLOCK))
}

/// Returns the number of elements in the largest transposed block.
fn transpose_len(inputs: usize, outputs: usize) -> usize {
    outputs.div_ceil(transpose_blocks(inputs, outputs).count) * inputs
}

/// Returns how many 32-bit words of the device's scratch memory the forward and backward passes
/// take.
pub(crate) fn device_scratch_len(matmul: MatmulBackend, threads: usize, s: Shape) -> usize {
    let many_rows = s.rows >= MANY_ROWS;
    let forward_kernel = packed_kernel(matmul, s, many_rows);
    let forward = match forward_kernel {
        Some(kernel) => packed::scratch_len(kernel, threads, [s.rows, s.inputs, s.outputs]),
        None if many_rows => transpose_len(s.inputs, s.outputs),
        None => 0,
    };
    let backward = packed_kernel(matmul, s, false).map_or(0, |kernel| {
        let input = packed::scratch_len(kernel, threads, [s.rows, s.outputs, s.inputs]);
        input.max(packed::scratch_len(kernel, threads, [s.outputs, s.rows, s.inputs]))
    });
    forward.max(backward)
}

/// Writes the transpose of `weight` (outputs, inputs).
fn transpose(cpu: &Cpu, transposed: &mut [f32], weight: &[f32], outputs: usize) {
    const TILE: usize = 16;
    let inputs = weight.len() / outputs;
    let tasks = Tasks::new(inputs, (1 << 14) / outputs + TILE);
    split_rows(&cpu.pool, tasks, RowsMut::new(transposed, outputs), |columns, transposed| {
        for first in (0..outputs).step_by(TILE) {
            let rows = first..outputs.min(first + TILE);
            for column in columns.clone() {
                let target = &mut transposed[(column - columns.start) * outputs..][rows.clone()];
                for (target, row) in target.iter_mut().zip(rows.clone()) {
                    *target = weight[row * inputs + column];
                }
            }
        }
    });
}

pub(super) fn forward_bf16_weight(cpu: &Cpu, args: ForwardBf16Weight) {
    let ForwardBf16Weight { mut out, x, weight, bias, shape: s } = args;
    if let MatmulBackend::Packed(kernel) = cpu.matmul
        && s.rows >= FEW_ROWS
    {
        let accumulate = write_bias(&mut out, bias, s);
        let a = Operand::new(x, s.rows, s.inputs);
        let b = Operand::new(In::CpuBf16(weight), s.outputs, s.inputs).transposed();
        packed::product(cpu, kernel, packed::Product { out, a, b, accumulate });
        return;
    }
    let bias = bias.map(In::cpu);
    let x = match x {
        In::CpuBf16(x) => Cow::Borrowed(x),
        x => Cow::Owned(packed::round_to_bf16(&cpu.pool, x.cpu())),
    };
    let work = |out: &mut BlockMut<f32>, weights: Range<usize>| {
        multiply_bf16(out, Operands { x: &x, weight: &weight[weights], inputs: s.inputs });
    };
    match out {
        Out::CpuBf16(out) => with_dirty_scratch(out.len(), |sums| {
            for_few_rows(cpu, sums, bias, s, work);
            round_all(out, sums);
        }),
        out => for_few_rows(cpu, out.cpu(), bias, s, work),
    }
}

/// Writes the bias, if any, to each row of out. Returns whether there is one, for the product to
/// be added to.
fn write_bias(out: &mut Out, bias: Option<In>, s: Shape) -> bool {
    if let Some(bias) = bias.map(In::cpu) {
        let out = out.reborrow().cpu();
        out.chunks_exact_mut(s.outputs).for_each(|row| row.copy_from_slice(bias));
    }
    bias.is_some()
}

/// Cuts a product of few rows into tasks by outputs. `work(out, weights)` computes some outputs of
/// all rows from that range of the weight's elements; then the bias is added.
fn for_few_rows(
    cpu: &Cpu,
    out: &mut [f32],
    bias: Option<&[f32]>,
    s: Shape,
    work: impl Fn(&mut BlockMut<f32>, Range<usize>) + Sync,
) {
    if s.rows == 0 {
        return;
    }
    let tasks = Tasks::at_most(s.outputs, (1 << 16) / s.inputs.max(1) + 1, MAX_TASKS);
    let out = BlocksMut::new(out, s.outputs).in_units(s.rows, 1);
    split_grid(&cpu.pool, Tasks::exactly(1, 1), tasks, out, |_, outputs, mut block| {
        work(&mut block, outputs.start * s.inputs..outputs.end * s.inputs);
        let Some(bias) = bias.map(|bias| &bias[outputs]) else { return };
        for row in 0..s.rows {
            block.row_mut(row).iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    });
}

pub(super) fn backward_input(cpu: &Cpu, args: BackwardInput) {
    let BackwardInput { dx, dout, weight, shape: s, accumulate } = args;
    if let Some(kernel) = packed_kernel(cpu.matmul, s, false) {
        let a = Operand::new(dout, s.rows, s.outputs);
        let b = Operand::new(weight, s.outputs, s.inputs);
        packed::product(cpu, kernel, packed::Product { out: dx, a, b, accumulate });
    } else {
        let dout = Matrix::new(dout.cpu(), s.rows, s.outputs);
        let weight = Matrix::new(weight.cpu(), s.outputs, s.inputs);
        gemm::product(&cpu.pool, dx.cpu(), dout, weight, accumulate);
    }
}

pub(super) fn backward_weight(cpu: &Cpu, args: BackwardWeight) {
    let BackwardWeight { dweight, dbias, dout, x, shape: s } = args;
    if let Some(kernel) = packed_kernel(cpu.matmul, s, false) {
        let a = Operand::new(dout, s.rows, s.outputs).transposed();
        let b = Operand::new(x, s.rows, s.inputs);
        packed::product(cpu, kernel, packed::Product { out: dweight, a, b, accumulate: true });
    } else {
        let dout = Matrix::new(dout.cpu(), s.rows, s.outputs);
        let x = Matrix::new(x.cpu(), s.rows, s.inputs);
        gemm::product(&cpu.pool, dweight.cpu(), dout.transposed(), x, true);
    }
    if let Some(dbias) = dbias {
        backward_bias(cpu, dbias.cpu(), dout.cpu(), s);
    }
}

fn backward_bias(cpu: &Cpu, dbias: &mut [f32], dout: &[f32], s: Shape) {
    let tasks = Tasks::new(s.outputs, 64);
    split_rows(&cpu.pool, tasks, RowsMut::new(dbias, 1), |outputs, dbias| {
        for row in dout.chunks_exact(s.outputs) {
            dbias.iter_mut().zip(&row[outputs.clone()]).for_each(|(b, d)| *b += d);
        }
    });
}

/// Returns the kernel for packed operands, or `None` if the `gemm` crate is to be used. bf16
/// products always have a kernel, f32 ones only if they are large or `always` is set.
fn packed_kernel(matmul: MatmulBackend, s: Shape, always: bool) -> Option<MatmulKernel> {
    let MatmulBackend::Packed(kernel) = matmul else { return None };
    let is_large = s.rows * s.inputs * s.outputs >= MIN_PACKED_WORK;
    (kernel.dtype() == Dtype::Bf16 || always || is_large).then_some(kernel)
}
