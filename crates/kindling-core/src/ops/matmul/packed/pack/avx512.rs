//! Packing by AVX-512: squares of 16 rows by 16 words are loaded, rounded and transposed in
//! registers.
//!
//! 1. A square is loaded along whichever of k and the rows is contiguous, one register per row or
//!    per word.
//! 2. A layout that needs the other order gets the transposed square.
//! 3. Squares at the edge are loaded and stored by masks. Whole ones (`WHOLE`) are a copy of the
//!    code without masks.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm512_castps_si512, _mm512_castsi256_si512,
    _mm512_cvtne2ps_pbh, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_mask_storeu_epi32,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
    _mm512_setzero_si512, _mm512_storeu_si512,
};

use super::{Matrix, PanelLayout, PanelPart, Word};
use crate::simd::{sixteen, transposed};

/// Rows, and words along k, of a square.
const SIDE: usize = 16;

/// Sixteen words of each of sixteen rows, or sixteen rows of each of sixteen words.
type Square = [__m512i; SIDE];

/// Like `pack_plain` of the parent, for words of bf16.
///
/// # Safety
/// The machine has AVX512-BF16, and the rows or the columns of `rows` are contiguous.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_bf16<W: Word>(
    target: &mut [u32],
    rows: Matrix<W::Element>,
    part: &PanelPart,
) {
    // SAFETY: by the caller's promise.
    unsafe { pack::<W>(target, rows, part) }
}

/// Like `pack_bf16`, for words of f32.
///
/// # Safety
/// The machine has AVX-512, `W` is `F32Word`, and the rows or the columns of `rows` are contiguous.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_f32<W: Word>(
    target: &mut [u32],
    rows: Matrix<W::Element>,
    part: &PanelPart,
) {
    // SAFETY: by the caller's promise.
    unsafe { pack::<W>(target, rows, part) }
}

/// The destination of a square: `rows` rows of `len` words, `stride` words apart.
#[derive(Clone, Copy)]
struct Target {
    start: *mut i32,
    rows: usize,
    len: usize,
    stride: usize,
}

/// # Safety
/// The machine has the instructions of `W`.
#[inline(always)]
unsafe fn pack<W: Word>(target: &mut [u32], rows: Matrix<W::Element>, part: &PanelPart) {
    let (height, layout, k_words) = (part.height, part.layout, part.k_words.clone());
    for k_word in k_words.clone().step_by(SIDE) {
        for row in (0..height).step_by(SIDE) {
            let (deep, high) = (SIDE.min(k_words.end - k_word), SIDE.min(height - row));
            let at = layout.index(height, k_word - k_words.start, row);
            let (lines, len, stride) = if layout == PanelLayout::Bf16Tiles {
                (high, deep, SIDE)
            } else {
                (deep, high, height)
            };
            assert!(lines > 0 && at + (lines - 1) * stride + len <= target.len());
            let is_whole = deep == SIDE
                && row + high <= rows.height
                && W::ELEMENTS * (k_word + SIDE) <= rows.width
                && (layout != PanelLayout::Bf16Tiles || high == SIDE);
            let target =
                Target { start: target[at..].as_mut_ptr().cast(), rows: lines, len, stride };
            // SAFETY: by the caller's promise; `target` lies in the slice (asserted).
            unsafe {
                if is_whole {
                    pack_square::<W, true>(target, rows, [row, k_word], layout);
                } else {
                    pack_square::<W, false>(target, rows, [row, k_word], layout);
                }
            }
        }
    }
}

/// Packs one square, all of whose words exist if `WHOLE` is set.
///
/// # Safety
/// The machine has the instructions of `W`, and the target can be written.
#[inline(always)]
unsafe fn pack_square<W: Word, const WHOLE: bool>(
    target: Target,
    rows: Matrix<W::Element>,
    [row, k_word]: [usize; 2],
    layout: PanelLayout,
) {
    let contiguous_rows = rows.column_stride() == 1;
    let Target { start, rows: lines, len, stride } = target;
    // SAFETY: by the caller's promise.
    unsafe {
        let square = if contiguous_rows {
            load_rows::<W, WHOLE>(rows, row, k_word)
        } else {
            load_columns::<W, WHOLE>(rows, row, k_word)
        };
        let wants_rows = layout == PanelLayout::Bf16Tiles;
        let square = if contiguous_rows == wants_rows { square } else { transposed(square) };
        let _: [(); SIDE] = sixteen!(line => {
            let to = start.wrapping_add(line * stride);
            if WHOLE && line + 1 < SIDE && (len == SIDE || stride == len && len >= SIDE / 2) {
                // The excess words of a shorter line fall in the next line, which is stored later.
                _mm512_storeu_si512(to.cast(), square[line]);
            } else if line < lines {
                _mm512_mask_storeu_epi32(to, mask16(len), square[line]);
            }
        });
    }
}

/// Loads rows whose elements are contiguous: word p of vector r is word `k_word + p` of row
/// `row + r`.
///
/// # Safety
/// The machine has the instructions of `W`.
#[inline(always)]
unsafe fn load_rows<W: Word, const WHOLE: bool>(
    rows: Matrix<W::Element>,
    row: usize,
    k_word: usize,
) -> Square {
    let k = W::ELEMENTS * k_word;
    let present = if WHOLE { W::ELEMENTS * SIDE } else { rows.width.saturating_sub(k) };
    let present_rows = rows.height.saturating_sub(row);
    // SAFETY: elements of the matrix, `present` of each row.
    unsafe {
        sixteen!(index => if index < present_rows {
            W::load_row(rows.address(row + index, k), present)
        } else {
            _mm512_setzero_si512()
        })
    }
}

/// Loads columns whose elements are contiguous: word r of vector p is word `k_word + p` of row
/// `row + r`.
///
/// # Safety
/// The machine has the instructions of `W`.
#[inline(always)]
unsafe fn load_columns<W: Word, const WHOLE: bool>(
    rows: Matrix<W::Element>,
    row: usize,
    k_word: usize,
) -> Square {
    let mask = mask16(rows.height.saturating_sub(row));
    let mask_of = |k: usize| if WHOLE || k < rows.width { mask } else { 0 };
    // SAFETY: elements of columns of the matrix, by the masks.
    unsafe {
        sixteen!(index => {
            let k = W::ELEMENTS * (k_word + index);
            let sources = [rows.address(row, k), rows.address(row, k + 1)];
            W::load_column(sources, [mask_of(k), mask_of(k + 1)])
        })
    }
}

/// Returns the mask of the first `count` of 16 elements.
pub(super) fn mask16(count: usize) -> u16 {
    ((1u32 << count.min(SIDE)) - 1) as u16
}

/// Returns the mask of the first `count` of 32 elements.
pub(super) fn mask32(count: usize) -> u32 {
    ((1u64 << count.min(2 * SIDE)) - 1) as u32
}

/// Loads 16 f32 as words.
///
/// # Safety
/// The machine has AVX-512, and the elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn load_f32(source: *const f32, mask: u16) -> __m512i {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, source)) }
}

/// Loads 32 f32 and rounds them to 16 words.
///
/// # Safety
/// The machine has AVX512-BF16, and the elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn round_32(source: *const f32, mask: u32) -> __m512i {
    // SAFETY: elements of the mask; the transmute keeps the 512 bits.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask as u16, source);
        let high = _mm512_maskz_loadu_ps((mask >> SIDE) as u16, source.wrapping_add(SIDE));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// Loads 16 f32 for the low and 16 for the high halves of words, and rounds them.
///
/// # Safety
/// The machine has AVX512-BF16, and the elements of the masks can be read.
#[inline(always)]
pub(super) unsafe fn round_and_interleave(
    [low, high]: [*const f32; 2],
    masks: [u16; 2],
) -> __m512i {
    // SAFETY: elements of the masks; the transmute keeps the 512 bits.
    unsafe {
        let low = _mm512_maskz_loadu_ps(masks[0], low);
        let high = _mm512_maskz_loadu_ps(masks[1], high);
        interleaved(std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)))
    }
}

/// Loads 32 bf16 as 16 words.
///
/// # Safety
/// The machine has AVX-512 BW, and the elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn load_bf16(source: *const u16, mask: u32) -> __m512i {
    // SAFETY: elements of the mask.
    unsafe { _mm512_maskz_loadu_epi16(mask, source.cast()) }
}

/// Loads 16 bf16 for the low and 16 for the high halves of words.
///
/// # Safety
/// The machine has AVX-512 BW and VL, and the elements of the masks can be read.
#[inline(always)]
pub(super) unsafe fn load_and_interleave([low, high]: [*const u16; 2], masks: [u16; 2]) -> __m512i {
    // SAFETY: elements of the masks.
    unsafe {
        let low = _mm256_maskz_loadu_epi16(masks[0], low.cast());
        let high = _mm256_maskz_loadu_epi16(masks[1], high.cast());
        interleaved(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
    }
}

/// Returns words of elements i and 16 + i.
///
/// # Safety
/// The machine has AVX-512 BW.
#[inline(always)]
unsafe fn interleaved(halves: __m512i) -> __m512i {
    const ORDER: [u16; 2 * SIDE] = {
        let mut order = [0; 2 * SIDE];
        let mut at = 0;
        while at < 2 * SIDE {
            order[at] = (at / 2 + at % 2 * SIDE) as u16;
            at += 1;
        }
        order
    };
    // SAFETY: by the caller's promise; the 64 bytes of an array.
    unsafe { _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), halves) }
}
