//! bf16: the upper half of an f32. Rounding is to nearest, ties to even; NaN stays NaN.

/// Whether the machine has AVX512-BF16 (and the AVX-512 that packing uses).
pub(crate) fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The bf16 next to `value`, in the low half.
pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// Its value.
pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Two neighbours as one word, the first in the low half.
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    u32::from(round(first)) | u32::from(round(second)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_ties_to_even_and_keeps_nan() {
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
        assert!(widen(round(f32::NAN)).is_nan() && widen(round(f32::from_bits(0x7F80_0001))).is_nan());
        assert_eq!(pair(1.0, -2.0), 0xC000_3F80);
    }
}
