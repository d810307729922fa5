//! CUDA implementation: products by cuBLASLt. Operands in another dtype than the device's are first
//! cast to it in scratch memory.

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
    /// Elements from one row to the next, or `None` if there are no gaps between rows.
    pub leading: Option<usize>,
}

impl Operand<'_> {
    /// Sets the distance between rows.
    pub fn leading(self, leading: usize) -> Self {
        Self { leading: Some(leading), ..self }
    }

    /// Returns the operand as a (rows, columns) factor whose elements are at `pointer`.
    fn factor(self, pointer: u64, rows: usize, columns: usize) -> Factor {
        let width = if self.transposed { rows } else { columns };
        let leading = self.leading.unwrap_or(width);
        Factor { pointer, transposed: self.transposed, leading }
    }
}

/// Returns an operand that is multiplied as it is stored.
pub(crate) fn rows(elements: In) -> Operand {
    Operand { elements, transposed: false, leading: None }
}

/// Returns an operand whose transpose is multiplied.
pub(crate) fn transposed(elements: In) -> Operand {
    Operand { elements, transposed: true, leading: None }
}

/// The result of a product.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a, 'b> {
    pub elements: &'a Out<'b>,
    /// Elements from one row to the next.
    pub leading: usize,
    /// Adds to the elements instead of overwriting them.
    pub accumulate: bool,
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
    product_into(gpu, Destination { elements: out, leading: s.n, accumulate }, a, b, s)
}

/// Queues a product into rows that may have gaps between them.
pub(crate) fn product_into(
    gpu: &Cuda,
    out: Destination,
    a: Operand,
    b: Operand,
    s: Shape,
) -> Result<()> {
    let [a_pointer, b_pointer] = operand_pointers(gpu, [a.elements, b.elements])?;
    gpu.multiply(&Product {
        m: s.m,
        k: s.k,
        n: s.n,
        a: a.factor(a_pointer, s.m, s.k),
        b: b.factor(b_pointer, s.k, s.n),
        operands: gpu.arithmetic.dtype,
        out: out.elements.pointer(),
        out_leading: out.leading,
        results: out.elements.dtype(),
        accumulate: out.accumulate,
        tf32: gpu.arithmetic.tf32,
    })
}

/// Returns the addresses of the operands in the device's dtype, casting those in another.
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
