//! Squares of 16 lanes by 16 words, read, rounded and turned in registers of AVX-512.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm512_castps_si512,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_mask_storeu_epi32,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_storeu_si512,
};

use std::ops::Range;

use super::{Matrix, Order, SIDE, Words};
use crate::simd::{sixteen, transposed};

/// Sixteen words of each of sixteen lanes, or of sixteen pairs.
type Square = [__m512i; SIDE];

/// As `plain` of the parent, for words of pairs.
///
/// # Safety
/// The machine has AVX512-BF16, and rows or columns of `lanes` are contiguous.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn panel_pairs<W: Words>(
    target: &mut [u32],
    lanes: Matrix<W::Element>,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { panel::<W>(target, lanes, width, order, pairs) }
}

/// As `panel_pairs`, for words of f32.
///
/// # Safety
/// The machine has AVX-512, and `W` is `Single`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn panel_f32<W: Words>(
    target: &mut [u32],
    lanes: Matrix<W::Element>,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    // SAFETY: the caller's promise.
    unsafe { panel::<W>(target, lanes, width, order, pairs) }
}

/// # Safety
/// The machine has the instructions of `W`.
#[inline(always)]
unsafe fn panel<W: Words>(
    target: &mut [u32],
    lanes: Matrix<W::Element>,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    for pair in pairs.clone().step_by(SIDE) {
        for lane in (0..width).step_by(SIDE) {
            let part = target.len();
            let (words, wide) = (SIDE.min(pairs.end - pair), SIDE.min(width - lane));
            let at = order.index(width, pair - pairs.start, lane);
            // Rows of the turned square, their length, and how far apart they begin.
            let (rows, len, stride) =
                if order == Order::Tiles { (wide, words, SIDE) } else { (words, wide, width) };
            assert!(rows > 0 && at + (rows - 1) * stride + len <= part);
            let whole = words == SIDE
                && lane + wide <= lanes.height
                && W::COUNT * (pair + SIDE) <= lanes.width
                && (order != Order::Tiles || wide == SIDE);
            let target = target[at..].as_mut_ptr().cast();
            // SAFETY: the caller's promise; the rows lie in `target`, asserted above.
            unsafe {
                if whole {
                    square::<W, true>(target, lanes, [lane, pair], order, [rows, len, stride]);
                } else {
                    square::<W, false>(target, lanes, [lane, pair], order, [rows, len, stride]);
                }
            }
        }
    }
}

/// One square, of which all words are there where `WHOLE`.
///
/// # Safety
/// The machine has the instructions of `W`; `rows` rows of `len` words, `stride` apart, can be written to `target`.
#[inline(always)]
unsafe fn square<W: Words, const WHOLE: bool>(
    target: *mut i32,
    lanes: Matrix<W::Element>,
    [lane, pair]: [usize; 2],
    order: Order,
    [rows, len, stride]: [usize; 3],
) {
    let along = lanes.column_stride() == 1;
    // SAFETY: the caller's promise.
    unsafe {
        let square = if along {
            words_of_lanes::<W, WHOLE>(lanes, lane, pair)
        } else {
            words_of_pairs::<W, WHOLE>(lanes, lane, pair)
        };
        let square = if along == (order != Order::Tiles) { transposed(square) } else { square };
        let _: [(); SIDE] = sixteen!(row => {
            let to = target.wrapping_add(row * stride);
            if WHOLE && row + 1 < SIDE && (len == SIDE || stride == len && len >= SIDE / 2) {
                // Words too many are those of the next rows, which follow.
                _mm512_storeu_si512(to.cast(), square[row]);
            } else if row < rows {
                _mm512_mask_storeu_epi32(to, mask(len), square[row]);
            }
        });
    }
}

pub(super) fn mask(count: usize) -> u16 {
    ((1u32 << count.min(SIDE)) - 1) as u16
}

/// Of 32.
pub(super) fn wide_mask(count: usize) -> u32 {
    ((1u64 << count.min(2 * SIDE)) - 1) as u32
}

/// The mask, or none of it where there is no source.
pub(super) fn of<T>(source: *const T, mask: u16) -> u16 {
    if source.is_null() { 0 } else { mask }
}

/// Low halves of words, and those that become their high halves.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
pub(super) unsafe fn joined([low, high]: [__m512i; 2]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_or_si512(low, _mm512_slli_epi32::<16>(high)) }
}

/// 16 of f32 as words.
///
/// # Safety
/// The machine has AVX-512; the elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn whole(source: *const f32, mask: u16) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, source)) }
}

/// 32 of f32, rounded.
///
/// # Safety
/// The elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn round_row(source: *const f32, mask: u32) -> __m512i {
    // SAFETY: elements of the mask; the same 512 bits.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask as u16, source);
        let high = _mm512_maskz_loadu_ps((mask >> SIDE) as u16, source.wrapping_add(SIDE));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// 16 of f32, rounded, in the low halves of words.
///
/// # Safety
/// The elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn round_halves(source: *const f32, mask: u16) -> __m512i {
    // SAFETY: elements of the mask; the same 256 bits.
    unsafe {
        let values = _mm512_maskz_loadu_ps(mask, source);
        let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
        _mm512_cvtepu16_epi32(rounded)
    }
}

/// 32 of bf16.
///
/// # Safety
/// The elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn row(source: *const u16, mask: u32) -> __m512i {
    // SAFETY: elements of the mask.
    unsafe { _mm512_maskz_loadu_epi16(mask, source.cast()) }
}

/// 16 of bf16, in the low halves of words.
///
/// # Safety
/// The elements of the mask can be read.
#[inline(always)]
pub(super) unsafe fn halves(source: *const u16, mask: u16) -> __m512i {
    // SAFETY: elements of the mask.
    unsafe { _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, source.cast())) }
}

/// Where k is contiguous: word p of vector l is word `pair + p` of lane `lane + l`.
///
/// # Safety
/// The machine has the instructions of `W`.
#[inline(always)]
unsafe fn words_of_lanes<W: Words, const WHOLE: bool>(
    lanes: Matrix<W::Element>,
    lane: usize,
    pair: usize,
) -> Square {
    let first = W::COUNT * pair;
    let rest = if WHOLE { W::COUNT * SIDE } else { lanes.width.saturating_sub(first) };
    let present = lanes.height.saturating_sub(lane);
    // SAFETY: elements of the rows, `rest` of each.
    unsafe {
        sixteen!(row => if row < present {
            W::along(lanes.address(lane + row, first), rest)
        } else {
            _mm512_setzero_si512()
        })
    }
}

/// Where lanes are contiguous: word l of vector p is word `pair + p` of lane `lane + l`.
///
/// # Safety
/// The machine has the instructions of `W`.
#[inline(always)]
unsafe fn words_of_pairs<W: Words, const WHOLE: bool>(
    lanes: Matrix<W::Element>,
    lane: usize,
    pair: usize,
) -> Square {
    let columns = mask(lanes.height.saturating_sub(lane));
    let source =
        |k: usize| if WHOLE || k < lanes.width { lanes.address(lane, k) } else { std::ptr::null() };
    // SAFETY: elements of columns of the matrix, by the mask.
    unsafe {
        sixteen!(row => {
            let k = W::COUNT * (pair + row);
            if WHOLE || k < lanes.width {
                W::across([source(k), source(k + 1)], columns)
            } else {
                _mm512_setzero_si512()
            }
        })
    }
}
