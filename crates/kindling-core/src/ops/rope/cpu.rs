//! CPU implementation. A rotated pair is (x0, x1) cos + (-x1, x0) sin.

use super::{Forward, Shape};
use crate::cpu::Cpu;
use crate::ops::{RowsMut, Tasks, split_rows};
use crate::simd::{Vector, for_vectors};

pub(super) fn rotate(cpu: &Cpu, args: Forward, direction: f32) {
    let (cos, sin, s) = (args.cos.cpu(), args.sin.cpu(), args.shape);
    let tasks = Tasks::of_rows(s.rows, s.row_width);
    split_rows(&cpu.pool, tasks, RowsMut::new(args.x.cpu(), s.row_width), |rows, x| {
        rotate_rows(cpu.isa, x, cos, sin, rows.start, s, direction);
    });
}

crate::dispatch! {
    fn rotate_rows(
        x: &mut [f32],
        cos: &[f32],
        sin: &[f32],
        first_row: usize,
        s: Shape,
        direction: f32,
    ) = rotate_vectors;
}

#[inline(always)]
fn rotate_vectors<V: Vector>(
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    first_row: usize,
    s: Shape,
    direction: f32,
) {
    let direction = V::splat(direction);
    for (index, row) in x.chunks_exact_mut(s.row_width).enumerate() {
        let position = s.first_position + (first_row + index) % s.positions;
        let angles = position * s.head_size..(position + 1) * s.head_size;
        let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
        for head in row[..s.heads * s.head_size].chunks_exact_mut(s.head_size) {
            for_vectors!(at in s.head_size => {
                let v = V::load_partial(&head[at.clone()]);
                let swapped = v.swap_pairs().negate_even();
                let swapped = swapped.mul(V::load_partial(&sin[at.clone()])).mul(direction);
                v.mul_add(V::load_partial(&cos[at.clone()]), swapped).store_partial(&mut head[at]);
            });
        }
    }
}
