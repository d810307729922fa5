//! Squares of 16 lanes by 16 words, read, rounded and turned in registers of AVX-512.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm512_castps_si512,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_mask_storeu_epi32,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use std::ops::Range;

use super::{Matrix, Order, SIDE, Words};

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
            let along = lanes.column_stride() == 1;
            // SAFETY: the caller's promise.
            let square = unsafe {
                let square = if along {
                    words_of_lanes::<W>(lanes, lane, pair)
                } else {
                    words_of_pairs::<W>(lanes, lane, pair)
                };
                if along == (order != Order::Tiles) { transposed(&square) } else { square }
            };
            let rest = match order {
                Order::Single | Order::Pairs => (pairs.end - pair, width - lane),
                Order::Tiles => (width - lane, pairs.end - pair),
            };
            let mask = mask(rest.1);
            for (row, words) in square.into_iter().enumerate().take(rest.0) {
                let at = pair - pairs.start;
                let (pair, lane) = if order == Order::Tiles { (at, lane + row) } else { (at + row, lane) };
                let target = &mut target[order.index(width, pair, lane)..];
                assert!(target.len() >= rest.1.min(SIDE));
                // SAFETY: as many words as the mask has bits, asserted above.
                unsafe { _mm512_mask_storeu_epi32(target.as_mut_ptr().cast(), mask, words) };
            }
        }
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
unsafe fn words_of_lanes<W: Words>(lanes: Matrix<W::Element>, lane: usize, pair: usize) -> Square {
    let first = W::COUNT * pair;
    let rest = lanes.width.saturating_sub(first);
    // SAFETY: elements of the rows, `rest` of each.
    unsafe {
        let mut square = [_mm512_setzero_si512(); SIDE];
        for (row, words) in square.iter_mut().enumerate().take(lanes.height.saturating_sub(lane)) {
            *words = W::along(lanes.address(lane + row, first), rest);
        }
        square
    }
}

/// Where lanes are contiguous: word l of vector p is word `pair + p` of lane `lane + l`.
///
/// # Safety
/// The machine has the instructions of `W`.
#[inline(always)]
unsafe fn words_of_pairs<W: Words>(lanes: Matrix<W::Element>, lane: usize, pair: usize) -> Square {
    let columns = mask(lanes.height.saturating_sub(lane));
    let source = |k: usize| if k < lanes.width { lanes.address(lane, k) } else { std::ptr::null() };
    // SAFETY: elements of columns of the matrix, by the mask.
    unsafe {
        let mut square = [_mm512_setzero_si512(); SIDE];
        for (row, words) in square.iter_mut().enumerate() {
            let k = W::COUNT * (pair + row);
            if k >= lanes.width {
                break;
            }
            *words = W::across([source(k), source(k + 1)], columns);
        }
        square
    }
}

/// Word j of vector i becomes word i of vector j.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn transposed(rows: &Square) -> Square {
    // SAFETY: the caller's promise.
    unsafe {
        let mut by_two = *rows;
        for i in (0..SIDE).step_by(2) {
            by_two[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            by_two[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        // Four rows' words of one column, a column a 128-bit quarter.
        let mut by_four = by_two;
        for i in (0..SIDE).step_by(4) {
            by_four[i] = _mm512_unpacklo_epi64(by_two[i], by_two[i + 2]);
            by_four[i + 1] = _mm512_unpackhi_epi64(by_two[i], by_two[i + 2]);
            by_four[i + 2] = _mm512_unpacklo_epi64(by_two[i + 1], by_two[i + 3]);
            by_four[i + 3] = _mm512_unpackhi_epi64(by_two[i + 1], by_two[i + 3]);
        }
        let mut columns = *rows;
        for i in 0..4 {
            let (low, high) = (
                _mm512_shuffle_i32x4::<0x88>(by_four[i], by_four[i + 4]),
                _mm512_shuffle_i32x4::<0x88>(by_four[i + 8], by_four[i + 12]),
            );
            columns[i] = _mm512_shuffle_i32x4::<0x88>(low, high);
            columns[i + 8] = _mm512_shuffle_i32x4::<0xDD>(low, high);
            let (low, high) = (
                _mm512_shuffle_i32x4::<0xDD>(by_four[i], by_four[i + 4]),
                _mm512_shuffle_i32x4::<0xDD>(by_four[i + 8], by_four[i + 12]),
            );
            columns[i + 4] = _mm512_shuffle_i32x4::<0x88>(low, high);
            columns[i + 12] = _mm512_shuffle_i32x4::<0xDD>(low, high);
        }
        columns
    }
}
