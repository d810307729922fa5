//! `Vector` for AVX2 and FMA.
#![allow(clippy::undocumented_unsafe_blocks, reason = "the SAFETY note below holds for all blocks")]
// SAFETY: the methods run only inside a function that `dispatch!` compiled for AVX2 and FMA, on a
// machine that has them. Loads and stores stay inside the slice: its length is asserted, or becomes
// the mask.

use std::arch::x86_64::*;

use super::{LANES, Vector, sixteen};

/// Sixteen f32 in two 256-bit registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

macro_rules! both {
    ($intrinsic:ident, $a:expr $(, $other:expr)*) => {
        unsafe { Self($intrinsic($a.0 $(, $other.0)*), $intrinsic($a.1 $(, $other.1)*)) }
    };
}

/// Returns the masks of the first `len` lanes; `len` is at most sixteen.
#[inline(always)]
unsafe fn masks(len: usize) -> (__m256i, __m256i) {
    const WINDOW: [i32; 2 * LANES] = {
        let mut window = [0; 2 * LANES];
        let mut lane = 0;
        while lane < LANES {
            window[lane] = -1;
            lane += 1;
        }
        window
    };
    let window = &WINDOW[LANES - len..2 * LANES - len];
    unsafe {
        (
            _mm256_loadu_si256(window.as_ptr().cast()),
            _mm256_loadu_si256(window.as_ptr().add(8).cast()),
        )
    }
}

/// Multiplies by 2^power, through the exponent bits of a float.
#[inline(always)]
unsafe fn times_power_of_two(x: __m256, power: __m256) -> __m256 {
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
        _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    }
}

/// Builds an array from an expression of the index 0 to 7, written out as by `sixteen!`.
macro_rules! eight {
    ($index:ident => $value:expr) => {
        eight!(@ $index $value, 0 1 2 3 4 5 6 7)
    };
    (@ $index:ident $value:expr, $($at:literal)*) => {
        [$({ let $index: usize = $at; $value }),*]
    };
}

/// Transposes a square: lane j of vector i becomes lane i of vector j.
///
/// Interleaves pairs of rows, then pairs of pairs, then the halves of four.
#[inline(always)]
unsafe fn transposed_eight(rows: [__m256; 8]) -> [__m256; 8] {
    unsafe {
        let by_two = eight!(i => {
            let first = i / 2 * 2;
            if i == first {
                _mm256_unpacklo_ps(rows[first], rows[first + 1])
            } else {
                _mm256_unpackhi_ps(rows[first], rows[first + 1])
            }
        });
        // Each half holds the lanes of four rows in one column.
        let by_four = eight!(i => {
            let (pair, half) = (i / 2, i % 2);
            let first = pair / 2 * 4 + pair % 2;
            if half == 0 {
                _mm256_shuffle_ps::<0b01_00_01_00>(by_two[first], by_two[first + 2])
            } else {
                _mm256_shuffle_ps::<0b11_10_11_10>(by_two[first], by_two[first + 2])
            }
        });
        eight!(i => if i < 4 {
            _mm256_permute2f128_ps::<0x20>(by_four[i], by_four[i + 4])
        } else {
            _mm256_permute2f128_ps::<0x31>(by_four[i - 4], by_four[i])
        })
    }
}

impl Vector for Avx2 {
    const REGISTERS: usize = 8;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }
    #[inline(always)]
    fn load(source: &[f32]) -> Self {
        assert!(source.len() >= LANES);
        unsafe { Self(_mm256_loadu_ps(source.as_ptr()), _mm256_loadu_ps(source.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn load_partial(source: &[f32]) -> Self {
        if source.len() >= LANES {
            return Self::load(source);
        }
        unsafe {
            let (low, high) = masks(source.len());
            let upper = source.as_ptr().wrapping_add(8);
            Self(_mm256_maskload_ps(source.as_ptr(), low), _mm256_maskload_ps(upper, high))
        }
    }
    #[inline(always)]
    fn store(self, target: &mut [f32]) {
        assert!(target.len() >= LANES);
        unsafe {
            _mm256_storeu_ps(target.as_mut_ptr(), self.0);
            _mm256_storeu_ps(target.as_mut_ptr().add(8), self.1);
        }
    }
    #[inline(always)]
    fn store_partial(self, target: &mut [f32]) {
        if target.len() >= LANES {
            return self.store(target);
        }
        unsafe {
            let (low, high) = masks(target.len());
            _mm256_maskstore_ps(target.as_mut_ptr(), low, self.0);
            _mm256_maskstore_ps(target.as_mut_ptr().wrapping_add(8), high, self.1);
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        both!(_mm256_add_ps, self, other)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        both!(_mm256_sub_ps, self, other)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        both!(_mm256_mul_ps, self, other)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        both!(_mm256_div_ps, self, other)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        both!(_mm256_fmadd_ps, self, factor, addend)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        both!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        both!(_mm256_min_ps, self, other)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        both!(_mm256_sqrt_ps, self)
    }
    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, power: Self) -> Self {
        unsafe { Self(times_power_of_two(self.0, power.0), times_power_of_two(self.1, power.1)) }
    }
    #[inline(always)]
    fn zero_where_negative_infinity(self, x: Self) -> Self {
        unsafe {
            let infinity = _mm256_set1_ps(f32::NEG_INFINITY);
            Self(
                _mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_NEQ_UQ>(x.0, infinity)),
                _mm256_and_ps(self.1, _mm256_cmp_ps::<_CMP_NEQ_UQ>(x.1, infinity)),
            )
        }
    }
    #[inline(always)]
    fn swap_pairs(self) -> Self {
        unsafe {
            Self(
                _mm256_permute_ps::<0b10_11_00_01>(self.0),
                _mm256_permute_ps::<0b10_11_00_01>(self.1),
            )
        }
    }
    #[inline(always)]
    fn negate_even(self) -> Self {
        unsafe {
            let sign = _mm256_set_ps(0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0);
            Self(_mm256_xor_ps(self.0, sign), _mm256_xor_ps(self.1, sign))
        }
    }
    #[inline(always)]
    fn transposed(square: [Self; LANES]) -> [Self; LANES] {
        unsafe {
            let top = (
                transposed_eight(eight!(i => square[i].0)),
                transposed_eight(eight!(i => square[i].1)),
            );
            let bottom = (
                transposed_eight(eight!(i => square[i + 8].0)),
                transposed_eight(eight!(i => square[i + 8].1)),
            );
            sixteen!(i => if i < 8 {
                Self(top.0[i], bottom.0[i])
            } else {
                Self(top.1[i - 8], bottom.1[i - 8])
            })
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn maximum(self) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
