//! CPU half: two passes over a row that is in cache, one for the maximum and one for the sum of
//! exponentials.

use std::ops::Range;

use super::{Backward, Forward, ForwardBackward, LossSum};
use crate::cpu::Cpu;
use crate::ops::{IGNORED_TARGET, MAX_TASKS, Outputs, PerTask, RowsMut, Tasks, split_rows};
use crate::simd::{LANES, Vector, exp};

pub(super) fn forward(cpu: &Cpu, args: Forward) -> LossSum {
    let Forward { lse, logits, targets, shape: s } = args;
    let logits = logits.cpu();
    let tasks = Tasks::of_rows(s.rows, s.vocab_size);
    sum_losses(cpu, tasks, RowsMut::new(lse.cpu(), 1), |rows, lse| {
        let mut total = LossSum::default();
        for (row, lse) in rows.zip(lse) {
            let logits = &logits[row * s.vocab_size..(row + 1) * s.vocab_size];
            let row_lse = log_sum_exp(cpu.isa, logits);
            *lse = row_lse.0 + row_lse.1;
            add_loss(&mut total, logits, row_lse, targets[row]);
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
            dlogits.copy_from_slice(&logits[row * s.vocab_size..(row + 1) * s.vocab_size]);
            replace_by_gradient(cpu, dlogits, lse[row], targets[row], scale);
        }
    });
}

pub(super) fn forward_backward(cpu: &Cpu, args: ForwardBackward) -> LossSum {
    let ForwardBackward { logits, targets, scale, shape: s } = args;
    let tasks = Tasks::of_rows(s.rows, s.vocab_size);
    sum_losses(cpu, tasks, RowsMut::new(logits.cpu(), s.vocab_size), |rows, logits| {
        let mut total = LossSum::default();
        for (row, logits) in rows.zip(logits.chunks_exact_mut(s.vocab_size.max(1))) {
            let row_lse = log_sum_exp(cpu.isa, logits);
            add_loss(&mut total, logits, row_lse, targets[row]);
            replace_by_gradient(cpu, logits, row_lse.0 + row_lse.1, targets[row], scale);
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

/// Adds lse - logits[target] to `total`, unless the row is ignored. lse comes in its two parts, so
/// that nothing is lost if they differ by much.
fn add_loss(total: &mut LossSum, logits: &[f32], (max, log_sum): (f32, f32), target: i32) {
    if target != IGNORED_TARGET {
        let loss = f64::from(max) - f64::from(logits[target as usize]) + f64::from(log_sum);
        total.add(LossSum { sum: loss, count: 1 });
    }
}

fn replace_by_gradient(cpu: &Cpu, logits: &mut [f32], lse: f32, target: i32, scale: f32) {
    if target == IGNORED_TARGET {
        logits.fill(0.0);
    } else {
        scaled_softmax(cpu.isa, logits, lse, scale);
        logits[target as usize] -= scale;
    }
}

crate::dispatch! {
    /// Returns the maximum, and the log of the sum of exp(logit - maximum).
    fn log_sum_exp(logits: &[f32]) -> (f32, f32) = log_sum_exp_vectors;
}
crate::dispatch! {
    /// Replaces the logits by their probabilities times `scale`.
    fn scaled_softmax(logits: &mut [f32], lse: f32, scale: f32) = scaled_softmax_vectors;
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
    let mut max = f32::NEG_INFINITY;
    if full > 0 {
        let mut lanes = V::load(row);
        for at in (LANES..full).step_by(LANES) {
            lanes = lanes.max(V::load(&row[at..]));
        }
        max = lanes.maximum();
    }
    for value in &row[full..] {
        max = max.max(*value);
    }
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
