//! CPU half: one product a piece of rows.

use super::Shape;
use super::gemm::{Matrix, MatrixMut, gemm};
use crate::device::Cpu;
use crate::ops::{Disjoint, Pieces};

fn by_rows(cpu: &Cpu, out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    let pieces = Pieces::at_most(a.height, 32, 16);
    let width = b.width;
    let out = Disjoint::new(out);
    cpu.pool.run(pieces.count, |piece| {
        let rows = pieces.range(piece);
        // SAFETY: pieces write disjoint rows.
        let out = unsafe { out.part(rows.start * width..rows.end * width) };
        gemm(MatrixMut::rows(out, rows.len(), width), a.lines(rows), b, false);
    });
}

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], a: &[f32], b: &[f32], s: Shape) {
    by_rows(cpu, out, Matrix::rows(a, s.m, s.k), Matrix::rows(b, s.k, s.n));
}

pub(super) fn backward(
    cpu: &Cpu,
    da: &mut [f32],
    db: &mut [f32],
    dout: &[f32],
    a: &[f32],
    b: &[f32],
    s: Shape,
) {
    let dout = Matrix::rows(dout, s.m, s.n);
    by_rows(cpu, da, dout, Matrix::rows(b, s.k, s.n).transposed());
    by_rows(cpu, db, Matrix::rows(a, s.m, s.k).transposed(), dout);
}
