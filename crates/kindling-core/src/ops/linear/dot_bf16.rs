//! Vectors of bf16 for dot products: AVX512-BF16, and plain code for other machines.

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512Bf16;

use super::dot_vector::DotVector;
use crate::simd::bf16::widen;

/// A vector of one element.
#[derive(Clone, Copy)]
pub(super) struct Plain(f32);

impl DotVector for Plain {
    type Element = u16;
    type Sums = f32;
    const LEN: usize = 1;
    const MANY_REGISTERS: bool = false;
    fn zero() -> f32 {
        0.0
    }
    fn load(source: &[u16]) -> Self {
        Self(widen(source[0]))
    }
    fn load_partial(source: &[u16]) -> Self {
        Self(source.first().map_or(0.0, |bits| widen(*bits)))
    }
    fn multiply_add(self, other: Self, sums: f32) -> f32 {
        sums + self.0 * other.0
    }
    fn total(sums: f32) -> f32 {
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #![allow(clippy::undocumented_unsafe_blocks, reason = "the SAFETY note below holds for all")]
    // SAFETY: the methods run only inside `dot::multiply_bf16`, on a machine that has AVX512-BF16.
    // Loads stay inside the slice: its length is asserted, or becomes the mask. The transmutes keep
    // the 512 bits.

    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_maskz_loadu_epi16,
        _mm512_reduce_add_ps, _mm512_setzero_ps,
    };
    use std::mem::transmute;

    use crate::ops::linear::dot_vector::DotVector;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512Bf16(__m512bh);

    impl DotVector for Avx512Bf16 {
        type Element = u16;
        type Sums = __m512;
        const LEN: usize = 32;
        const MANY_REGISTERS: bool = true;
        #[inline(always)]
        fn zero() -> __m512 {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        fn load(source: &[u16]) -> Self {
            assert!(source.len() >= Self::LEN);
            unsafe {
                let words = _mm512_loadu_si512(source.as_ptr().cast());
                Self(transmute::<__m512i, __m512bh>(words))
            }
        }
        #[inline(always)]
        fn load_partial(source: &[u16]) -> Self {
            let mask = u32::MAX >> Self::LEN.saturating_sub(source.len()).min(31);
            let mask = if source.is_empty() { 0 } else { mask };
            unsafe {
                let words = _mm512_maskz_loadu_epi16(mask, source.as_ptr().cast());
                Self(transmute::<__m512i, __m512bh>(words))
            }
        }
        #[inline(always)]
        fn multiply_add(self, other: Self, sums: __m512) -> __m512 {
            unsafe { _mm512_dpbf16_ps(sums, self.0, other.0) }
        }
        #[inline(always)]
        fn total(sums: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(sums) }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::linear::dot::{Operands, multiply_bf16};
    use crate::ops::{BlocksMut, Tasks, split_grid};
    use crate::pool::Pool;
    use crate::simd::bf16::{round, widen};

    #[test]
    fn dot_products_of_bf16_rows_match_sums_in_f64() {
        let sizes = [1, 2, 3, 4, 5, 7, 9];
        for (rows, outputs) in sizes.iter().flat_map(|rows| sizes.map(|outputs| (*rows, outputs))) {
            for inputs in [1, 31, 32, 129] {
                let values = |seed: f32, len: usize| -> Vec<u16> {
                    (0..len).map(|i| round((i as f32 * seed).sin())).collect()
                };
                let (x, weight) = (values(0.7, rows * inputs), values(1.3, outputs * inputs));
                let mut out = vec![9.0; rows * outputs];
                let one = Tasks::exactly(1, 1);
                let blocks = BlocksMut::new(&mut out, outputs).in_units(rows, outputs);
                split_grid(&Pool::new(1), one, one, blocks, |_, _, mut out| {
                    multiply_bf16(&mut out, Operands { x: &x, weight: &weight, inputs });
                });
                for (at, out) in out.iter().enumerate() {
                    let of = |values: &[u16], row: usize| -> Vec<f64> {
                        let row = &values[row * inputs..(row + 1) * inputs];
                        row.iter().map(|bits| f64::from(widen(*bits))).collect()
                    };
                    let (x, weight) = (of(&x, at / outputs), of(&weight, at % outputs));
                    let expected: f64 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
                    assert!((f64::from(*out) - expected).abs() < 1e-4, "{rows} {outputs} {inputs}");
                }
            }
        }
    }
}
