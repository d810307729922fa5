//! CPU implementation. A row is read once for its maximum and, while it is in cache, again for the
//! sum of exponentials. `forward_backward` keeps the exponentials for the gradient; those of bf16
//! logits are f32 in scratch memory, which stays in L2.

use std::ops::Range;

use super::{Backward, Forward, ForwardBackward, LossSum, Shape};
use crate::buffer::{In, Out};
use crate::cpu::Cpu;
use crate::ops::{
    IGNORED_TARGET, MAX_TASKS, Outputs, PerTask, RowsMut, Tasks, split_rows, with_dirty_scratch,
};
use crate::simd::bf16::{round, round_scaled, widen, widen_all};
use crate::simd::{LANES, Vector, exp};

pub(super) fn forward(cpu: &Cpu, args: Forward) -> LossSum {
    let Forward { lse, logits, targets, shape: s } = args;
    let tasks = Tasks::of_rows(s.rows, s.vocab_size);
    sum_losses(cpu, tasks, RowsMut::new(lse.cpu(), 1), |rows, lse| {
        let mut total = LossSum::default();
        for (row, lse) in rows.zip(lse) {
            let columns = row * s.vocab_size..(row + 1) * s.vocab_size;
            let mut add = |logits: &[f32]| {
                let row_lse = log_sum_exp(cpu.isa, logits);
                *lse = row_lse.0 + row_lse.1;
                if targets[row] != IGNORED_TARGET {
                    total.add(loss_of(logits[targets[row] as usize], row_lse));
                }
            };
            match logits {
                In::CpuBf16(logits) => with_dirty_scratch(s.vocab_size, |wide| {
                    widen_all(wide, &logits[columns]);
                    add(wide);
                }),
                logits => add(&logits.cpu()[columns]),
            }
        }
        total
    })
}

pub(super) fn backward(cpu: &Cpu, args: Backward) {
    let Backward { dlogits, logits, lse, targets, scale, shape: s } = args;
    let (logits, lse) = (logits.cpu(), lse.cpu());
    let tasks = Tasks::of_rows(s.rows, s.vocab_size);
    let dlogits = RowsMut::new(dlogits.cpu(), s.vocab_size);
    split_rows(&cpu.pool, tasks, dlogits, |rows, dlogits| {
        for (row, dlogits) in rows.zip(dlogits.chunks_exact_mut(s.vocab_size.max(1))) {
            if targets[row] == IGNORED_TARGET {
                dlogits.fill(0.0);
                continue;
            }
            dlogits.copy_from_slice(&logits[row * s.vocab_size..(row + 1) * s.vocab_size]);
            scaled_softmax(cpu.isa, dlogits, lse[row], scale);
            dlogits[targets[row] as usize] -= scale;
        }
    });
}

pub(super) fn forward_backward(cpu: &Cpu, args: ForwardBackward) -> LossSum {
    let ForwardBackward { logits, targets, scale, shape: s } = args;
    match logits {
        Out::CpuBf16(logits) => replace_rows(cpu, logits, targets, s, |row, target, total| {
            let target_logit = widen(row[target]);
            with_dirty_scratch(row.len(), |exps| {
                let (max, sum) = exp_of_bf16(cpu.isa, exps, row);
                total.add(loss_of(target_logit, (max, sum.ln())));
                round_scaled(row, exps, scale / sum);
                row[target] = round(exps[target] * (scale / sum) - scale);
            });
        }),
        logits => replace_rows(cpu, logits.cpu(), targets, s, |row, target, total| {
            let target_logit = row[target];
            let (max, sum) = replace_by_exp(cpu.isa, row);
            total.add(loss_of(target_logit, (max, sum.ln())));
            multiply(cpu.isa, row, scale / sum);
            row[target] -= scale;
        }),
    }
}

/// Calls `replace(row of logits, target, total)` for each row that is not ignored, and zeroes the
/// others. Returns the sum of the totals.
fn replace_rows<T: Copy + Default + Send>(
    cpu: &Cpu,
    logits: &mut [T],
    targets: &[i32],
    s: Shape,
    replace: impl Fn(&mut [T], usize, &mut LossSum) + Sync,
) -> LossSum {
    let width = s.vocab_size;
    let tasks = Tasks::of_rows(s.rows, width);
    sum_losses(cpu, tasks, RowsMut::new(logits, width), |rows, logits| {
        let mut total = LossSum::default();
        for (row, logits) in rows.zip(logits.chunks_exact_mut(width.max(1))) {
            match targets[row] {
                IGNORED_TARGET => logits.fill(T::default()),
                target => replace(logits, target as usize, &mut total),
            }
        }
        total
    })
}

/// Adds up the losses that `work` returns for the rows of each task, in the order of the tasks.
fn sum_losses<O: Outputs>(
    cpu: &Cpu,
    tasks: Tasks,
    outputs: O,
    work: impl Fn(Range<usize>, O::Part) -> LossSum + Sync,
) -> LossSum {
    let mut partial = [LossSum::default(); MAX_TASKS];
    let outputs = (outputs, PerTask::new(&mut partial, 1));
    split_rows(&cpu.pool, tasks, outputs, |rows, (output, partial)| {
        partial[0] = work(rows, output);
    });
    let mut total = LossSum::default();
    for losses in partial {
        total.add(losses);
    }
    total
}

/// Returns lse - logits[target]. lse is passed as its two parts, so that no precision is lost where
/// they differ by orders of magnitude.
fn loss_of(target_logit: f32, (max, log_sum): (f32, f32)) -> LossSum {
    let sum = f64::from(max) - f64::from(target_logit) + f64::from(log_sum);
    LossSum { sum, count: 1 }
}

crate::dispatch! {
    /// Returns the maximum, and the log of the sum of exp(logit - maximum).
    fn log_sum_exp(logits: &[f32]) -> (f32, f32) = log_sum_exp_vectors;
}
crate::dispatch! {
    /// Replaces the logits by their probabilities times `scale`.
    fn scaled_softmax(logits: &mut [f32], lse: f32, scale: f32) = scaled_softmax_vectors;
}
crate::dispatch! {
    /// Replaces each logit by exp(logit - maximum). Returns the maximum and the sum.
    fn replace_by_exp(logits: &mut [f32]) -> (f32, f32) = replace_by_exp_vectors;
}
crate::dispatch! {
    fn multiply(values: &mut [f32], factor: f32) = multiply_vectors;
}
crate::dispatch! {
    /// Writes exp(logit - maximum) of each logit. Returns the maximum and the sum.
    fn exp_of_bf16(exps: &mut [f32], logits: &[u16]) -> (f32, f32) = exp_of_bf16_vectors;
}

#[inline(always)]
fn log_sum_exp_vectors<V: Vector>(logits: &[f32]) -> (f32, f32) {
    let (max, sum) = row_statistics::<V>(logits);
    (max, sum.ln())
}

/// Returns the maximum of a row, and the sum of exp(value - maximum).
#[inline(always)]
pub(crate) fn row_statistics<V: Vector>(row: &[f32]) -> (f32, f32) {
    let full = row.len() / LANES * LANES;
    let max = maximum::<V>(row);
    let shift = V::splat(max);
    let mut lanes = V::splat(0.0);
    for at in (0..full).step_by(LANES) {
        lanes = lanes.add(exp(V::load(&row[at..]).sub(shift)));
    }
    let mut sum = lanes.sum();
    if full < row.len() {
        let mut rest = [0.0; LANES];
        exp(V::load_partial(&row[full..]).sub(shift)).store(&mut rest);
        sum += rest[..row.len() - full].iter().sum::<f32>();
    }
    (max, sum)
}

#[inline(always)]
fn maximum<V: Vector>(row: &[f32]) -> f32 {
    let (vectors, rest) = row.split_at(row.len() / LANES * LANES);
    let mut lanes = V::splat(f32::NEG_INFINITY);
    for vector in vectors.chunks_exact(LANES) {
        lanes = lanes.max(V::load(vector));
    }
    rest.iter().fold(lanes.maximum(), |max, value| max.max(*value))
}

/// Like `row_statistics`, with the same sums.
#[inline(always)]
fn replace_by_exp_vectors<V: Vector>(row: &mut [f32]) -> (f32, f32) {
    let max = maximum::<V>(row);
    let shift = V::splat(max);
    let mut lanes = V::splat(0.0);
    let (vectors, rest) = row.split_at_mut(row.len() / LANES * LANES);
    for vector in vectors.chunks_exact_mut(LANES) {
        let value = exp(V::load(vector).sub(shift));
        value.store(vector);
        lanes = lanes.add(value);
    }
    let mut sum = lanes.sum();
    if !rest.is_empty() {
        exp(V::load_partial(rest).sub(shift)).store_partial(rest);
        sum += rest.iter().sum::<f32>();
    }
    (max, sum)
}

/// Like `replace_by_exp`, with the same sums.
#[inline(always)]
fn exp_of_bf16_vectors<V: Vector>(exps: &mut [f32], logits: &[u16]) -> (f32, f32) {
    assert!(exps.len() == logits.len());
    let full = logits.len() / LANES * LANES;
    let mut lanes = V::splat(f32::NEG_INFINITY);
    for logits in logits[..full].chunks_exact(LANES) {
        lanes = lanes.max(V::load_partial_bf16(logits));
    }
    let max = logits[full..].iter().fold(lanes.maximum(), |max, bits| max.max(widen(*bits)));
    let shift = V::splat(max);
    let mut lanes = V::splat(0.0);
    let (exps, rest) = exps.split_at_mut(full);
    for (exps, logits) in exps.chunks_exact_mut(LANES).zip(logits.chunks_exact(LANES)) {
        let value = exp(V::load_partial_bf16(logits).sub(shift));
        value.store(exps);
        lanes = lanes.add(value);
    }
    let mut sum = lanes.sum();
    if !rest.is_empty() {
        exp(V::load_partial_bf16(&logits[full..]).sub(shift)).store_partial(rest);
        sum += rest.iter().sum::<f32>();
    }
    (max, sum)
}

#[inline(always)]
fn multiply_vectors<V: Vector>(values: &mut [f32], factor: f32) {
    let factor = V::splat(factor);
    for values in values.chunks_mut(LANES) {
        V::load_partial(values).mul(factor).store_partial(values);
    }
}

#[inline(always)]
fn scaled_softmax_vectors<V: Vector>(logits: &mut [f32], lse: f32, scale: f32) {
    let (lse, scale) = (V::splat(lse), V::splat(scale));
    let mut start = 0;
    while start < logits.len() {
        let end = (start + LANES).min(logits.len());
        let probability = exp(V::load_partial(&logits[start..end]).sub(lse));
        probability.mul(scale).store_partial(&mut logits[start..end]);
        start = end;
    }
}
