//! CPU half: one pass over each row while it is in the first cache.

use super::Shape;
use crate::cpu::Cpu;
use crate::ops::{PerTask, RowsMut, Tasks, split_rows, with_scratch};
use crate::simd::{Vector, for_vectors};

/// Maximum number of tasks in the backward pass: each keeps its own partial dweight.
const BACKWARD_TASKS: usize = 16;

pub(super) fn forward(
    cpu: &Cpu,
    out: &mut [f32],
    sum: Option<&mut [f32]>,
    rstd: &mut [f32],
    x: &[f32],
    residual: Option<&[f32]>,
    weight: &[f32],
    s: Shape,
) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    let sum = sum.map(|sum| RowsMut::new(sum, s.width));
    let outputs = (RowsMut::new(out, s.width), RowsMut::new(rstd, 1), sum);
    split_rows(&cpu.pool, tasks, outputs, |rows, (out, rstd, sum)| {
        let elements = rows.start * s.width..rows.end * s.width;
        match (sum, residual) {
            (Some(sum), Some(residual)) => {
                add(cpu.isa, sum, &x[elements.clone()], &residual[elements]);
                rows_forward(cpu.isa, out, rstd, sum, weight, s);
            }
            _ => rows_forward(cpu.isa, out, rstd, &x[elements], weight, s),
        }
    });
}

pub(super) fn recompute(
    cpu: &Cpu,
    out: &mut [f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    s: Shape,
) {
    let tasks = Tasks::of_rows(s.rows, s.width);
    split_rows(&cpu.pool, tasks, RowsMut::new(out, s.width), |rows, out| {
        let elements = rows.start * s.width..rows.end * s.width;
        rows_scaled(cpu.isa, out, &x[elements], weight, &rstd[rows]);
    });
}

pub(super) fn backward(
    cpu: &Cpu,
    dx: &mut [f32],
    dweight: &mut [f32],
    dout: &[f32],
    accumulate: bool,
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    s: Shape,
) {
    let tasks = Tasks::at_most(s.rows, (8 * 1024usize).div_ceil(s.width), BACKWARD_TASKS);
    with_scratch(tasks.count * s.width, |partial| {
        let outputs = (RowsMut::new(dx, s.width), PerTask::new(&mut *partial, s.width));
        split_rows(&cpu.pool, tasks, outputs, |rows, (dx, dweight)| {
            let elements = rows.start * s.width..rows.end * s.width;
            rows_backward(
                cpu.isa,
                dx,
                dweight,
                &dout[elements.clone()],
                accumulate,
                &x[elements],
                weight,
                &rstd[rows],
            );
        });
        for partial in partial.chunks_exact(s.width) {
            dweight.iter_mut().zip(partial).for_each(|(w, p)| *w += p);
        }
    });
}

crate::dispatch! { fn add(out: &mut [f32], a: &[f32], b: &[f32]) = add_lanes; }
crate::dispatch! {
    fn rows_forward(out: &mut [f32], rstd: &mut [f32], x: &[f32], weight: &[f32], s: Shape) = rows_forward_lanes;
}
crate::dispatch! { fn rows_scaled(out: &mut [f32], x: &[f32], weight: &[f32], rstd: &[f32]) = rows_scaled_lanes; }
crate::dispatch! {
    fn rows_backward(
        dx: &mut [f32],
        dweight: &mut [f32],
        dout: &[f32],
        accumulate: bool,
        x: &[f32],
        weight: &[f32],
        rstd: &[f32],
    ) = rows_backward_lanes;
}

#[inline(always)]
fn add_lanes<V: Vector>(out: &mut [f32], a: &[f32], b: &[f32]) {
    for_vectors!(at in out.len() => {
        V::load_partial(&a[at.clone()]).add(V::load_partial(&b[at.clone()])).store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn rows_forward_lanes<V: Vector>(
    out: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    weight: &[f32],
    s: Shape,
) {
    for ((out, x), rstd) in out.chunks_exact_mut(s.width).zip(x.chunks_exact(s.width)).zip(rstd) {
        let mut squares = V::splat(0.0);
        for_vectors!(at in s.width => {
            let v = V::load_partial(&x[at]);
            squares = v.mul_add(v, squares);
        });
        *rstd = 1.0 / (squares.sum() / s.width as f32 + s.eps).sqrt();
        row_scaled::<V>(out, x, weight, *rstd);
    }
}

#[inline(always)]
fn rows_scaled_lanes<V: Vector>(out: &mut [f32], x: &[f32], weight: &[f32], rstd: &[f32]) {
    let width = weight.len();
    for ((out, x), rstd) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(rstd) {
        row_scaled::<V>(out, x, weight, *rstd);
    }
}

/// out = x rstd weight: one arithmetic for the first time and for every further one.
#[inline(always)]
fn row_scaled<V: Vector>(out: &mut [f32], x: &[f32], weight: &[f32], rstd: f32) {
    let scale = V::splat(rstd);
    for_vectors!(at in weight.len() => {
        let v = V::load_partial(&x[at.clone()]).mul(scale);
        v.mul(V::load_partial(&weight[at.clone()])).store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn rows_backward_lanes<V: Vector>(
    dx: &mut [f32],
    dweight: &mut [f32],
    dout: &[f32],
    accumulate: bool,
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
) {
    let width = weight.len();
    for (row, &rstd) in rstd.iter().enumerate() {
        let range = row * width..(row + 1) * width;
        let (dx, dout, x) = (&mut dx[range.clone()], &dout[range.clone()], &x[range]);
        let mut dot = V::splat(0.0);
        let scale = V::splat(rstd);
        for_vectors!(at in width => {
            let (d, v) = (V::load_partial(&dout[at.clone()]), V::load_partial(&x[at.clone()]));
            dot = d.mul(V::load_partial(&weight[at.clone()])).mul_add(v, dot);
            let sum = d.mul(v).mul_add(scale, V::load_partial(&dweight[at.clone()]));
            sum.store_partial(&mut dweight[at]);
        });
        let correction = V::splat(-rstd * rstd * rstd * dot.sum() / width as f32);
        for_vectors!(at in width => {
            let d = V::load_partial(&dout[at.clone()]).mul(V::load_partial(&weight[at.clone()]));
            let mut g = V::load_partial(&x[at.clone()]).mul_add(correction, d.mul(scale));
            if accumulate {
                g = g.add(V::load_partial(&dx[at.clone()]));
            }
            g.store_partial(&mut dx[at]);
        });
    }
}
