//! CPU implementation, one row at a time.

use std::ops::Range;

use super::{Backward, Forward};
use crate::cpu::Cpu;
use crate::ops::cross_entropy::row_statistics;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::pool::Pool;
use crate::simd::{Vector, exp, for_vectors};

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let x = args.x.cpu();
    for_each_row(&cpu.pool, args.out.cpu(), args.shape.columns, |out, range| {
        forward_row(cpu.isa, out, &x[range]);
    });
}

pub(super) fn backward(cpu: &Cpu, args: Backward) {
    let (dout, out) = (args.dout.cpu(), args.out.cpu());
    for_each_row(&cpu.pool, args.dx.cpu(), args.shape.columns, |dx, range| {
        backward_row(cpu.isa, dx, &dout[range.clone()], &out[range]);
    });
}

/// Runs `work(row, range)` for each row of `out`, where `range` holds the row's indices in `out`.
pub(in crate::ops) fn for_each_row(
    pool: &Pool,
    out: &mut [f32],
    width: usize,
    work: impl Fn(&mut [f32], Range<usize>) + Sync,
) {
    let width = width.max(1);
    let tasks = Tasks::of_rows(out.len() / width, width);
    split_rows(pool, tasks, RowsMut::new(out, width), |rows, out| {
        for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
            work(out, row * width..(row + 1) * width);
        }
    });
}

crate::dispatch! { fn forward_row(out: &mut [f32], x: &[f32]) = forward_row_vectors; }
crate::dispatch! {
    fn backward_row(dx: &mut [f32], dout: &[f32], out: &[f32]) = backward_row_vectors;
}

#[inline(always)]
fn forward_row_vectors<V: Vector>(out: &mut [f32], x: &[f32]) {
    let (largest, sum) = row_statistics::<V>(x);
    let (largest, scale) = (V::splat(largest), V::splat(1.0 / sum));
    for_vectors!(at in x.len() => {
        exp(V::load_partial(&x[at.clone()]).sub(largest)).mul(scale).store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn backward_row_vectors<V: Vector>(dx: &mut [f32], dout: &[f32], out: &[f32]) {
    let mut dot = V::splat(0.0);
    for_vectors!(at in out.len() => {
        dot = V::load_partial(&dout[at.clone()]).mul_add(V::load_partial(&out[at]), dot);
    });
    let dot = V::splat(dot.sum());
    for_vectors!(at in out.len() => {
        let d = V::load_partial(&dout[at.clone()]).sub(dot);
        d.mul(V::load_partial(&out[at.clone()])).store_partial(&mut dx[at]);
    });
}
