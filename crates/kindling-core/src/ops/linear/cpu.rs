//! CPU half: large products, forward ones of many rows and those of bf16 by kernels of our own where the processor has AVX-512,
//! all others by the `gemm` crate, which chooses its own instruction set at run time, one call a fixed piece. There each piece
//! packs the other operand again, so pieces are few and large.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::PoisonError;

use super::{BackwardInput, BackwardWeight, Forward, ForwardBf16Weight, Shape};
use crate::buffer::{In, Out};
use crate::cpu::{Cpu, MatmulBackend};
use crate::dtype::Dtype;
use crate::ops::matmul::gemm::{Matrix, parallel_gemm, parallel_gemm_into};
use crate::ops::matmul::packed::{self, Kernel, Operand};
use crate::ops::{Disjoint, Pieces, with_dirty_scratch};
use crate::simd::bf16::round_all;
use crate::simd::{LANES, Vector};

/// Rows of a piece below which a product is cut over its outputs instead.
const FEW_ROWS: usize = 32;
const PIECES: usize = 16;
/// Rows from which on turning, or packing, the weight is a small part of the forward product.
const MANY_ROWS: usize = 256;
/// Multiply-adds of a backward product of f32 below which the `gemm` crate, which packs less, is faster.
const SMALL: usize = 1 << 27;
/// Elements of a weight that are turned at once: 4 MiB.
const TURNED: usize = 1 << 20;

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let Forward { mut out, x, weight, bias, shape: s } = args;
    let bias = bias.map(In::cpu);
    if s.rows < FEW_ROWS && cpu.matmul.dtype() == Dtype::F32 {
        let (x, weight) = (x.cpu(), weight.cpu());
        few_rows(cpu, out.cpu(), bias, s, |out, row, outputs| {
            let weight = &weight[outputs.start * s.inputs..outputs.end * s.inputs];
            matrix_vector(cpu.isa, out, &x[row * s.inputs..(row + 1) * s.inputs], weight);
        });
        return;
    }
    if let Some(bias) = bias {
        out.again().cpu().chunks_exact_mut(s.outputs).for_each(|row| row.copy_from_slice(bias));
    }
    let kernel = kernel_for(cpu.matmul, s, s.rows >= MANY_ROWS);
    if kernel.is_none() && s.rows >= MANY_ROWS {
        forward_turned(cpu, out.cpu(), x.cpu(), weight.cpu(), bias.is_some(), s);
        return;
    }
    let weight = Operand::rows(weight, s.outputs, s.inputs).transposed();
    product(cpu, kernel, out, Operand::rows(x, s.rows, s.inputs), weight, bias.is_some());
}

/// out = x W^T, or +=, some outputs at a time, whose part of the weight is turned first: the `gemm` crate packs rows of
/// outputs much faster than rows of inputs.
fn forward_turned(
    cpu: &Cpu,
    out: &mut [f32],
    x: &[f32],
    weight: &[f32],
    accumulate: bool,
    s: Shape,
) {
    let blocks = transposed_blocks(s);
    let mut memory = cpu.turned.lock().unwrap_or_else(PoisonError::into_inner);
    let len = transposed_len(s);
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    for block in 0..blocks.count {
        let outputs = blocks.range(block);
        let turned = &mut memory[..outputs.len() * s.inputs];
        turn(cpu, turned, &weight[outputs.start * s.inputs..outputs.end * s.inputs], outputs.len());
        let turned = Matrix::rows(turned, s.inputs, outputs.len());
        let x = Matrix::rows(x, s.rows, s.inputs);
        parallel_gemm_into(&cpu.pool, out, s.outputs, outputs.start, x, turned, accumulate);
    }
}

/// Blocks of outputs, each of which is transposed at once.
fn transposed_blocks(s: Shape) -> Pieces {
    Pieces::exactly(s.outputs, (s.outputs * s.inputs).div_ceil(TURNED))
}

/// Elements of the largest transposed block.
fn transposed_len(s: Shape) -> usize {
    s.outputs.div_ceil(transposed_blocks(s).count) * s.inputs
}

/// Returns the f32 elements of the device's shared memory that a forward and a backward pass need:
/// for packed operands, and for a transposed part of the weight.
pub(crate) fn shared_scratch_len(matmul: MatmulBackend, s: Shape) -> (usize, usize) {
    let (n, k, m) = (s.rows, s.inputs, s.outputs);
    let forward = kernel_for(matmul, s, n >= MANY_ROWS);
    // The second operands of forward, backward_input and backward_weight, as (rows, columns).
    let packed = forward.map(|kernel| packed::scratch_len(kernel, k, m)).into_iter();
    let backward = kernel_for(matmul, s, false).into_iter();
    let backward = backward
        .flat_map(|kernel| [(m, k), (n, k)].map(|(k, n)| packed::scratch_len(kernel, k, n)));
    let transposed = if forward.is_none() && n >= MANY_ROWS { transposed_len(s) } else { 0 };
    (packed.chain(backward).max().unwrap_or(0), transposed)
}

/// The transpose of `weight` (outputs, inputs).
fn turn(cpu: &Cpu, turned: &mut [f32], weight: &[f32], outputs: usize) {
    const TILE: usize = 16;
    let inputs = weight.len() / outputs;
    let pieces = Pieces::new(inputs, (1 << 14) / outputs + TILE);
    let turned = Disjoint::new(turned);
    cpu.pool.run(pieces.count, |piece| {
        let columns = pieces.range(piece);
        // SAFETY: pieces write disjoint rows.
        let turned = unsafe { turned.part(columns.start * outputs..columns.end * outputs) };
        for first in (0..outputs).step_by(TILE) {
            let rows = first..outputs.min(first + TILE);
            for column in columns.clone() {
                let target = &mut turned[(column - columns.start) * outputs..][rows.clone()];
                for (target, row) in target.iter_mut().zip(rows.clone()) {
                    *target = weight[row * inputs + column];
                }
            }
        }
    });
}

pub(super) fn forward_bf16_weight(cpu: &Cpu, args: ForwardBf16Weight) {
    let ForwardBf16Weight { out, x, weight, bias, shape: s } = args;
    let bias = bias.map(In::cpu);
    let rounded = match x {
        In::CpuBf16(x) => Cow::Borrowed(x),
        x => Cow::Owned(packed::rounded(&cpu.pool, x.cpu())),
    };
    let work = |out: &mut [f32], row: usize, outputs: Range<usize>| {
        let weight = &weight[outputs.start * s.inputs..outputs.end * s.inputs];
        packed::dot_rows(out, &rounded[row * s.inputs..(row + 1) * s.inputs], weight);
    };
    match out {
        Out::CpuBf16(out) => with_dirty_scratch(out.len(), |sums| {
            few_rows(cpu, sums, bias, s, work);
            round_all(out, sums);
        }),
        out => few_rows(cpu, out.cpu(), bias, s, work),
    }
}

/// Cuts a product of few rows over its outputs, so that each weight is read from memory once: `work(out, row, outputs)`.
fn few_rows(
    cpu: &Cpu,
    out: &mut [f32],
    bias: Option<&[f32]>,
    s: Shape,
    work: impl Fn(&mut [f32], usize, Range<usize>) + Sync,
) {
    let out = Disjoint::new(out);
    let pieces = Pieces::at_most(s.outputs, (1 << 16) / s.inputs.max(1) + 1, PIECES);
    cpu.pool.run(pieces.count, |piece| {
        let outputs = pieces.range(piece);
        for row in 0..s.rows {
            let base = row * s.outputs;
            // SAFETY: pieces write disjoint outputs of each row.
            let out = unsafe { out.part(base + outputs.start..base + outputs.end) };
            work(out, row, outputs.clone());
            if let Some(bias) = bias {
                out.iter_mut().zip(&bias[outputs.clone()]).for_each(|(o, b)| *o += b);
            }
        }
    });
}

pub(super) fn backward_input(cpu: &Cpu, args: BackwardInput) {
    let BackwardInput { dx, dout, weight, shape: s, accumulate } = args;
    let dout = Operand::rows(dout, s.rows, s.outputs);
    let weight = Operand::rows(weight, s.outputs, s.inputs);
    product(cpu, kernel_for(cpu.matmul, s, false), dx, dout, weight, accumulate);
}

pub(super) fn backward_weight(cpu: &Cpu, args: BackwardWeight) {
    let BackwardWeight { dweight, dbias, dout, x, shape: s } = args;
    let (a, b) =
        (Operand::rows(dout, s.rows, s.outputs).transposed(), Operand::rows(x, s.rows, s.inputs));
    product(cpu, kernel_for(cpu.matmul, s, false), dweight, a, b, true);
    if let Some(dbias) = dbias {
        backward_bias(cpu, dbias.cpu(), dout.cpu(), s);
    }
}

fn backward_bias(cpu: &Cpu, dbias: &mut [f32], dout: &[f32], s: Shape) {
    let pieces = Pieces::new(s.outputs, 64);
    let dbias = Disjoint::new(dbias);
    cpu.pool.run(pieces.count, |piece| {
        let outputs = pieces.range(piece);
        // SAFETY: pieces write disjoint outputs.
        let dbias = unsafe { dbias.part(outputs.clone()) };
        for row in dout.chunks_exact(s.outputs) {
            dbias.iter_mut().zip(&row[outputs.clone()]).for_each(|(b, d)| *b += d);
        }
    });
}

/// The kernel that multiplies, where it is always worth its packing or the product is large; none for the `gemm` crate.
fn kernel_for(matmul: MatmulBackend, s: Shape, always: bool) -> Option<Kernel> {
    let MatmulBackend::Packed(kernel) = matmul else { return None };
    let large = s.rows * s.inputs * s.outputs >= SMALL;
    (kernel.dtype() == Dtype::Bf16 || always || large).then_some(kernel)
}

/// out = a b, or += where `accumulate`, in the arithmetic of the device.
fn product(cpu: &Cpu, kernel: Option<Kernel>, out: Out, a: Operand, b: Operand, accumulate: bool) {
    match kernel {
        None => parallel_gemm(&cpu.pool, out.cpu(), a.f32(), b.f32(), accumulate),
        Some(kernel) => packed::product(cpu, kernel, out, a, b, accumulate),
    }
}

crate::dispatch! {
    /// out[o] = x . weight[o]: each weight is read once.
    fn matrix_vector(out: &mut [f32], x: &[f32], weight: &[f32]) = matrix_vector_lanes;
}

#[inline(always)]
fn matrix_vector_lanes<V: Vector>(out: &mut [f32], x: &[f32], weight: &[f32]) {
    let inputs = x.len();
    for (out, row) in out.iter_mut().zip(weight.chunks_exact(inputs)) {
        let mut sums = [V::splat(0.0); 4];
        let mut start = 0;
        while start + 4 * LANES <= inputs {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let at = start + lane * LANES;
                *sum = V::load(&x[at..]).mul_add(V::load(&row[at..]), *sum);
            }
            start += 4 * LANES;
        }
        while start < inputs {
            let end = (start + LANES).min(inputs);
            sums[0] =
                V::load_partial(&x[start..end]).mul_add(V::load_partial(&row[start..end]), sums[0]);
            start = end;
        }
        *out = sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum();
    }
}
