//! CPU half.

use super::Shape;
use crate::device::Cpu;
use crate::ops::{Disjoint, Pieces};
use crate::simd::{Lanes, for_lanes, sigmoid};

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], gate_up: &[f32], s: Shape) {
    let pieces = Pieces::of_rows(s.rows, s.width);
    let out = Disjoint::new(out);
    cpu.pool.run(pieces.count, |piece| {
        let rows = pieces.range(piece);
        // SAFETY: pieces write disjoint rows.
        let out = unsafe { out.part(rows.start * s.width..rows.end * s.width) };
        rows_forward(cpu.isa, out, &gate_up[2 * rows.start * s.width..2 * rows.end * s.width], s.width);
    });
}

pub(super) fn backward(cpu: &Cpu, dgate_up: &mut [f32], dout: &[f32], gate_up: &[f32], s: Shape) {
    let pieces = Pieces::of_rows(s.rows, s.width);
    let dgate_up = Disjoint::new(dgate_up);
    cpu.pool.run(pieces.count, |piece| {
        let rows = pieces.range(piece);
        let both = 2 * rows.start * s.width..2 * rows.end * s.width;
        // SAFETY: pieces write disjoint rows.
        let dgate_up = unsafe { dgate_up.part(both.clone()) };
        rows_backward(
            cpu.isa,
            dgate_up,
            &dout[rows.start * s.width..rows.end * s.width],
            &gate_up[both],
            s.width,
        );
    });
}

crate::dispatch! { fn rows_forward(out: &mut [f32], gate_up: &[f32], width: usize) = rows_forward_lanes; }
crate::dispatch! {
    fn rows_backward(dgate_up: &mut [f32], dout: &[f32], gate_up: &[f32], width: usize) = rows_backward_lanes;
}

#[inline(always)]
fn rows_forward_lanes<L: Lanes>(out: &mut [f32], gate_up: &[f32], width: usize) {
    for (out, row) in out.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
        let (gate, up) = row.split_at(width);
        for_lanes!(at in width => {
            let g = L::load_partial(&gate[at.clone()]);
            g.mul(sigmoid(g)).mul(L::load_partial(&up[at.clone()])).store_partial(&mut out[at]);
        });
    }
}

#[inline(always)]
fn rows_backward_lanes<L: Lanes>(dgate_up: &mut [f32], dout: &[f32], gate_up: &[f32], width: usize) {
    let one = L::splat(1.0);
    for ((dboth, dout), both) in dgate_up
        .chunks_exact_mut(2 * width)
        .zip(dout.chunks_exact(width))
        .zip(gate_up.chunks_exact(2 * width))
    {
        let (gate, up) = both.split_at(width);
        let (dgate, dup) = dboth.split_at_mut(width);
        for_lanes!(at in width => {
            let g = L::load_partial(&gate[at.clone()]);
            let d = L::load_partial(&dout[at.clone()]);
            let sigma = sigmoid(g);
            d.mul(g).mul(sigma).store_partial(&mut dup[at.clone()]);
            let slope = sigma.mul(g.mul_add(one.sub(sigma), one));
            d.mul(L::load_partial(&up[at.clone()])).mul(slope).store_partial(&mut dgate[at]);
        });
    }
}
