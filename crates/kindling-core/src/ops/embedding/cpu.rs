//! CPU implementation.

use super::Shape;
use crate::cpu::Cpu;
use crate::ops::{BlocksMut, RowsMut, Tasks, split_grid, split_rows};

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], ids: &[u32], weight: &[f32], s: Shape) {
    let tasks = Tasks::of_rows(s.rows, s.d_model);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, s.d_model), |rows, out| {
        for (out, &id) in out.chunks_exact_mut(s.d_model).zip(&ids[rows]) {
            let start = id as usize * s.d_model;
            out.copy_from_slice(&weight[start..start + s.d_model]);
        }
    });
}

pub(super) fn backward(cpu: &Cpu, dweight: &mut [f32], dout: &[f32], ids: &[u32], s: Shape) {
    if ids.is_empty() {
        return;
    }
    // Cut by columns, so that one task adds all rows of an id, in their order.
    let smallest = if s.rows * s.d_model < 16_384 { s.d_model } else { 32 };
    let columns = Tasks::at_most(s.d_model, smallest, 8);
    let dweight = BlocksMut::new(dweight, s.d_model).in_units(s.vocab_size, 1);
    split_grid(&cpu.pool, Tasks::exactly(1, 1), columns, dweight, |_, columns, mut dweight| {
        for (dout, &id) in dout.chunks_exact(s.d_model).zip(ids) {
            let dweight = dweight.row_mut(id as usize).iter_mut();
            dweight.zip(&dout[columns.clone()]).for_each(|(w, d)| *w += d);
        }
    });
}
