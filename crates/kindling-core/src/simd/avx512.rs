//! `Vector` for AVX-512 (F, BW, DQ, VL).
#![allow(clippy::undocumented_unsafe_blocks, reason = "the SAFETY note below holds for all blocks")]
// SAFETY: the methods run only inside a function that `dispatch!` compiled for AVX-512, on a
// machine that has it. Loads and stores stay inside the slice: its length is asserted, or becomes
// the mask.

use std::arch::x86_64::*;

use super::{LANES, Vector, sixteen};

/// Sixteen f32 in one 512-bit register.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// Returns the mask of the first `len` lanes.
#[inline(always)]
fn mask(len: usize) -> __mmask16 {
    if len >= LANES { !0 } else { (1u16 << len) - 1 }
}

impl Vector for Avx512 {
    const REGISTERS: usize = 32;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(value)) }
    }
    #[inline(always)]
    fn load(source: &[f32]) -> Self {
        assert!(source.len() >= LANES);
        unsafe { Self(_mm512_loadu_ps(source.as_ptr())) }
    }
    #[inline(always)]
    fn load_partial(source: &[f32]) -> Self {
        unsafe { Self(_mm512_maskz_loadu_ps(mask(source.len()), source.as_ptr())) }
    }
    #[inline(always)]
    fn load_partial_bf16(source: &[u16]) -> Self {
        unsafe {
            let bits = _mm256_maskz_loadu_epi16(mask(source.len()), source.as_ptr().cast());
            let upper = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits));
            Self(_mm512_castsi512_ps(upper))
        }
    }
    #[inline(always)]
    fn store(self, target: &mut [f32]) {
        assert!(target.len() >= LANES);
        unsafe { _mm512_storeu_ps(target.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn store_partial(self, target: &mut [f32]) {
        unsafe { _mm512_mask_storeu_ps(target.as_mut_ptr(), mask(target.len()), self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { Self(_mm512_div_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        unsafe { Self(_mm512_min_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { Self(_mm512_sqrt_ps(self.0)) }
    }
    #[inline(always)]
    fn round(self) -> Self {
        unsafe {
            Self(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
        }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, power: Self) -> Self {
        unsafe { Self(_mm512_scalef_ps(self.0, power.0)) }
    }
    #[inline(always)]
    fn zero_where_negative_infinity(self, x: Self) -> Self {
        unsafe {
            let infinity = _mm512_set1_ps(f32::NEG_INFINITY);
            let other = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(x.0, infinity);
            Self(_mm512_maskz_mov_ps(other, self.0))
        }
    }
    #[inline(always)]
    fn swap_pairs(self) -> Self {
        unsafe { Self(_mm512_permute_ps::<0b10_11_00_01>(self.0)) }
    }
    #[inline(always)]
    fn negate_even(self) -> Self {
        unsafe {
            let sign = _mm512_castsi512_ps(_mm512_set1_epi64(0x0000_0000_8000_0000));
            Self(_mm512_xor_ps(self.0, sign))
        }
    }
    #[inline(always)]
    fn transposed(square: [Self; LANES]) -> [Self; LANES] {
        unsafe {
            let columns = transposed(sixteen!(i => _mm512_castps_si512(square[i].0)));
            sixteen!(i => Self(_mm512_castsi512_ps(columns[i])))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), high);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn maximum(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}

/// Transposes a square: word j of vector i becomes word i of vector j.
///
/// Interleaves pairs of rows, then pairs of pairs, and so on: four rounds of 16 shuffles.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
pub(crate) unsafe fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    unsafe {
        let by_two = sixteen!(i => {
            let first = i / 2 * 2;
            if i == first {
                _mm512_unpacklo_epi32(rows[first], rows[first + 1])
            } else {
                _mm512_unpackhi_epi32(rows[first], rows[first + 1])
            }
        });
        // Each 128-bit quarter holds the words of four rows in one column.
        let by_four = sixteen!(i => {
            let (pair, half) = (i / 2, i % 2);
            let first = pair / 2 * 4 + pair % 2;
            if half == 0 {
                _mm512_unpacklo_epi64(by_two[first], by_two[first + 2])
            } else {
                _mm512_unpackhi_epi64(by_two[first], by_two[first + 2])
            }
        });
        // The words of eight rows in two columns, which are eight apart.
        let by_eight = sixteen!(i => {
            let first = i / 8 * 8 + i % 4;
            if i % 8 < 4 {
                _mm512_shuffle_i32x4::<0x88>(by_four[first], by_four[first + 4])
            } else {
                _mm512_shuffle_i32x4::<0xDD>(by_four[first], by_four[first + 4])
            }
        });
        sixteen!(i => if i < 8 {
            _mm512_shuffle_i32x4::<0x88>(by_eight[i], by_eight[i + 8])
        } else {
            _mm512_shuffle_i32x4::<0xDD>(by_eight[i - 8], by_eight[i])
        })
    }
}
