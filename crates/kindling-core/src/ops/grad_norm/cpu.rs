//! CPU half.

use crate::cpu::Cpu;
use crate::ops::{Disjoint, MOST_PIECES, Pieces};
use crate::simd::{LANES, Vector};

/// Elements whose squares are added in f32 lanes before the sum goes on in f64.
const RUN: usize = 1024;

pub(super) fn sum_of_squares(cpu: &Cpu, g: &[f32]) -> f64 {
    let pieces = Pieces::of_rows(g.len(), 1);
    let mut sums = [0.0f64; MOST_PIECES];
    let parts = Disjoint::new(&mut sums);
    cpu.pool.run(pieces.count, |piece| {
        let runs = g[pieces.range(piece)].chunks(RUN);
        let sum = runs.map(|run| f64::from(run_of_squares(cpu.isa, run))).sum();
        // SAFETY: each piece has its own sum.
        unsafe { parts.set(piece, sum) };
    });
    sums.iter().sum()
}

pub(super) fn scale(cpu: &Cpu, g: &mut [f32], factor: f32) {
    let pieces = Pieces::of_rows(g.len(), 1);
    let g = Disjoint::new(g);
    cpu.pool.run(pieces.count, |piece| {
        // SAFETY: pieces write disjoint ranges.
        scale_run(cpu.isa, unsafe { g.part(pieces.range(piece)) }, factor);
    });
}

crate::dispatch! { fn run_of_squares(g: &[f32]) -> f32 = run_of_squares_lanes; }
crate::dispatch! { fn scale_run(g: &mut [f32], factor: f32) = scale_run_lanes; }

#[inline(always)]
fn run_of_squares_lanes<V: Vector>(g: &[f32]) -> f32 {
    let mut sum = V::splat(0.0);
    let mut at = 0;
    while at < g.len() {
        let end = (at + LANES).min(g.len());
        let v = V::load_partial(&g[at..end]);
        sum = v.mul_add(v, sum);
        at = end;
    }
    sum.sum()
}

#[inline(always)]
fn scale_run_lanes<V: Vector>(g: &mut [f32], factor: f32) {
    let factor = V::splat(factor);
    let mut at = 0;
    while at < g.len() {
        let end = (at + LANES).min(g.len());
        V::load_partial(&g[at..end]).mul(factor).store_partial(&mut g[at..end]);
        at = end;
    }
}
