//! CPU implementation: two passes over each row, the second while it is in L1.

use super::{Backward, Forward, ForwardResidual, Shape};
use crate::buffer::{In, Out};
use crate::cpu::Cpu;
use crate::ops::{PerTask, RowsMut, Tasks, split_rows, with_scratch};
use crate::simd::{Vector, for_vectors};
use crate::{Error, Result};

/// Maximum number of tasks in the backward pass, each of which has its own partial dweight.
const MAX_BACKWARD_TASKS: usize = 16;

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let s = args.shape;
    let (x, weight) = (args.x.cpu(), args.weight.cpu());
    let tasks = Tasks::of_rows(s.rows, s.width);
    let outputs = (RowsMut::new(args.out.cpu(), s.width), RowsMut::new(args.rstd.cpu(), 1));
    split_rows(&cpu.pool, tasks, outputs, |rows, (out, rstd)| {
        let x = &x[rows.start * s.width..rows.end * s.width];
        norm_rows(cpu.isa, out, rstd, x, weight, s);
    });
}

pub(super) fn forward_residual(cpu: &Cpu, args: ForwardResidual) {
    let s = args.shape;
    let (x, residual, weight) = (args.x.cpu(), args.residual.cpu(), args.weight.cpu());
    let tasks = Tasks::of_rows(s.rows, s.width);
    let outputs = (
        RowsMut::new(args.out.cpu(), s.width),
        RowsMut::new(args.sum.cpu(), s.width),
        RowsMut::new(args.rstd.cpu(), 1),
    );
    split_rows(&cpu.pool, tasks, outputs, |rows, (out, sum, rstd)| {
        let elements = rows.start * s.width..rows.end * s.width;
        add(cpu.isa, sum, &x[elements.clone()], &residual[elements]);
        norm_rows(cpu.isa, out, rstd, sum, weight, s);
    });
}

/// Computes out = x rstd weight, with the same bits as the forward pass.
fn recompute(cpu: &Cpu, out: Out, [x, weight, rstd]: [In; 3], s: Shape) {
    let (x, weight, rstd) = (x.cpu(), weight.cpu(), rstd.cpu());
    let tasks = Tasks::of_rows(s.rows, s.width);
    split_rows(&cpu.pool, tasks, RowsMut::new(out.cpu(), s.width), |rows, out| {
        let x = &x[rows.start * s.width..rows.end * s.width];
        scale_rows(cpu.isa, out, x, weight, &rstd[rows]);
    });
}

pub(super) fn backward(cpu: &Cpu, args: Backward) -> Result<()> {
    backward_by_rows(cpu, args, write_backward_rows)
}

pub(super) fn backward_residual(cpu: &Cpu, args: Backward) -> Result<()> {
    backward_by_rows(cpu, args, add_backward_rows)
}

/// The backward pass over a task's rows: (isa, dx, dweight, dout, x, weight, rstd).
type BackwardRows = fn(crate::simd::Isa, &mut [f32], &mut [f32], &[f32], &[f32], &[f32], &[f32]);

fn backward_by_rows(cpu: &Cpu, args: Backward, backward_rows: BackwardRows) -> Result<()> {
    let s = args.shape;
    if args.rounded.is_some() {
        return Err(Error::Unsupported("the CPU does not round dx of rms_norm".to_owned()));
    }
    if let Some(normed) = args.normed {
        recompute(cpu, normed, [args.x, args.weight, args.rstd], s);
    }
    let (dout, x, weight, rstd) =
        (args.dout.cpu(), args.x.cpu(), args.weight.cpu(), args.rstd.cpu());
    let (dx, dweight) = (args.dx.cpu(), args.dweight.cpu());
    let tasks = Tasks::at_most(s.rows, (8 * 1024usize).div_ceil(s.width), MAX_BACKWARD_TASKS);
    with_scratch(tasks.count * s.width, |partial| {
        let outputs = (RowsMut::new(dx, s.width), PerTask::new(&mut *partial, s.width));
        split_rows(&cpu.pool, tasks, outputs, |rows, (dx, dweight)| {
            let elements = rows.start * s.width..rows.end * s.width;
            let (dout, x) = (&dout[elements.clone()], &x[elements]);
            backward_rows(cpu.isa, dx, dweight, dout, x, weight, &rstd[rows]);
        });
        for partial in partial.chunks_exact(s.width) {
            dweight.iter_mut().zip(partial).for_each(|(w, p)| *w += p);
        }
    });
    Ok(())
}

crate::dispatch! { fn add(out: &mut [f32], a: &[f32], b: &[f32]) = add_vectors; }
crate::dispatch! {
    fn norm_rows(
        out: &mut [f32],
        rstd: &mut [f32],
        x: &[f32],
        weight: &[f32],
        s: Shape,
    ) = norm_rows_vectors;
}
crate::dispatch! {
    fn scale_rows(out: &mut [f32], x: &[f32], weight: &[f32], rstd: &[f32]) = scale_rows_vectors;
}
crate::dispatch! {
    /// Overwrites dx.
    fn write_backward_rows(
        dx: &mut [f32],
        dweight: &mut [f32],
        dout: &[f32],
        x: &[f32],
        weight: &[f32],
        rstd: &[f32],
    ) = write_backward_vectors;
}
crate::dispatch! {
    /// Adds to dx.
    fn add_backward_rows(
        dx: &mut [f32],
        dweight: &mut [f32],
        dout: &[f32],
        x: &[f32],
        weight: &[f32],
        rstd: &[f32],
    ) = add_backward_vectors;
}

#[inline(always)]
fn add_vectors<V: Vector>(out: &mut [f32], a: &[f32], b: &[f32]) {
    for_vectors!(at in out.len() => {
        let sum = V::load_partial(&a[at.clone()]).add(V::load_partial(&b[at.clone()]));
        sum.store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn norm_rows_vectors<V: Vector>(
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
        scale_row::<V>(out, x, weight, *rstd);
    }
}

#[inline(always)]
fn scale_rows_vectors<V: Vector>(out: &mut [f32], x: &[f32], weight: &[f32], rstd: &[f32]) {
    let width = weight.len();
    for ((out, x), rstd) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(rstd) {
        scale_row::<V>(out, x, weight, *rstd);
    }
}

/// Computes out = x rstd weight, for `forward` and `recompute`, which must return the same bits.
#[inline(always)]
fn scale_row<V: Vector>(out: &mut [f32], x: &[f32], weight: &[f32], rstd: f32) {
    let scale = V::splat(rstd);
    for_vectors!(at in weight.len() => {
        let v = V::load_partial(&x[at.clone()]).mul(scale);
        v.mul(V::load_partial(&weight[at.clone()])).store_partial(&mut out[at]);
    });
}

#[inline(always)]
fn write_backward_vectors<V: Vector>(
    dx: &mut [f32],
    dweight: &mut [f32],
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
) {
    backward_vectors::<V, false>(dx, dweight, dout, x, weight, rstd);
}

#[inline(always)]
fn add_backward_vectors<V: Vector>(
    dx: &mut [f32],
    dweight: &mut [f32],
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
) {
    backward_vectors::<V, true>(dx, dweight, dout, x, weight, rstd);
}

#[inline(always)]
fn backward_vectors<V: Vector, const ACCUMULATE: bool>(
    dx: &mut [f32],
    dweight: &mut [f32],
    dout: &[f32],
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
            if ACCUMULATE {
                g = g.add(V::load_partial(&dx[at.clone()]));
            }
            g.store_partial(&mut dx[at]);
        });
    }
}
