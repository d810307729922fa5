//! CPU implementation.

use super::{Backward, BackwardInPlace, Forward, Shape};
use crate::buffer::{In, Out};
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows, with_dirty_scratch};
use crate::simd::bf16::{round_all, widen_all};
use crate::simd::{Vector, for_vectors, sigmoid};

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    match (args.out, args.gate_up) {
        (Out::CpuBf16(out), In::CpuBf16(gate_up)) => forward_bf16(cpu, out, gate_up, args.shape),
        (out, gate_up) => forward_f32(cpu, out.cpu(), gate_up.cpu(), args.shape),
    }
}

pub(super) fn backward(cpu: &Cpu, args: Backward) {
    let (dgate_up, dout) = (args.dgate_up.cpu(), args.dout.cpu());
    dgate_up.copy_from_slice(args.gate_up.cpu());
    with_dirty_scratch(dout.len(), |out| {
        out.copy_from_slice(dout);
        backward_f32(cpu, dgate_up, out, args.shape);
    });
}

pub(super) fn backward_in_place(cpu: &Cpu, args: BackwardInPlace) {
    match (args.gate_up, args.out) {
        (Out::CpuBf16(gate_up), Out::CpuBf16(out)) => backward_bf16(cpu, gate_up, out, args.shape),
        (gate_up, out) => backward_f32(cpu, gate_up.cpu(), out.cpu(), args.shape),
    }
}

fn forward_f32(cpu: &Cpu, out: &mut [f32], gate_up: &[f32], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, s.width), |rows, out| {
        let gate_up = &gate_up[2 * rows.start * s.width..2 * rows.end * s.width];
        forward_rows(cpu.isa, out, gate_up, s.width);
    });
}

/// Widens one row at a time to f32, in L1.
fn forward_bf16(cpu: &Cpu, out: &mut [u16], gate_up: &[u16], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, s.width), |rows, out| {
        let gate_up = &gate_up[2 * rows.start * s.width..2 * rows.end * s.width];
        with_dirty_scratch(3 * s.width, |scratch| {
            let (gate_up_f32, out_f32) = scratch.split_at_mut(2 * s.width);
            for (out, gate_up) in
                out.chunks_exact_mut(s.width).zip(gate_up.chunks_exact(2 * s.width))
            {
                widen_all(gate_up_f32, gate_up);
                forward_rows(cpu.isa, out_f32, gate_up_f32, s.width);
                round_all(out, out_f32);
            }
        });
    });
}

/// Replaces `gate_up` by its gradient, and `out`, which holds dout, by the output.
fn backward_f32(cpu: &Cpu, gate_up: &mut [f32], out: &mut [f32], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    let outputs = (RowsMut::new(gate_up, 2 * s.width), RowsMut::new(out, s.width));
    split_rows(&cpu.pool, tasks, outputs, |_, (gate_up, out)| {
        backward_rows(cpu.isa, gate_up, out, s.width);
    });
}

/// Like `backward_f32`; widens one row at a time to f32, in L1.
fn backward_bf16(cpu: &Cpu, gate_up: &mut [u16], out: &mut [u16], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    let outputs = (RowsMut::new(gate_up, 2 * s.width), RowsMut::new(out, s.width));
    split_rows(&cpu.pool, tasks, outputs, |_, (gate_up, out)| {
        with_dirty_scratch(3 * s.width, |scratch| {
            let (gate_up_f32, out_f32) = scratch.split_at_mut(2 * s.width);
            for (out, gate_up) in
                out.chunks_exact_mut(s.width).zip(gate_up.chunks_exact_mut(2 * s.width))
            {
                widen_all(gate_up_f32, gate_up);
                widen_all(out_f32, out);
                backward_rows(cpu.isa, gate_up_f32, out_f32, s.width);
                round_all(gate_up, gate_up_f32);
                round_all(out, out_f32);
            }
        });
    });
}

crate::dispatch! {
    fn forward_rows(out: &mut [f32], gate_up: &[f32], width: usize) = forward_rows_vectors;
}
crate::dispatch! {
    fn backward_rows(gate_up: &mut [f32], out: &mut [f32], width: usize) = backward_rows_vectors;
}

#[inline(always)]
fn forward_rows_vectors<V: Vector>(out: &mut [f32], gate_up: &[f32], width: usize) {
    for (out, row) in out.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
        let (gate, up) = row.split_at(width);
        for_vectors!(at in width => {
            let g = V::load_partial(&gate[at.clone()]);
            g.mul(sigmoid(g)).mul(V::load_partial(&up[at.clone()])).store_partial(&mut out[at]);
        });
    }
}

#[inline(always)]
fn backward_rows_vectors<V: Vector>(gate_up: &mut [f32], out: &mut [f32], width: usize) {
    let one = V::splat(1.0);
    for (row, out) in gate_up.chunks_exact_mut(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = row.split_at_mut(width);
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
