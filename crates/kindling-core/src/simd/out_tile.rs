//! The part of a matrix that a product's kernel writes, and the ways to write a row of it.
//!
//! Sums are f32. The matrix is f32, or bf16, to which the sums are rounded.

use super::bf16;

/// Maximum number of columns in a tile: two vectors of f32.
pub(crate) const TILE_COLUMNS: usize = 32;
/// Size from which an output is written past the caches: its start would be evicted before the next
/// op reads it.
const MIN_STREAMED_BYTES: usize = 4 << 20;
/// Width of the stores that go past the caches.
const CACHE_LINE: usize = 64;

/// What becomes of the old elements of an output, and how the new ones are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteMode {
    Overwrite,
    /// Overwrites whole lines by non-temporal stores, which do not read them from memory first.
    /// Rows start on a cache line.
    Stream,
    /// Adds to the old elements. f32 only.
    Accumulate,
}

/// A rectangle of a matrix: `rows` rows of `cols` elements, `stride` elements apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutTile<T> {
    pub ptr: *mut T,
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
    pub mode: WriteMode,
}

impl<T> OutTile<T> {
    /// Returns the tile of at most `rows` by `cols` elements that starts at (row, col).
    pub(crate) fn tile(self, [row, col]: [usize; 2], [rows, cols]: [usize; 2]) -> Self {
        debug_assert!(row < self.rows && col < self.cols);
        Self {
            ptr: self.ptr.wrapping_add(row * self.stride + col),
            rows: rows.min(self.rows - row),
            cols: cols.min(self.cols - col),
            ..self
        }
    }

    /// Returns the mode for a tile of an output of `len` elements that is overwritten.
    pub(crate) fn overwrite_mode(ptr: *const T, stride: usize, len: usize) -> WriteMode {
        let is_aligned = ptr.addr().is_multiple_of(CACHE_LINE)
            && (stride * size_of::<T>()).is_multiple_of(CACHE_LINE);
        let is_large = len * size_of::<T>() >= MIN_STREAMED_BYTES;
        if is_aligned && is_large { WriteMode::Stream } else { WriteMode::Overwrite }
    }
}

/// An element of an output.
pub(crate) trait OutElement: Copy + Send + Sync {
    /// Writes the first `cols` of 32 sums.
    ///
    /// # Safety
    /// `cols` elements from `to` can be written and 32 from `sums` read. For `Stream`, `to` is
    /// aligned to a cache line.
    unsafe fn write(to: *mut Self, sums: *const f32, cols: usize, mode: WriteMode);

    /// Like `write`, from two vectors.
    ///
    /// # Safety
    /// As for `write`, on a machine with AVX-512; for bf16 with AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    unsafe fn write_vectors(
        to: *mut Self,
        sums: [std::arch::x86_64::__m512; 2],
        cols: usize,
        mode: WriteMode,
    );
}

impl OutElement for f32 {
    #[inline(always)]
    unsafe fn write(to: *mut Self, sums: *const f32, cols: usize, mode: WriteMode) {
        for col in 0..cols {
            // SAFETY: by the caller's promise.
            unsafe {
                let sum = *sums.add(col);
                *to.add(col) = if mode == WriteMode::Accumulate { *to.add(col) + sum } else { sum };
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn write_vectors(
        to: *mut Self,
        sums: [std::arch::x86_64::__m512; 2],
        cols: usize,
        mode: WriteMode,
    ) {
        // SAFETY: by the caller's promise.
        unsafe { avx512::write_f32(to, sums, cols, mode) }
    }
}

/// Bits of bf16.
impl OutElement for u16 {
    #[inline(always)]
    unsafe fn write(to: *mut Self, sums: *const f32, cols: usize, mode: WriteMode) {
        debug_assert!(mode != WriteMode::Accumulate);
        for col in 0..cols {
            // SAFETY: by the caller's promise.
            unsafe { *to.add(col) = bf16::round(*sums.add(col)) };
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn write_vectors(
        to: *mut Self,
        sums: [std::arch::x86_64::__m512; 2],
        cols: usize,
        mode: WriteMode,
    ) {
        debug_assert!(mode != WriteMode::Accumulate);
        // SAFETY: by the caller's promise.
        unsafe { avx512::write_bf16(to, sums, cols, mode) }
    }
}

/// Makes the stores of `WriteMode::Stream` visible before those that follow, such as the one that
/// marks a task as done.
pub(crate) fn finish_streaming() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_loadu_ps,
        _mm512_mask_storeu_epi16, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_storeu_ps,
        _mm512_storeu_si512, _mm512_stream_ps, _mm512_stream_si512,
    };

    use super::{TILE_COLUMNS, WriteMode};

    const LANES: usize = 16;

    /// # Safety
    /// As for `OutElement::write_vectors`.
    #[inline(always)]
    pub(super) unsafe fn write_f32(
        to: *mut f32,
        [low, high]: [__m512; 2],
        cols: usize,
        mode: WriteMode,
    ) {
        let (to_low, to_high) = (to, to.wrapping_add(LANES));
        let mask = ((1u64 << cols) - 1) as u32;
        let (mask_low, mask_high) = (mask as u16, (mask >> LANES) as u16);
        // SAFETY: by the caller's promise; elements of the mask.
        unsafe {
            match (mode, cols) {
                (WriteMode::Stream, TILE_COLUMNS) => {
                    _mm512_stream_ps(to_low, low);
                    _mm512_stream_ps(to_high, high);
                }
                (WriteMode::Accumulate, TILE_COLUMNS) => {
                    _mm512_storeu_ps(to_low, _mm512_add_ps(_mm512_loadu_ps(to_low), low));
                    _mm512_storeu_ps(to_high, _mm512_add_ps(_mm512_loadu_ps(to_high), high));
                }
                (WriteMode::Accumulate, _) => {
                    let old_low = _mm512_maskz_loadu_ps(mask_low, to_low);
                    let old_high = _mm512_maskz_loadu_ps(mask_high, to_high);
                    _mm512_mask_storeu_ps(to_low, mask_low, _mm512_add_ps(old_low, low));
                    _mm512_mask_storeu_ps(to_high, mask_high, _mm512_add_ps(old_high, high));
                }
                (WriteMode::Overwrite, TILE_COLUMNS) => {
                    _mm512_storeu_ps(to_low, low);
                    _mm512_storeu_ps(to_high, high);
                }
                (WriteMode::Overwrite | WriteMode::Stream, _) => {
                    _mm512_mask_storeu_ps(to_low, mask_low, low);
                    _mm512_mask_storeu_ps(to_high, mask_high, high);
                }
            }
        }
    }

    /// # Safety
    /// As for `OutElement::write_vectors`.
    #[inline(always)]
    pub(super) unsafe fn write_bf16(
        to: *mut u16,
        [low, high]: [__m512; 2],
        cols: usize,
        mode: WriteMode,
    ) {
        // SAFETY: by the caller's promise; elements of the mask; the transmute keeps the 512 bits.
        unsafe {
            let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            match (mode, cols) {
                (WriteMode::Stream, TILE_COLUMNS) => _mm512_stream_si512(to.cast(), rounded),
                (_, TILE_COLUMNS) => _mm512_storeu_si512(to.cast(), rounded),
                _ => {
                    let mask = ((1u64 << cols) - 1) as u32;
                    _mm512_mask_storeu_epi16(to.cast(), mask, rounded);
                }
            }
        }
    }
}
