//! CPU half.

use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::simd::{Vector, for_vectors, sigmoid};

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], x: &[f32]) {
    let tasks = Tasks::of_rows(x.len(), 1);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, 1), |range, out| {
        run_forward(cpu.isa, out, &x[range]);
    });
}

pub(super) fn backward(cpu: &Cpu, dx: &mut [f32], dout: &[f32], x: &[f32]) {
    let tasks = Tasks::of_rows(x.len(), 1);
    split_rows(&cpu.pool, tasks, RowsMut::new(dx, 1), |range, dx| {
        run_backward(cpu.isa, dx, &dout[range.clone()], &x[range]);
    });
}

crate::dispatch! { fn run_forward(out: &mut [f32], x: &[f32]) = forward_lanes; }
crate::dispatch! { fn run_backward(dx: &mut [f32], dout: &[f32], x: &[f32]) = backward_lanes; }

#[inline(always)]
fn forward_lanes<V: Vector>(out: &mut [f32], x: &[f32]) {
    for_vectors!(at in x.len() => {
        let v = V::load_partial(&x[at.clone()]);
        v.mul(sigmoid(v)).store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn backward_lanes<V: Vector>(dx: &mut [f32], dout: &[f32], x: &[f32]) {
    let one = V::splat(1.0);
    for_vectors!(at in x.len() => {
        let v = V::load_partial(&x[at.clone()]);
        let sigma = sigmoid(v);
        let slope = sigma.mul(v.mul_add(one.sub(sigma), one));
        V::load_partial(&dout[at.clone()]).mul(slope).store_partial(&mut dx[at]);
    });
}
