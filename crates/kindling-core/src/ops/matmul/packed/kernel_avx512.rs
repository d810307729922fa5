//! AVX-512 kernels: a tile of 14 rows by 32 columns.
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
//! 3. Panels are prefetched to L1, that of b eight words ahead and that of a sixteen. A panel
//!    longer than L1 comes from L2 each time.
//! 4. Rows of the output are prefetched one by one while sums are computed, to be in cache when
//!    they are added to or written.
//! 5. Between runs along k, sums are kept in blocks of their own (`RunSums`).

#[cfg(not(target_arch = "x86_64"))]
use crate::simd::out_tile::OutTile;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{multiply_bf16, multiply_f32};

/// The sums of a block between the runs along k.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only these kernels read it"))]
pub(super) struct RunSums {
    /// 14 rows of 32 sums, read unless the run is the first, and written unless it is the last. May
    /// dangle if there is only one run.
    pub block: *mut f32,
    pub is_first: bool,
    pub is_last: bool,
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_castsi512_ps,
        _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::super::geometry::{AVX512_ROWS, PANEL_COLUMNS};
    use super::RunSums;
    use crate::simd::out_tile::{OutElement, OutTile, WriteMode};

    const LANES: usize = 16;
    /// Words along k by which b is prefetched ahead; a is prefetched twice as far ahead.
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
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(in super::super) unsafe fn multiply_bf16<E: OutElement>(
        a: &[u32],
        b: &[u32],
        sums: RunSums,
        out: OutTile<E>,
    ) {
        // SAFETY: by the caller's promise.
        unsafe { by_size::<Bf16Pairs, E>(a, b, sums, out) }
    }

    /// Like `multiply_bf16`, for f32.
    ///
    /// # Safety
    /// The machine has AVX-512, the tile may be written, and it is f32.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn multiply_f32<E: OutElement>(
        a: &[u32],
        b: &[u32],
        sums: RunSums,
        out: OutTile<E>,
    ) {
        // SAFETY: by the caller's promise.
        unsafe { by_size::<F32, E>(a, b, sums, out) }
    }

    /// Selects the loop for the number of rows, rounded up to a multiple of two, and of vectors of
    /// columns.
    ///
    /// # Safety
    /// As for `multiply_bf16`.
    #[inline(always)]
    unsafe fn by_size<M: MultiplyAdd, E: OutElement>(
        a: &[u32],
        b: &[u32],
        run: RunSums,
        out: OutTile<E>,
    ) {
        macro_rules! by_rows {
            ($vectors:literal) => {
                match out.rows.div_ceil(2) {
                    0 => {}
                    1 => multiply_tile::<M, E, 2, $vectors>(a, b, run, out),
                    2 => multiply_tile::<M, E, 4, $vectors>(a, b, run, out),
                    3 => multiply_tile::<M, E, 6, $vectors>(a, b, run, out),
                    4 => multiply_tile::<M, E, 8, $vectors>(a, b, run, out),
                    5 => multiply_tile::<M, E, 10, $vectors>(a, b, run, out),
                    6 => multiply_tile::<M, E, 12, $vectors>(a, b, run, out),
                    _ => multiply_tile::<M, E, AVX512_ROWS, $vectors>(a, b, run, out),
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
    unsafe fn multiply_tile<M: MultiplyAdd, E: OutElement, const R: usize, const V: usize>(
        a: &[u32],
        b: &[u32],
        run: RunSums,
        out: OutTile<E>,
    ) {
        let k_words = b.len() / PANEL_COLUMNS;
        assert!(
            a.len() == k_words * AVX512_ROWS
                && out.rows <= R
                && out.rows + 1 >= R
                && out.cols <= V * LANES
        );
        // Elements of the output in a cache line.
        let line = 64 / size_of::<E>();
        let prefetched_rows =
            if run.is_last && out.mode != WriteMode::Stream { out.rows } else { 0 };
        // SAFETY: by the caller's promise; reads stay inside the panels (asserted), and the masks
        // keep writes inside the tile.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); V]; R];
            if !run.is_first {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sums) in sums.iter_mut().enumerate() {
                        let from = run.block.add(row * PANEL_COLUMNS + vector * LANES);
                        *sums = _mm512_loadu_ps(from);
                    }
                }
            }
            let (mut a_word, mut b_word) = (a.as_ptr(), b.as_ptr());
            let mut done = 0;
            // The loop over k, in R + 1 parts: a row of the output is prefetched before each of the
            // first R, which together are half of k.
            for part in 0..=R {
                if part < prefetched_rows {
                    let start = out.ptr.wrapping_add(part * out.stride);
                    for at in (0..V * LANES).step_by(line) {
                        _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast());
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
                        if !run.is_last && $row < R {
                            for vector in 0..V {
                                let to = run.block.add($row * PANEL_COLUMNS + vector * LANES);
                                _mm512_storeu_ps(to, sums[$row % R][vector]);
                            }
                        } else if $row + 1 < R || $row + 1 == R && out.rows == R {
                            let row = sums[$row % R];
                            let high = if V == 2 { row[V - 1] } else { _mm512_setzero_ps() };
                            let to = out.ptr.add($row * out.stride);
                            E::write_vectors(to, [row[0], high], out.cols, out.mode);
                        }
                    )*
                };
            }
            store!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply_bf16<E>(_a: &[u32], _b: &[u32], _sums: RunSums, _out: OutTile<E>) {
    unreachable!("MatmulKernel::Avx512Bf16 exists on x86-64 only");
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply_f32<E>(_a: &[u32], _b: &[u32], _sums: RunSums, _out: OutTile<E>) {
    unreachable!("MatmulKernel::Avx512 exists on x86-64 only");
}
