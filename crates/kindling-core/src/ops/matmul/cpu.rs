//! CPU implementation.

use super::matrix::Matrix;
use super::{Backward, Forward, gemm};
use crate::cpu::Cpu;

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let Forward { out, a, b, shape: s } = args;
    let (a, b) = (Matrix::new(a.cpu(), s.m, s.k), Matrix::new(b.cpu(), s.k, s.n));
    gemm::product(&cpu.pool, out.cpu(), a, b, false);
}

pub(super) fn backward(cpu: &Cpu, args: Backward) {
    let Backward { da, db, dout, a, b, shape: s } = args;
    let dout = Matrix::new(dout.cpu(), s.m, s.n);
    let (a, b) = (Matrix::new(a.cpu(), s.m, s.k), Matrix::new(b.cpu(), s.k, s.n));
    gemm::product(&cpu.pool, da.cpu(), dout, b.transposed(), false);
    gemm::product(&cpu.pool, db.cpu(), a.transposed(), dout, false);
}
