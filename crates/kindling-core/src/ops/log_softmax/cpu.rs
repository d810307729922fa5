//! CPU implementation, one row at a time.

use super::{Backward, Forward};
use crate::cpu::Cpu;
use crate::ops::cross_entropy::row_statistics;
use crate::ops::softmax::cpu::for_each_row;
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

crate::dispatch! { fn forward_row(out: &mut [f32], x: &[f32]) = forward_row_vectors; }
crate::dispatch! {
    fn backward_row(dx: &mut [f32], dout: &[f32], out: &[f32]) = backward_row_vectors;
}

#[inline(always)]
fn forward_row_vectors<V: Vector>(out: &mut [f32], x: &[f32]) {
    let (largest, sum) = row_statistics::<V>(x);
    let (largest, log) = (V::splat(largest), V::splat(sum.ln()));
    for_vectors!(at in x.len() => {
        V::load_partial(&x[at.clone()]).sub(largest).sub(log).store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn backward_row_vectors<V: Vector>(dx: &mut [f32], dout: &[f32], out: &[f32]) {
    let mut sum = V::splat(0.0);
    for_vectors!(at in out.len() => {
        sum = sum.add(V::load_partial(&dout[at]));
    });
    let sum = V::splat(-sum.sum());
    for_vectors!(at in out.len() => {
        let probability = exp(V::load_partial(&out[at.clone()]));
        probability.mul_add(sum, V::load_partial(&dout[at.clone()])).store_partial(&mut dx[at]);
    });
}
