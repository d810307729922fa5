//! Dot products of rows of x and rows of a weight, a block of them at a time in registers.
//!
//! Each dot product has one vector of sums, to which the products of elements are added in order.
//! Its bits are therefore the same in a block of any size: a row of x gets the same result alone as
//! among others.

use super::dot_vector::DotVector;
use crate::ops::BlockMut;
use crate::simd::prefetch_to_l2;

/// The operands: x (rows, inputs) and weight (outputs, inputs).
#[derive(Clone, Copy)]
pub(super) struct Operands<'a, T> {
    pub(super) x: &'a [T],
    pub(super) weight: &'a [T],
    pub(super) inputs: usize,
}

/// Runs a body over the elements of a row, a vector at a time. For the elements past the last whole
/// vector, `load` is `load_partial`.
macro_rules! for_whole_vectors {
    ($vector:ident, $len:expr, $range:ident, $load:ident => $body:block) => {{
        let whole = $len / $vector::LEN * $vector::LEN;
        let mut at = 0;
        while at < whole {
            let $range = at..at + $vector::LEN;
            let $load = $vector::load;
            $body
            at += $vector::LEN;
        }
        if whole < $len {
            let $range = whole..$len;
            let $load = $vector::load_partial;
            $body
        }
    }};
}

crate::dispatch! {
    /// Computes out = x weight^T, (rows, outputs), in f32.
    pub(super) fn multiply_f32(out: &mut BlockMut<'_, f32>, operands: Operands<'_, f32>) = multiply;
}

/// Computes out = x weight^T, (rows, outputs), from bf16.
pub(super) fn multiply_bf16(out: &mut BlockMut<'_, f32>, operands: Operands<'_, u16>) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::bf16::is_available() {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn avx512(out: &mut BlockMut<'_, f32>, operands: Operands<'_, u16>) {
            multiply::<super::dot_bf16::Avx512Bf16>(out, operands);
        }
        // SAFETY: the machine has AVX512-BF16.
        unsafe { avx512(out, operands) };
        return;
    }
    multiply::<super::dot_bf16::Plain>(out, operands);
}

/// Reads each weight from memory once: a block of its rows stays in L1 while the rows of x pass by.
/// The next block is prefetched, since the hardware does not follow several rows at a time.
#[inline(always)]
fn multiply<D: DotVector>(out: &mut BlockMut<'_, f32>, operands: Operands<'_, D::Element>) {
    let (rows, outputs) = (out.rows(), out.columns());
    assert!(operands.x.len() >= rows * operands.inputs);
    assert!(operands.weight.len() >= outputs * operands.inputs);
    let side = if D::MANY_REGISTERS { 4 } else { 2 };
    // A single row of f32 is bound by memory, which is fastest where the weight is read in order.
    let reads_in_order = rows == 1 && size_of::<D::Element>() == 4;
    let whole = if reads_in_order { 0 } else { outputs / side * side };
    for output in (0..whole).step_by(side) {
        // SAFETY: rows and outputs are inside the operands (asserted).
        unsafe {
            if D::MANY_REGISTERS {
                multiply_outputs::<D, 4>(out, operands, output);
            } else {
                multiply_outputs::<D, 2>(out, operands, output);
            }
        }
    }
    for output in whole..outputs {
        // SAFETY: as above.
        unsafe { multiply_outputs::<D, 1>(out, operands, output) };
    }
}

/// Computes OUTPUTS columns of out, from `output` on.
///
/// # Safety
/// `operands` holds a row of x for each row of out, and OUTPUTS rows of the weight from `output`
/// on.
#[inline(always)]
unsafe fn multiply_outputs<D: DotVector, const OUTPUTS: usize>(
    out: &mut BlockMut<'_, f32>,
    operands: Operands<'_, D::Element>,
    output: usize,
) {
    let mut row = 0;
    while row < out.rows() {
        let left = out.rows() - row;
        // SAFETY: by the caller's promise, and the rows that are left.
        unsafe {
            if D::MANY_REGISTERS && left >= 4 {
                block::<D, 4, OUTPUTS>(out, operands, [row, output]);
                row += 4;
            } else if left >= 2 {
                block::<D, 2, OUTPUTS>(out, operands, [row, output]);
                row += 2;
            } else {
                block::<D, 1, OUTPUTS>(out, operands, [row, output]);
                row += 1;
            }
        }
    }
}

/// Computes a block of out in registers.
///
/// # Safety
/// ROWS rows of x from `top` on, and OUTPUTS rows of the weight from `left` on, are inside the
/// operands.
#[inline(always)]
unsafe fn block<D: DotVector, const ROWS: usize, const OUTPUTS: usize>(
    out: &mut BlockMut<'_, f32>,
    operands: Operands<'_, D::Element>,
    [top, left]: [usize; 2],
) {
    let Operands { x, weight, inputs } = operands;
    let (x, weight) = (&x[top * inputs..], &weight[left * inputs..]);
    let mut sums = [[D::zero(); OUTPUTS]; ROWS];
    for_whole_vectors!(D, inputs, range, load => {
        // SAFETY: by the caller's promise, since the range is inside a row.
        unsafe {
            let mut weights = [load(weight.get_unchecked(range.clone())); OUTPUTS];
            for (output, weights) in weights.iter_mut().enumerate() {
                let at = output * inputs + range.start..output * inputs + range.end;
                if top == 0 {
                    prefetch_to_l2(weight.as_ptr().wrapping_add(at.start + OUTPUTS * inputs));
                }
                *weights = load(weight.get_unchecked(at));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let at = row * inputs + range.start..row * inputs + range.end;
                let x: D = load(x.get_unchecked(at));
                for (sums, weight) in sums.iter_mut().zip(weights) {
                    *sums = x.multiply_add(weight, *sums);
                }
            }
        }
    });
    for (row, sums) in sums.into_iter().enumerate() {
        let out = &mut out.row_mut(top + row)[left..left + OUTPUTS];
        for (out, sums) in out.iter_mut().zip(sums) {
            *out = D::total(sums);
        }
    }
}
