//! CPU implementation.

use super::{Hyper, Step};
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::simd::{Vector, for_vectors};

pub(super) fn step(cpu: &Cpu, args: Step) {
    let (p, m, v, g) = (args.p.cpu(), args.m.cpu(), args.v.cpu(), args.g.cpu());
    let tasks = Tasks::of_rows(p.len(), 1);
    let outputs = (RowsMut::new(p, 1), RowsMut::new(m, 1), RowsMut::new(v, 1));
    split_rows(&cpu.pool, tasks, outputs, |range, (p, m, v)| {
        step_run(cpu.isa, p, m, v, &g[range], args.hyper);
    });
}

crate::dispatch! {
    fn step_run(
        p: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        g: &[f32],
        hyper: Hyper,
    ) = step_vectors;
}

#[inline(always)]
fn step_vectors<V: Vector>(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], hyper: Hyper) {
    let (beta1, beta2) = (V::splat(hyper.beta1 as f32), V::splat(hyper.beta2 as f32));
    let (rest1, rest2) =
        (V::splat((1.0 - hyper.beta1) as f32), V::splat((1.0 - hyper.beta2) as f32));
    let (alpha, eps) = (V::splat(hyper.alpha() as f32), V::splat(hyper.eps as f32));
    let keep = V::splat((1.0 - hyper.lr * hyper.weight_decay) as f32);
    let scale = V::splat(hyper.grad_scale);
    for_vectors!(at in p.len() => {
        let grad = V::load_partial(&g[at.clone()]).mul(scale);
        let first = V::load_partial(&m[at.clone()]).mul_add(beta1, grad.mul(rest1));
        let second = V::load_partial(&v[at.clone()]).mul_add(beta2, grad.mul(grad).mul(rest2));
        let update = alpha.mul(first).div(second.sqrt().add(eps));
        let decayed = V::load_partial(&p[at.clone()]).mul(keep);
        decayed.sub(update).store_partial(&mut p[at.clone()]);
        first.store_partial(&mut m[at.clone()]);
        second.store_partial(&mut v[at]);
    });
}
