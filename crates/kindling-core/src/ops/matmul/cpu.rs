//! CPU half.

use super::Shape;
use super::gemm::{Matrix, parallel_gemm};
use crate::cpu::Cpu;

pub(super) fn forward(cpu: &Cpu, out: &mut [f32], a: &[f32], b: &[f32], s: Shape) {
    parallel_gemm(&cpu.pool, out, Matrix::rows(a, s.m, s.k), Matrix::rows(b, s.k, s.n), false);
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
    parallel_gemm(&cpu.pool, da, dout, Matrix::rows(b, s.k, s.n).transposed(), false);
    parallel_gemm(&cpu.pool, db, Matrix::rows(a, s.m, s.k).transposed(), dout, false);
}
