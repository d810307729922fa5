//! CPU half.

use super::Hyper;
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::simd::{LANES, Vector};

pub(super) fn step(cpu: &Cpu, p: &mut [f32], g: &[f32], hyper: Hyper) {
    let tasks = Tasks::of_rows(p.len(), 1);
    split_rows(&cpu.pool, tasks, RowsMut::new(p, 1), |range, p| run(cpu.isa, p, &g[range], hyper));
}

crate::dispatch! { fn run(p: &mut [f32], g: &[f32], hyper: Hyper) = run_lanes; }

#[inline(always)]
fn run_lanes<V: Vector>(p: &mut [f32], g: &[f32], hyper: Hyper) {
    let keep = V::splat((1.0 - hyper.rate() * hyper.weight_decay) as f32);
    let rate = V::splat(-(hyper.rate() * f64::from(hyper.grad_scale)) as f32);
    let mut at = 0;
    while at < p.len() {
        let end = (at + LANES).min(p.len());
        let decayed = V::load_partial(&p[at..end]).mul(keep);
        V::load_partial(&g[at..end]).mul_add(rate, decayed).store_partial(&mut p[at..end]);
        at = end;
    }
}
