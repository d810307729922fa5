//! CPU half: two passes over a row that is in cache, largest score then sum of exponentials.

use super::{LossSum, Shape};
use crate::cpu::Cpu;
use crate::ops::{Disjoint, IGNORED_TARGET, MOST_PIECES, Pieces};
use crate::simd::{LANES, Vector, exp};

pub(super) fn forward(
    cpu: &Cpu,
    lse: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    s: Shape,
) -> LossSum {
    let lse = Disjoint::new(lse);
    add_up(cpu, s, |row| {
        let scores = &logits[row * s.vocab_size..(row + 1) * s.vocab_size];
        let row_lse = log_sum_exp(cpu.isa, scores);
        // SAFETY: each row is visited once.
        unsafe { lse.set(row, row_lse.0 + row_lse.1) }
        loss_of(scores, row_lse, targets[row])
    })
}

pub(super) fn backward(
    cpu: &Cpu,
    dlogits: &mut [f32],
    logits: &[f32],
    lse: &[f32],
    targets: &[i32],
    s: Shape,
    scale: f32,
) {
    let dlogits = Disjoint::new(dlogits);
    add_up(cpu, s, |row| {
        let range = row * s.vocab_size..(row + 1) * s.vocab_size;
        // SAFETY: each row is visited once.
        let out = unsafe { dlogits.part(range.clone()) };
        out.copy_from_slice(&logits[range]);
        replace_by_gradient(cpu, out, lse[row], targets[row], scale);
        None
    });
}

pub(super) fn forward_backward(
    cpu: &Cpu,
    logits: &mut [f32],
    targets: &[i32],
    s: Shape,
    scale: f32,
) -> LossSum {
    let logits = Disjoint::new(logits);
    add_up(cpu, s, |row| {
        // SAFETY: each row is visited once.
        let scores = unsafe { logits.part(row * s.vocab_size..(row + 1) * s.vocab_size) };
        let row_lse = log_sum_exp(cpu.isa, scores);
        let loss = loss_of(scores, row_lse, targets[row]);
        replace_by_gradient(cpu, scores, row_lse.0 + row_lse.1, targets[row], scale);
        loss
    })
}

/// Visits every row once and adds the losses up in an order that sizes alone decide.
fn add_up(cpu: &Cpu, s: Shape, loss: impl Fn(usize) -> Option<f64> + Sync) -> LossSum {
    let pieces = Pieces::of_rows(s.rows, s.vocab_size);
    let mut partial = [LossSum::default(); MOST_PIECES];
    let parts = Disjoint::new(&mut partial);
    cpu.pool.run(pieces.count, |piece| {
        let mut total = LossSum::default();
        for loss in pieces.range(piece).filter_map(&loss) {
            total.add(LossSum { sum: loss, count: 1 });
        }
        // SAFETY: each piece has its own sum.
        unsafe { parts.set(piece, total) }
    });
    let mut total = LossSum::default();
    for part in partial {
        total.add(part);
    }
    total
}

/// lse - score, from the two parts of lse so that nothing is lost where they differ by much.
fn loss_of(scores: &[f32], (largest, log_sum): (f32, f32), target: i32) -> Option<f64> {
    (target != IGNORED_TARGET)
        .then(|| f64::from(largest) - f64::from(scores[target as usize]) + f64::from(log_sum))
}

fn replace_by_gradient(cpu: &Cpu, scores: &mut [f32], lse: f32, target: i32, scale: f32) {
    if target == IGNORED_TARGET {
        scores.fill(0.0);
    } else {
        scaled_softmax(cpu.isa, scores, lse, scale);
        scores[target as usize] -= scale;
    }
}

crate::dispatch! {
    /// Largest score, and log of the sum of exponentials above it.
    fn log_sum_exp(scores: &[f32]) -> (f32, f32) = log_sum_exp_lanes;
}
crate::dispatch! { fn scaled_softmax(scores: &mut [f32], lse: f32, scale: f32) = scaled_softmax_lanes; }

#[inline(always)]
fn log_sum_exp_lanes<V: Vector>(scores: &[f32]) -> (f32, f32) {
    let (largest, sum) = row_statistics::<V>(scores);
    (largest, sum.ln())
}

/// Largest value of a row, and the sum of exp(value - largest).
#[inline(always)]
pub(crate) fn row_statistics<V: Vector>(row: &[f32]) -> (f32, f32) {
    let full = row.len() / LANES * LANES;
    let mut largest = f32::NEG_INFINITY;
    if full > 0 {
        let mut lanes = V::load(row);
        for at in (LANES..full).step_by(LANES) {
            lanes = lanes.max(V::load(&row[at..]));
        }
        largest = lanes.maximum();
    }
    for value in &row[full..] {
        largest = largest.max(*value);
    }
    let shift = V::splat(largest);
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
    (largest, sum)
}

#[inline(always)]
fn scaled_softmax_lanes<V: Vector>(scores: &mut [f32], lse: f32, scale: f32) {
    let (lse, scale) = (V::splat(lse), V::splat(scale));
    let mut at = 0;
    while at < scores.len() {
        let end = (at + LANES).min(scores.len());
        let probability = exp(V::load_partial(&scores[at..end]).sub(lse));
        probability.mul(scale).store_partial(&mut scores[at..end]);
        at = end;
    }
}
