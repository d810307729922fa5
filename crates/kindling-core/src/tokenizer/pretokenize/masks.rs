//! Bitmasks of the classes of 64 bytes; bit i stands for byte i.
//!
//! Only ASCII is classified. Bytes of longer characters are marked in `Masks::high`, and the caller
//! adds their classes.

#[cfg(test)]
use crate::simd::Isa;

/// Bytes covered by one set of masks.
pub const MASK_BYTES: usize = 64;

/// Classes of `MASK_BYTES` bytes. A byte in no mask is punctuation, a symbol or a control
/// character.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Masks {
    /// `[A-Za-z]`.
    pub letter: u64,
    /// `[0-9]`.
    pub number: u64,
    /// `[ \t\n\v\f\r]`.
    pub space: u64,
    /// The space character, 0x20.
    pub blank: u64,
    /// `'`.
    pub apostrophe: u64,
    /// Bytes from 0x80: part of a character outside ASCII.
    pub high: u64,
}

/// Classifies bytes with one instruction set.
pub trait Classify: Copy {
    /// Classifies `bytes`. May only be called where the instruction set is available.
    fn masks(bytes: &[u8; MASK_BYTES]) -> Masks;
}

/// Code for any processor.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

impl Classify for Portable {
    #[inline(always)]
    fn masks(bytes: &[u8; MASK_BYTES]) -> Masks {
        let mut masks = Masks::default();
        for (i, byte) in bytes.iter().enumerate() {
            let bit = |is: bool| u64::from(is) << i;
            masks.letter |= bit(byte.is_ascii_alphabetic());
            masks.number |= bit(byte.is_ascii_digit());
            masks.space |= bit(matches!(byte, b' ' | 9..=13));
            masks.blank |= bit(*byte == b' ');
            masks.apostrophe |= bit(*byte == b'\'');
            masks.high |= bit(*byte >= 0x80);
        }
        masks
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Classify, MASK_BYTES, Masks};

    /// AVX-512BW.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx512;

    impl Classify for Avx512 {
        #[inline(always)]
        fn masks(bytes: &[u8; MASK_BYTES]) -> Masks {
            // SAFETY: the load reads the 64 bytes of the array, and callers ensure that AVX-512BW
            // is available.
            unsafe {
                let x = _mm512_loadu_si512(bytes.as_ptr().cast());
                let below = |x, first: u8, count: u8| {
                    let from_first = _mm512_sub_epi8(x, _mm512_set1_epi8(first as i8));
                    _mm512_cmplt_epu8_mask(from_first, _mm512_set1_epi8(count as i8))
                };
                let is = |byte: u8| _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8(byte as i8));
                let blank = is(b' ');
                Masks {
                    letter: below(_mm512_or_si512(x, _mm512_set1_epi8(0x20)), b'a', 26),
                    number: below(x, b'0', 10),
                    space: blank | below(x, 9, 5),
                    blank,
                    apostrophe: is(b'\''),
                    high: _mm512_movepi8_mask(x),
                }
            }
        }
    }

    /// AVX2.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx2;

    impl Classify for Avx2 {
        #[inline(always)]
        fn masks(bytes: &[u8; MASK_BYTES]) -> Masks {
            // SAFETY: the array has the size of two vectors, any bits are valid vectors, and
            // callers ensure that AVX2 is available.
            unsafe {
                let halves = std::mem::transmute::<[u8; MASK_BYTES], [__m256i; 2]>(*bytes);
                let both = |f: &dyn Fn(__m256i) -> __m256i| {
                    let [low, high] =
                        halves.map(|half| u64::from(_mm256_movemask_epi8(f(half)).cast_unsigned()));
                    low | high << 32
                };
                let below = |x, first: u8, count: u8| {
                    let from_first = _mm256_sub_epi8(x, _mm256_set1_epi8(first as i8));
                    let last = _mm256_set1_epi8((count - 1) as i8);
                    _mm256_cmpeq_epi8(_mm256_min_epu8(from_first, last), from_first)
                };
                let is = |byte: u8| both(&|x| _mm256_cmpeq_epi8(x, _mm256_set1_epi8(byte as i8)));
                let blank = is(b' ');
                Masks {
                    letter: both(&|x| below(_mm256_or_si256(x, _mm256_set1_epi8(0x20)), b'a', 26)),
                    number: both(&|x| below(x, b'0', 10)),
                    space: blank | both(&|x| below(x, 9, 5)),
                    blank,
                    apostrophe: is(b'\''),
                    high: both(&|x| x),
                }
            }
        }
    }
}

/// Classifies `bytes` with an instruction set, for tests.
#[cfg(test)]
pub fn masks_on(isa: Isa, bytes: &[u8; MASK_BYTES]) -> Masks {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512(bytes: &[u8; MASK_BYTES]) -> Masks {
            Avx512::masks(bytes)
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(bytes: &[u8; MASK_BYTES]) -> Masks {
            Avx2::masks(bytes)
        }
        match isa {
            // SAFETY: detection returns an Isa above Scalar only where these features exist.
            Isa::Avx512 => return unsafe { avx512(bytes) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(bytes) },
            Isa::Scalar => {}
        }
    }
    let _ = isa;
    Portable::masks(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_classifies_every_byte_at_every_position_alike() {
        for shift in 0..=255u8 {
            let bytes: [u8; MASK_BYTES] =
                std::array::from_fn(|i| (i as u8).wrapping_mul(3).wrapping_add(shift));
            let expected = masks_on(Isa::available()[0], &bytes);
            for isa in Isa::available() {
                assert_eq!(masks_on(isa, &bytes), expected, "{isa:?} {shift}");
            }
        }
    }
}
