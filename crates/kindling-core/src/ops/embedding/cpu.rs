//! CPU half. The backward pass is cut over columns, so that every piece sees the rows in the same order.

use super::Shape;
use crate::cpu::Cpu;
use crate::ops::{Disjoint, Pieces};

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], ids: &[u32], weight: &[f32], s: Shape) {
    let pieces = Pieces::of_rows(s.rows, s.d_model);
    let out = Disjoint::new(out);
    cpu.pool.run(pieces.count, |piece| {
        let rows = pieces.range(piece);
        // SAFETY: pieces write disjoint rows.
        let out = unsafe { out.part(rows.start * s.d_model..rows.end * s.d_model) };
        for (out, &id) in out.chunks_exact_mut(s.d_model).zip(&ids[rows]) {
            let start = id as usize * s.d_model;
            out.copy_from_slice(&weight[start..start + s.d_model]);
        }
    });
}

pub(super) fn backward(cpu: &Cpu, dweight: &mut [f32], dout: &[f32], ids: &[u32], s: Shape) {
    let pieces =
        Pieces::at_most(s.d_model, if s.rows * s.d_model < 16_384 { s.d_model } else { 32 }, 8);
    let dweight = Disjoint::new(dweight);
    cpu.pool.run(pieces.count, |piece| {
        let columns = pieces.range(piece);
        for (dout, &id) in dout.chunks_exact(s.d_model).zip(ids) {
            let start = id as usize * s.d_model;
            // SAFETY: pieces write disjoint columns, and one piece holds one part at a time.
            let dweight = unsafe { dweight.part(start + columns.start..start + columns.end) };
            dweight.iter_mut().zip(&dout[columns.clone()]).for_each(|(w, d)| *w += d);
        }
    });
}
