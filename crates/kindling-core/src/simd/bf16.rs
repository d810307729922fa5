//! bf16, the upper half of an f32. Rounding is to nearest, ties to even; NaN stays NaN.

/// Returns whether the machine has AVX512-BF16 and the parts of AVX-512 that packing uses.
pub(crate) fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx512f")
            && has!("avx512bw")
            && has!("avx512dq")
            && has!("avx512vl")
            && has!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Rounds to bf16 and returns its bits.
pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// Rounds `source` to `target`.
pub(crate) fn round_all(target: &mut [u16], source: &[f32]) {
    round_scaled(target, source, 1.0);
}

/// Rounds `source` times `factor` to `target`.
pub(crate) fn round_scaled(target: &mut [u16], source: &[f32], factor: f32) {
    assert!(target.len() == source.len());
    #[cfg(target_arch = "x86_64")]
    if is_available() {
        // SAFETY: the machine has AVX512-BF16.
        unsafe { avx512::round_scaled(target, source, factor) };
        return;
    }
    target.iter_mut().zip(source).for_each(|(target, source)| *target = round(*source * factor));
}

/// Widens `source` to `target`.
pub(crate) fn widen_all(target: &mut [f32], source: &[u16]) {
    assert!(target.len() == source.len());
    #[cfg(target_arch = "x86_64")]
    if is_available() {
        // SAFETY: the machine has AVX512-BF16.
        unsafe { avx512::widen_all(target, source) };
        return;
    }
    target.iter_mut().zip(source).for_each(|(target, source)| *target = widen(*source));
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m256bh, __m256i, _mm256_mask_storeu_epi16, _mm512_cvtneps_pbh, _mm512_maskz_loadu_ps,
        _mm512_mul_ps, _mm512_set1_ps,
    };

    const LANES: usize = 16;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn round_scaled(target: &mut [u16], source: &[f32], factor: f32) {
        let factor = _mm512_set1_ps(factor);
        for (target, source) in target.chunks_mut(LANES).zip(source.chunks(LANES)) {
            let mask = ((1u32 << source.len()) - 1) as u16;
            // SAFETY: the mask covers the elements of the chunks; the transmute keeps the 256 bits.
            unsafe {
                let values = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, source.as_ptr()), factor);
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
                _mm256_mask_storeu_epi16(target.as_mut_ptr().cast(), mask, rounded);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn widen_all(target: &mut [f32], source: &[u16]) {
        target.iter_mut().zip(source).for_each(|(target, source)| *target = super::widen(*source));
    }
}

/// Returns the value of a bf16.
pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds two neighbours to a word of two bf16, the first in the low half.
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    u32::from(round(first)) | u32::from(round(second)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, LANES, Vector};

    #[inline(always)]
    fn load_vector<V: Vector>(source: &[u16], out: &mut [f32]) {
        V::load_partial_bf16(source).store(out);
    }
    crate::dispatch! { fn load(source: &[u16], out: &mut [f32]) = load_vector; }

    #[test]
    fn vectors_are_widened_and_padded_with_zeros_on_every_instruction_set() {
        let bits: Vec<u16> = (0..LANES).map(|i| round(i as f32 * 0.37 - 2.0)).collect();
        for isa in Isa::available() {
            for len in 0..=LANES {
                let mut out = [9.0; LANES];
                load(isa, &bits[..len], &mut out);
                for (i, value) in out.into_iter().enumerate() {
                    assert!(value == if i < len { widen(bits[i]) } else { 0.0 }, "{isa:?} {len}");
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even_and_keeps_nan() {
        for (value, expected) in [
            (1.0, 0x3F80),
            (-2.0, 0xC000),
            (f32::from_bits(0x3F80_8000), 0x3F80),
            (f32::from_bits(0x3F81_8000), 0x3F82),
            (f32::from_bits(0x3F80_8001), 0x3F81),
            (f32::MAX, 0x7F80),
            (f32::INFINITY, 0x7F80),
        ] {
            assert_eq!(round(value), expected, "{value}");
        }
        assert!(
            widen(round(f32::NAN)).is_nan() && widen(round(f32::from_bits(0x7F80_0001))).is_nan()
        );
        assert_eq!(pair(1.0, -2.0), 0xC000_3F80);
    }

    #[test]
    fn slices_round_and_widen_like_single_values() {
        for len in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
            let mut rounded = vec![9; len];
            for factor in [0.3, 1.0] {
                round_scaled(&mut rounded, &values, factor);
                let expected = values.iter().map(|value| round(value * factor));
                assert!(rounded.iter().copied().eq(expected));
            }
            let mut widened = vec![9.0; len];
            widen_all(&mut widened, &rounded);
            assert!(widened.iter().zip(&rounded).all(|(value, bits)| *value == widen(*bits)));
        }
    }
}
