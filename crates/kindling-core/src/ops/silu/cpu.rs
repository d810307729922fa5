//! CPU half.

use crate::cpu::Cpu;
use crate::ops::{Disjoint, Pieces};
use crate::simd::{Vector, for_vectors, sigmoid};

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], x: &[f32]) {
    let pieces = Pieces::of_rows(x.len(), 1);
    let out = Disjoint::new(out);
    cpu.pool.run(pieces.count, |piece| {
        let range = pieces.range(piece);
        // SAFETY: pieces write disjoint ranges.
        run_forward(cpu.isa, unsafe { out.part(range.clone()) }, &x[range]);
    });
}

pub(super) fn backward(cpu: &Cpu, dx: &mut [f32], dout: &[f32], x: &[f32]) {
    let pieces = Pieces::of_rows(x.len(), 1);
    let dx = Disjoint::new(dx);
    cpu.pool.run(pieces.count, |piece| {
        let range = pieces.range(piece);
        // SAFETY: pieces write disjoint ranges.
        run_backward(cpu.isa, unsafe { dx.part(range.clone()) }, &dout[range.clone()], &x[range]);
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
