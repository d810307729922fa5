//! Kernels of AVX-512: a tile of 14 rows by 32 columns.
//!
//! 28 registers hold the sums and two hold a row of b, while one word of a at a time is broadcast
//! to all lanes:
//!
//! ```text
//! for each word p along k:
//!     b0, b1 = b[p][0..16], b[p][16..32]
//!     for each row i:
//!         sums[i][0] += a[p][i] * b0
//!         sums[i][1] += a[p][i] * b1
//! ```
//!
//! 1. A word is one f32, for a fused multiply-add, or two bf16, for `vdpbf16ps`. `MultiplyAdd` is
//!    all that differs.
//! 2. A tile at the edge computes only its rows, two at a time, and its vectors of columns: the
//!    kernel is compiled for each number of them.
//! 3. Panels are prefetched to L1 eight words ahead. A panel longer than L1 comes from L2 each
//!    time.
//! 4. Rows of the output are prefetched one by one while sums are made, to be ready when they are
//!    added to or written.

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{multiply_bf16, multiply_f32};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_castsi512_ps,
        _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    };

    use super::super::geometry::{AVX512_ROWS, PANEL_COLUMNS};
    use super::super::out_tile::OutTile;

    const LANES: usize = 16;
    /// Words along k by which panels are prefetched.
    const PREFETCH_DISTANCE: usize = 8;

    trait MultiplyAdd {
        /// Returns sum + a b for words of a and b.
        ///
        /// # Safety
        /// The machine has the instruction.
        unsafe fn multiply_add(sum: __m512, a: __m512i, b: __m512i) -> __m512;
    }

    struct Bf16Pairs;

    impl MultiplyAdd for Bf16Pairs {
        #[inline(always)]
        unsafe fn multiply_add(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: by the caller's promise; the transmutes keep the 512 bits.
            unsafe {
                _mm512_dpbf16_ps(
                    sum,
                    std::mem::transmute::<__m512i, __m512bh>(a),
                    std::mem::transmute::<__m512i, __m512bh>(b),
                )
            }
        }
    }

    struct F32;

    impl MultiplyAdd for F32 {
        #[inline(always)]
        unsafe fn multiply_add(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: by the caller's promise.
            unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum) }
        }
    }

    /// Computes out = a b (or +=) from a panel of a, [k word][row], and one of b, [k word][column],
    /// of bf16.
    ///
    /// # Safety
    /// The machine has AVX512-BF16, and the tile may be written.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(in super::super) unsafe fn multiply_bf16(a: &[u32], b: &[u32], out: OutTile) {
        // SAFETY: by the caller's promise.
        unsafe { by_size::<Bf16Pairs>(a, b, out) }
    }

    /// Like `multiply_bf16`, of f32.
    ///
    /// # Safety
    /// The machine has AVX-512, and the tile may be written.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn multiply_f32(a: &[u32], b: &[u32], out: OutTile) {
        // SAFETY: by the caller's promise.
        unsafe { by_size::<F32>(a, b, out) }
    }

    /// Selects the loop for the rows, rounded up to a multiple of two, and the vectors of columns.
    ///
    /// # Safety
    /// As for `multiply_bf16`.
    #[inline(always)]
    unsafe fn by_size<M: MultiplyAdd>(a: &[u32], b: &[u32], out: OutTile) {
        macro_rules! by_rows {
            ($vectors:literal) => {
                match out.rows.div_ceil(2) {
                    0 => {}
                    1 => multiply_tile::<M, 2, $vectors>(a, b, out),
                    2 => multiply_tile::<M, 4, $vectors>(a, b, out),
                    3 => multiply_tile::<M, 6, $vectors>(a, b, out),
                    4 => multiply_tile::<M, 8, $vectors>(a, b, out),
                    5 => multiply_tile::<M, 10, $vectors>(a, b, out),
                    6 => multiply_tile::<M, 12, $vectors>(a, b, out),
                    _ => multiply_tile::<M, AVX512_ROWS, $vectors>(a, b, out),
                }
            };
        }
        // SAFETY: by the caller's promise.
        unsafe {
            if out.cols > LANES {
                by_rows!(2);
            } else {
                by_rows!(1);
            }
        }
    }

    /// Multiplies for a tile of `R` or `R - 1` rows and `V` vectors of columns.
    ///
    /// # Safety
    /// As for `multiply_bf16`.
    #[inline(always)]
    unsafe fn multiply_tile<M: MultiplyAdd, const R: usize, const V: usize>(
        a: &[u32],
        b: &[u32],
        out: OutTile,
    ) {
        let k_words = b.len() / PANEL_COLUMNS;
        assert!(
            a.len() == k_words * AVX512_ROWS
                && out.rows <= R
                && out.rows + 1 >= R
                && out.cols <= V * LANES
        );
        let mask = |columns: usize| ((1u32 << columns.min(LANES)) - 1) as u16;
        let masks: [u16; V] = std::array::from_fn(|vector| mask(out.cols - vector * LANES));
        let out_row = |row: usize, vector: usize| {
            // SAFETY: a row of the tile.
            unsafe { out.ptr.add(row * out.stride).wrapping_add(vector * LANES) }
        };
        // SAFETY: by the caller's promise; words of the panels (asserted); elements of the tile, by
        // the masks.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); V]; R];
            let (mut a_word, mut b_word) = (a.as_ptr(), b.as_ptr());
            let mut done = 0;
            // The loop over k, in R + 1 parts: a row of the output is prefetched before each of the
            // first R, which together are half of k.
            for part in 0..=R {
                if part < out.rows {
                    for vector in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(out_row(part, vector).cast());
                    }
                }
                let end = if part < R { k_words * (part + 1) / (2 * R) } else { k_words };
                while done < end {
                    for vector in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(
                            b_word
                                .wrapping_add(PREFETCH_DISTANCE * PANEL_COLUMNS + vector * LANES)
                                .cast(),
                        );
                    }
                    _mm_prefetch::<_MM_HINT_T0>(
                        a_word.wrapping_add(2 * PREFETCH_DISTANCE * AVX512_ROWS).cast(),
                    );
                    let columns: [__m512i; V] = std::array::from_fn(|vector| {
                        _mm512_loadu_si512(b_word.add(vector * LANES).cast())
                    });
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let word = _mm512_set1_epi32((*a_word.add(row)).cast_signed());
                        for vector in 0..V {
                            sums[vector] = M::multiply_add(sums[vector], word, columns[vector]);
                        }
                    }
                    a_word = a_word.add(AVX512_ROWS);
                    b_word = b_word.add(PANEL_COLUMNS);
                    done += 1;
                }
            }
            // Written out for each row: a loop would keep the sums in memory.
            macro_rules! store {
                ($($row:literal)*) => {
                    $(
                        if $row + 1 < R || $row + 1 == R && out.rows == R {
                            for vector in 0..V {
                                let (to, mask) = (out_row($row, vector), masks[vector]);
                                let mut sum = sums[$row % R][vector];
                                if out.accumulate {
                                    sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum);
                                }
                                _mm512_mask_storeu_ps(to, mask, sum);
                            }
                        }
                    )*
                };
            }
            store!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply_bf16(_a: &[u32], _b: &[u32], _out: super::out_tile::OutTile) {
    unreachable!("MatmulKernel::Avx512Bf16 exists on x86-64 only");
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply_f32(_a: &[u32], _b: &[u32], _out: super::out_tile::OutTile) {
    unreachable!("MatmulKernel::Avx512 exists on x86-64 only");
}
