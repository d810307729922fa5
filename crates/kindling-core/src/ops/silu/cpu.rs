//! CPU implementation.

use super::{Backward, Forward};
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::simd::{Vector, for_vectors, sigmoid};

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let x = args.x.cpu();
    let tasks = Tasks::of_rows(x.len(), 1);
    split_rows(&cpu.pool, tasks, RowsMut::new(args.out.cpu(), 1), |range, out| {
        forward_run(cpu.isa, out, &x[range]);
    });
}

pub(super) fn backward(cpu: &Cpu, args: Backward) {
    let (dout, x) = (args.dout.cpu(), args.x.cpu());
    let tasks = Tasks::of_rows(x.len(), 1);
    split_rows(&cpu.pool, tasks, RowsMut::new(args.dx.cpu(), 1), |range, dx| {
        backward_run(cpu.isa, dx, &dout[range.clone()], &x[range]);
    });
}

crate::dispatch! { fn forward_run(out: &mut [f32], x: &[f32]) = forward_vectors; }
crate::dispatch! { fn backward_run(dx: &mut [f32], dout: &[f32], x: &[f32]) = backward_vectors; }

#[inline(always)]
fn forward_vectors<V: Vector>(out: &mut [f32], x: &[f32]) {
    for_vectors!(at in x.len() => {
        let v = V::load_partial(&x[at.clone()]);
        v.mul(sigmoid(v)).store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn backward_vectors<V: Vector>(dx: &mut [f32], dout: &[f32], x: &[f32]) {
    let one = V::splat(1.0);
    for_vectors!(at in x.len() => {
        let v = V::load_partial(&x[at.clone()]);
        let sigma = sigmoid(v);
        let slope = sigma.mul(v.mul_add(one.sub(sigma), one));
        V::load_partial(&dout[at.clone()]).mul(slope).store_partial(&mut dx[at]);
    });
}
