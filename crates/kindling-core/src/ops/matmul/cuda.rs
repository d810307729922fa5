//! CUDA half: products by cuBLAS. Operands are of the device's dtype and rounded to it here where they come as f32.

use super::Shape;
use crate::Result;
use crate::buffer::{In, Out};
use crate::cuda::{Cuda, Factor, Product};

/// An operand as it lies: rows one after the other, `turned` where it is the transpose of what is multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub elements: In<'a>,
    pub turned: bool,
}

/// An operand that lies as it is multiplied.
pub(crate) fn rows(elements: In) -> Operand {
    Operand { elements, turned: false }
}

/// An operand that lies transposed.
pub(crate) fn turned(elements: In) -> Operand {
    Operand { elements, turned: true }
}

/// out (m, n) = a (m, k) b (k, n), or out += a b.
pub(crate) fn product(
    gpu: &Cuda,
    out: &Out,
    a: Operand,
    b: Operand,
    s: Shape,
    accumulate: bool,
) -> Result<()> {
    let [first, second] = operands(gpu, [a.elements, b.elements])?;
    gpu.multiply(&Product {
        m: s.m,
        k: s.k,
        n: s.n,
        a: Factor { pointer: first, turned: a.turned },
        b: Factor { pointer: second, turned: b.turned },
        operands: gpu.arithmetic.dtype,
        out: out.pointer(),
        results: out.dtype(),
        accumulate,
        tf32: gpu.arithmetic.tf32,
    })
}

/// The addresses of operands, those of another dtype than the device's rounded to it in scratch memory.
fn operands<const N: usize>(gpu: &Cuda, all: [In; N]) -> Result<[u64; N]> {
    let dtype = gpu.arithmetic.dtype;
    let rounded = |x: In| if x.dtype() == dtype { 0 } else { x.len() * dtype.size() };
    let sizes = all.map(rounded);
    if sizes.iter().all(|size| *size == 0) {
        return Ok(all.map(|x| x.pointer()));
    }
    let mut pointers = gpu.scratch(sizes)?;
    for (pointer, x) in pointers.iter_mut().zip(all) {
        if x.dtype() == dtype {
            *pointer = x.pointer();
        } else {
            gpu.cast(dtype, *pointer, x.pointer(), x.len())?;
        }
    }
    Ok(pointers)
}

pub(super) fn forward(gpu: &Cuda, out: &Out, a: In, b: In, s: Shape) -> Result<()> {
    product(gpu, out, rows(a), rows(b), s, false)
}

pub(super) fn backward(
    gpu: &Cuda,
    da: &Out,
    db: &Out,
    dout: In,
    a: In,
    b: In,
    s: Shape,
) -> Result<()> {
    let Shape { m, k, n } = s;
    product(gpu, da, rows(dout), turned(b), Shape { m, k: n, n: k }, false)?;
    product(gpu, db, turned(a), rows(dout), Shape { m: k, k: m, n }, false)
}
