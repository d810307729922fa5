//! CPU half.

use super::Hyper;
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::simd::{LANES, Vector};

pub(super) fn step(
    cpu: &Cpu,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    hyper: Hyper,
) {
    let tasks = Tasks::of_rows(p.len(), 1);
    let outputs = (RowsMut::new(p, 1), RowsMut::new(m, 1), RowsMut::new(v, 1));
    split_rows(&cpu.pool, tasks, outputs, |range, (p, m, v)| {
        run(cpu.isa, p, &g[range], m, v, hyper);
    });
}

crate::dispatch! { fn run(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], hyper: Hyper) = run_lanes; }

#[inline(always)]
fn run_lanes<V: Vector>(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], hyper: Hyper) {
    let (beta1, beta2) = (V::splat(hyper.beta1 as f32), V::splat(hyper.beta2 as f32));
    let (rest1, rest2) =
        (V::splat((1.0 - hyper.beta1) as f32), V::splat((1.0 - hyper.beta2) as f32));
    let (alpha, eps) = (V::splat(hyper.alpha() as f32), V::splat(hyper.eps as f32));
    let keep = V::splat((1.0 - hyper.lr * hyper.weight_decay) as f32);
    let scale = V::splat(hyper.grad_scale);
    let mut at = 0;
    while at < p.len() {
        let end = (at + LANES).min(p.len());
        let grad = V::load_partial(&g[at..end]).mul(scale);
        let first = V::load_partial(&m[at..end]).mul_add(beta1, grad.mul(rest1));
        let second = V::load_partial(&v[at..end]).mul_add(beta2, grad.mul(grad).mul(rest2));
        let update = alpha.mul(first).div(second.sqrt().add(eps));
        V::load_partial(&p[at..end]).mul(keep).sub(update).store_partial(&mut p[at..end]);
        first.store_partial(&mut m[at..end]);
        second.store_partial(&mut v[at..end]);
        at = end;
    }
}
