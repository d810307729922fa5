//! CUDA half: products by cuBLAS. Operands have the device's dtype; those of another are cast to it
//! in scratch memory first.

use super::{Backward, Forward, Shape};
use crate::Result;
use crate::buffer::{In, Out};
use crate::cuda::{Cuda, Factor, Product};
use crate::ops::cast;

/// A row-major operand, `transposed` if the product takes its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub elements: In<'a>,
    pub transposed: bool,
}

/// An operand taken as it is stored.
pub(crate) fn rows(elements: In) -> Operand {
    Operand { elements, transposed: false }
}

/// An operand whose transpose is multiplied.
pub(crate) fn transposed(elements: In) -> Operand {
    Operand { elements, transposed: true }
}

/// Queues out (m, n) = a (m, k) b (k, n), or out += a b if `accumulate` is set.
pub(crate) fn product(
    gpu: &Cuda,
    out: &Out,
    a: Operand,
    b: Operand,
    s: Shape,
    accumulate: bool,
) -> Result<()> {
    let [a_pointer, b_pointer] = operand_pointers(gpu, [a.elements, b.elements])?;
    gpu.multiply(&Product {
        m: s.m,
        k: s.k,
        n: s.n,
        a: Factor { pointer: a_pointer, transposed: a.transposed },
        b: Factor { pointer: b_pointer, transposed: b.transposed },
        operands: gpu.arithmetic.dtype,
        out: out.pointer(),
        results: out.dtype(),
        accumulate,
        tf32: gpu.arithmetic.tf32,
    })
}

/// Returns the addresses of operands in the device's dtype, after casting those of another.
fn operand_pointers<const N: usize>(gpu: &Cuda, operands: [In; N]) -> Result<[u64; N]> {
    let dtype = gpu.arithmetic.dtype;
    let cast_bytes = |x: In| if x.dtype() == dtype { 0 } else { x.len() * dtype.size() };
    let sizes = operands.map(cast_bytes);
    if sizes.iter().all(|size| *size == 0) {
        return Ok(operands.map(|x| x.pointer()));
    }
    let mut pointers = gpu.scratch(sizes)?;
    for (pointer, x) in pointers.iter_mut().zip(operands) {
        if x.dtype() == dtype {
            *pointer = x.pointer();
        } else {
            cast(gpu, dtype, *pointer, x.pointer(), x.len())?;
        }
    }
    Ok(pointers)
}

pub(super) fn forward(gpu: &Cuda, args: Forward) -> Result<()> {
    let Forward { out, a, b, shape } = args;
    product(gpu, &out, rows(a), rows(b), shape, false)
}

pub(super) fn backward(gpu: &Cuda, args: Backward) -> Result<()> {
    let Backward { da, db, dout, a, b, shape: Shape { m, k, n } } = args;
    product(gpu, &da, rows(dout), transposed(b), Shape { m, k: n, n: k }, false)?;
    product(gpu, &db, transposed(a), rows(dout), Shape { m: k, k: m, n }, false)
}
