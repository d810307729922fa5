//! CPU half.

use super::Shape;
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows, with_dirty_scratch};
use crate::simd::bf16::{round_all, widen_all};
use crate::simd::{Vector, for_vectors, sigmoid};

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], gate_up: &[f32], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, s.width), |rows, out| {
        rows_forward(
            cpu.isa,
            out,
            &gate_up[2 * rows.start * s.width..2 * rows.end * s.width],
            s.width,
        );
    });
}

/// As `forward` for bf16: a row at a time as f32, in L1.
pub(super) fn forward_bf16(cpu: &Cpu, out: &mut [u16], gate_up: &[u16], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, s.width), |rows, out| {
        let gate_up = &gate_up[2 * rows.start * s.width..2 * rows.end * s.width];
        with_dirty_scratch(3 * s.width, |row| {
            let (both, result) = row.split_at_mut(2 * s.width);
            for (out, gate_up) in
                out.chunks_exact_mut(s.width).zip(gate_up.chunks_exact(2 * s.width))
            {
                widen_all(both, gate_up);
                rows_forward(cpu.isa, result, both, s.width);
                round_all(out, result);
            }
        });
    });
}

/// As `backward_in_place` for bf16.
pub(super) fn backward_in_place_bf16(cpu: &Cpu, gate_up: &mut [u16], out: &mut [u16], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    let outputs = (RowsMut::new(gate_up, 2 * s.width), RowsMut::new(out, s.width));
    split_rows(&cpu.pool, tasks, outputs, |_, (gate_up, out)| {
        with_dirty_scratch(3 * s.width, |row| {
            let (both, result) = row.split_at_mut(2 * s.width);
            for (out, gate_up) in
                out.chunks_exact_mut(s.width).zip(gate_up.chunks_exact_mut(2 * s.width))
            {
                widen_all(both, gate_up);
                widen_all(result, out);
                rows_backward(cpu.isa, both, result, s.width);
                round_all(gate_up, both);
                round_all(out, result);
            }
        });
    });
}

/// `gate_up` becomes its gradient; `out`, which comes with dout, the output.
pub(super) fn backward_in_place(cpu: &Cpu, gate_up: &mut [f32], out: &mut [f32], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    let outputs = (RowsMut::new(gate_up, 2 * s.width), RowsMut::new(out, s.width));
    split_rows(&cpu.pool, tasks, outputs, |_, (gate_up, out)| {
        rows_backward(cpu.isa, gate_up, out, s.width);
    });
}

crate::dispatch! { fn rows_forward(out: &mut [f32], gate_up: &[f32], width: usize) = rows_forward_lanes; }
crate::dispatch! { fn rows_backward(gate_up: &mut [f32], out: &mut [f32], width: usize) = rows_backward_lanes; }

#[inline(always)]
fn rows_forward_lanes<V: Vector>(out: &mut [f32], gate_up: &[f32], width: usize) {
    for (out, row) in out.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
        let (gate, up) = row.split_at(width);
        for_vectors!(at in width => {
            let g = V::load_partial(&gate[at.clone()]);
            g.mul(sigmoid(g)).mul(V::load_partial(&up[at.clone()])).store_partial(&mut out[at]);
        });
    }
}

#[inline(always)]
fn rows_backward_lanes<V: Vector>(gate_up: &mut [f32], out: &mut [f32], width: usize) {
    let one = V::splat(1.0);
    for (both, out) in gate_up.chunks_exact_mut(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = both.split_at_mut(width);
        for_vectors!(at in width => {
            let g = V::load_partial(&gate[at.clone()]);
            let u = V::load_partial(&up[at.clone()]);
            let d = V::load_partial(&out[at.clone()]);
            let sigma = sigmoid(g);
            let silu = g.mul(sigma);
            let slope = sigma.mul(g.mul_add(one.sub(sigma), one));
            silu.mul(u).store_partial(&mut out[at.clone()]);
            d.mul(silu).store_partial(&mut up[at.clone()]);
            d.mul(u).mul(slope).store_partial(&mut gate[at]);
        });
    }
}
