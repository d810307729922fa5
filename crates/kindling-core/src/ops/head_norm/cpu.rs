//! CPU implementation: two passes over each head, the second while it is in L1.

use super::{Backward, Forward, Shape};
use crate::cpu::Cpu;
use crate::ops::{PerTask, RowsMut, Tasks, split_rows, with_scratch};
use crate::simd::{Vector, for_vectors};

/// Maximum number of tasks in the backward pass, each of which has its own partial dweight.
const MAX_BACKWARD_TASKS: usize = 16;

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let s = args.shape;
    let weight = args.weight.cpu();
    let tasks = Tasks::of_rows(s.rows, s.normed_width());
    let x = RowsMut::new(args.x.cpu(), s.row_width);
    let Some(saved) = args.saved else {
        return split_rows(&cpu.pool, tasks, x, |_, x| norm_rows(cpu.isa, x, weight, s));
    };
    let outputs = (x, RowsMut::new(saved.cpu(), s.normed_width()));
    split_rows(&cpu.pool, tasks, outputs, |_, (x, saved)| {
        let rows = x.chunks_exact(s.row_width).zip(saved.chunks_exact_mut(s.normed_width()));
        rows.for_each(|(x, saved)| saved.copy_from_slice(&x[..saved.len()]));
        norm_rows(cpu.isa, x, weight, s);
    });
}

pub(super) fn backward(cpu: &Cpu, args: Backward) {
    let s = args.shape;
    let (saved, weight, dweight) = (args.saved.cpu(), args.weight.cpu(), args.dweight.cpu());
    let width = s.normed_width();
    let tasks = Tasks::at_most(s.rows, (8 * 1024usize).div_ceil(width), MAX_BACKWARD_TASKS);
    let dx = args.dx.cpu();
    with_scratch(tasks.count * weight.len(), |partial| {
        let outputs = (RowsMut::new(dx, s.row_width), PerTask::new(&mut *partial, weight.len()));
        split_rows(&cpu.pool, tasks, outputs, |rows, (dx, dweight)| {
            let saved = &saved[rows.start * width..rows.end * width];
            backward_rows(cpu.isa, dx, dweight, saved, weight, s);
        });
        for partial in partial.chunks_exact(weight.len()) {
            dweight.iter_mut().zip(partial).for_each(|(w, p)| *w += p);
        }
    });
}

crate::dispatch! { fn norm_rows(x: &mut [f32], weight: &[f32], s: Shape) = norm_vectors; }
crate::dispatch! {
    /// Overwrites dx, and adds to dweight.
    fn backward_rows(
        dx: &mut [f32],
        dweight: &mut [f32],
        saved: &[f32],
        weight: &[f32],
        s: Shape,
    ) = backward_vectors;
}

#[inline(always)]
fn norm_vectors<V: Vector>(x: &mut [f32], weight: &[f32], s: Shape) {
    for row in x.chunks_exact_mut(s.row_width) {
        for (index, head) in row[..s.normed_width()].chunks_exact_mut(s.head_size).enumerate() {
            let scale = V::splat(rstd::<V>(head, s));
            let gain = &weight[gain_of(index, s)..][..s.head_size];
            for_vectors!(at in s.head_size => {
                let v = V::load_partial(&head[at.clone()]).mul(scale);
                v.mul(V::load_partial(&gain[at.clone()])).store_partial(&mut head[at]);
            });
        }
    }
}

#[inline(always)]
fn backward_vectors<V: Vector>(
    dx: &mut [f32],
    dweight: &mut [f32],
    saved: &[f32],
    weight: &[f32],
    s: Shape,
) {
    let rows = dx.chunks_exact_mut(s.row_width).zip(saved.chunks_exact(s.normed_width()));
    for (dx, saved) in rows {
        let heads = dx.chunks_exact_mut(s.head_size).zip(saved.chunks_exact(s.head_size));
        for (index, (dx, x)) in heads.enumerate() {
            let gain = gain_of(index, s);
            let dgain = &mut dweight[gain..gain + s.head_size];
            backward_head::<V>(dx, dgain, x, &weight[gain..gain + s.head_size], s);
        }
    }
}

#[inline(always)]
fn backward_head<V: Vector>(dx: &mut [f32], dgain: &mut [f32], x: &[f32], gain: &[f32], s: Shape) {
    let rstd = rstd::<V>(x, s);
    let (scale, mut dot) = (V::splat(rstd), V::splat(0.0));
    for_vectors!(at in s.head_size => {
        let (d, v) = (V::load_partial(&dx[at.clone()]), V::load_partial(&x[at.clone()]));
        dot = d.mul(V::load_partial(&gain[at.clone()])).mul_add(v, dot);
        let sum = d.mul(v).mul_add(scale, V::load_partial(&dgain[at.clone()]));
        sum.store_partial(&mut dgain[at]);
    });
    let correction = V::splat(-rstd * rstd * rstd * dot.sum() / s.head_size as f32);
    for_vectors!(at in s.head_size => {
        let d = V::load_partial(&dx[at.clone()]).mul(V::load_partial(&gain[at.clone()]));
        let v = V::load_partial(&x[at.clone()]);
        v.mul_add(correction, d.mul(scale)).store_partial(&mut dx[at]);
    });
}

#[inline(always)]
fn rstd<V: Vector>(head: &[f32], s: Shape) -> f32 {
    let mut squares = V::splat(0.0);
    for_vectors!(at in s.head_size => {
        let v = V::load_partial(&head[at]);
        squares = v.mul_add(v, squares);
    });
    1.0 / (squares.sum() / s.head_size as f32 + s.eps).sqrt()
}

/// Returns the index in weight where a head's gain starts.
fn gain_of(index: usize, s: Shape) -> usize {
    if index < s.q_heads { 0 } else { s.head_size }
}
