//! CPU implementation.

use super::{Hyper, Step};
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::simd::{Vector, for_vectors};

pub(super) fn step(cpu: &Cpu, args: Step) {
    let (p, g) = (args.p.cpu(), args.g.cpu());
    let tasks = Tasks::of_rows(p.len(), 1);
    split_rows(&cpu.pool, tasks, RowsMut::new(p, 1), |range, p| {
        step_run(cpu.isa, p, &g[range], args.hyper);
    });
}

crate::dispatch! { fn step_run(p: &mut [f32], g: &[f32], hyper: Hyper) = step_vectors; }

#[inline(always)]
fn step_vectors<V: Vector>(p: &mut [f32], g: &[f32], hyper: Hyper) {
    let keep = V::splat((1.0 - hyper.rate() * hyper.weight_decay) as f32);
    let rate = V::splat(-hyper.rate() as f32);
    // Not folded into the rate: the result has the same bits as if the gradients were scaled first.
    let scale = V::splat(hyper.grad_scale);
    for_vectors!(at in p.len() => {
        let decayed = V::load_partial(&p[at.clone()]).mul(keep);
        let grad = V::load_partial(&g[at.clone()]).mul(scale);
        grad.mul_add(rate, decayed).store_partial(&mut p[at]);
    });
}
