//! CPU implementation.

use crate::cpu::Cpu;
use crate::ops::{MAX_TASKS, PerTask, RowsMut, Tasks, split_rows};
use crate::simd::{Vector, for_vectors};

/// Number of squares summed in f32 before the sum continues in f64.
const RUN: usize = 1024;

pub(super) fn sum_of_squares(cpu: &Cpu, g: &[f32]) -> f64 {
    let tasks = Tasks::of_rows(g.len(), 1);
    let mut sums = [0.0f64; MAX_TASKS];
    split_rows(&cpu.pool, tasks, PerTask::new(&mut sums, 1), |range, sum| {
        let runs = g[range].chunks(RUN);
        sum[0] = runs.map(|run| f64::from(run_of_squares(cpu.isa, run))).sum();
    });
    sums.iter().sum()
}

pub(super) fn scale(cpu: &Cpu, g: &mut [f32], factor: f32) {
    let tasks = Tasks::of_rows(g.len(), 1);
    split_rows(&cpu.pool, tasks, RowsMut::new(g, 1), |_, g| scale_run(cpu.isa, g, factor));
}

crate::dispatch! { fn run_of_squares(g: &[f32]) -> f32 = run_of_squares_vectors; }
crate::dispatch! { fn scale_run(g: &mut [f32], factor: f32) = scale_run_vectors; }

#[inline(always)]
fn run_of_squares_vectors<V: Vector>(g: &[f32]) -> f32 {
    let mut sum = V::splat(0.0);
    for_vectors!(at in g.len() => {
        let v = V::load_partial(&g[at]);
        sum = v.mul_add(v, sum);
    });
    sum.sum()
}

#[inline(always)]
fn scale_run_vectors<V: Vector>(g: &mut [f32], factor: f32) {
    let factor = V::splat(factor);
    for_vectors!(at in g.len() => {
        V::load_partial(&g[at.clone()]).mul(factor).store_partial(&mut g[at]);
    });
}
