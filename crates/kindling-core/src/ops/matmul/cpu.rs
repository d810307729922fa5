//! CPU half.

use super::gemm::{Matrix, parallel_gemm};
use super::{Backward, Forward};
use crate::cpu::Cpu;

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let Forward { out, a, b, shape: s } = args;
    let (a, b) = (Matrix::rows(a.cpu(), s.m, s.k), Matrix::rows(b.cpu(), s.k, s.n));
    parallel_gemm(&cpu.pool, out.cpu(), a, b, false);
}

pub(super) fn backward(cpu: &Cpu, args: Backward) {
    let Backward { da, db, dout, a, b, shape: s } = args;
    let dout = Matrix::rows(dout.cpu(), s.m, s.n);
    let (a, b) = (Matrix::rows(a.cpu(), s.m, s.k), Matrix::rows(b.cpu(), s.k, s.n));
    parallel_gemm(&cpu.pool, da.cpu(), dout, b.transposed(), false);
    parallel_gemm(&cpu.pool, db.cpu(), a.transposed(), dout, false);
}
