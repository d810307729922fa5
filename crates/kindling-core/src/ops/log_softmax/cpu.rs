//! CPU half: a row at a time.

use super::Shape;
use crate::cpu::Cpu;
use crate::ops::cross_entropy::row_statistics;
use crate::ops::for_each_row;
use crate::simd::{LANES, Vector, exp};

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], x: &[f32], s: Shape) {
    for_each_row(&cpu.pool, out, s.columns, |out, row| row_forward(cpu.isa, out, &x[row]));
}

pub(super) fn backward(cpu: &Cpu, dx: &mut [f32], dout: &[f32], out: &[f32], s: Shape) {
    for_each_row(&cpu.pool, dx, s.columns, |dx, row| {
        row_backward(cpu.isa, dx, &dout[row.clone()], &out[row])
    });
}

crate::dispatch! { fn row_forward(out: &mut [f32], x: &[f32]) = row_forward_lanes; }
crate::dispatch! { fn row_backward(dx: &mut [f32], dout: &[f32], out: &[f32]) = row_backward_lanes; }

#[inline(always)]
fn row_forward_lanes<V: Vector>(out: &mut [f32], x: &[f32]) {
    let (largest, sum) = row_statistics::<V>(x);
    let (largest, log) = (V::splat(largest), V::splat(sum.ln()));
    let mut at = 0;
    while at < x.len() {
        let end = (at + LANES).min(x.len());
        V::load_partial(&x[at..end]).sub(largest).sub(log).store_partial(&mut out[at..end]);
        at = end;
    }
}

#[inline(always)]
fn row_backward_lanes<V: Vector>(dx: &mut [f32], dout: &[f32], out: &[f32]) {
    let mut sum = V::splat(0.0);
    let mut at = 0;
    while at < out.len() {
        let end = (at + LANES).min(out.len());
        sum = sum.add(V::load_partial(&dout[at..end]));
        at = end;
    }
    let sum = V::splat(-sum.sum());
    let mut at = 0;
    while at < out.len() {
        let end = (at + LANES).min(out.len());
        let probability = exp(V::load_partial(&out[at..end]));
        probability.mul_add(sum, V::load_partial(&dout[at..end])).store_partial(&mut dx[at..end]);
        at = end;
    }
}
