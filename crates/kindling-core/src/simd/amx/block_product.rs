//! Products of packed panels with AMX tiles.
//!
//! a: panels of 32 rows, in tiles, [16 k words][2 x 16 rows][16 k words]; b: panels of 32 columns,
//! [k word][column]; out: (rows, cols), f32 or bf16. A word holds two bf16 that are neighbours
//! along k. k is cut into runs, and `multiply_run` is called for each.
//!
//! ```text
//! for each panel of b                              32 KiB in a run of 512 elements: stays in L1
//!     for each panel of a                          comes from L2
//!         for each 16 words along k
//!             multiply 2 x 2 tiles
//!             write some rows of the previous block
//!         store the sums of this block
//! write the last block
//! ```
//!
//! The tiles are so fast that loads and stores are the bottleneck, so sums never touch the output
//! while tiles work on them:
//!
//! 1. The sums of the last run go to one of two buffers of 4 KiB. While the next block is
//!    multiplied, vectors round them, add them or copy them to the output, whole rows at a time.
//! 2. The sums of the other runs go to a block of 4 KiB each, tile by tile.
//! 3. Outputs that are not added to are written past the caches if they are large (`OutTile`);
//!    for the others, the lines are requested for writing while their own block is multiplied.
//! 4. a is loaded with a hint that it is used once (`load_stream`), so that b stays in L1. The next
//!    panel of b is prefetched to L2. Prefetching a slows the kernel down.

use super::tiles::{TILE_SIDE, TILE_WORDS, Tiles};
use crate::simd::out_tile::{OutElement, OutTile, TILE_COLUMNS, WriteMode, finish_streaming};
use crate::simd::{bf16, prefetch_to_l2, prefetch_write};

/// Rows and columns of a block of the output: 2 x 2 tiles of sums, which with two of a and two of
/// b take all eight.
pub(crate) const BLOCK_SIDE: usize = 2 * TILE_SIDE;
/// Sums in a block.
pub(crate) const BLOCK_SUMS: usize = BLOCK_SIDE * BLOCK_SIDE;
const _: () = assert!(BLOCK_SIDE == TILE_COLUMNS);
/// Words of a panel, of a or of b, per 16 words along k.
const STEP_WORDS: usize = TILE_SIDE * BLOCK_SIDE;
/// Words in a cache line.
const LINE_WORDS: usize = 16;
/// Maximum number of lines of the next panel of b to prefetch in a step: more would delay the loads
/// of tiles.
const MAX_LINES_AHEAD: usize = 5;

/// One run along k of the product of some panels.
#[derive(Clone, Copy)]
pub(crate) struct PanelRun<'a> {
    /// Panels of a, one after the other.
    pub a: &'a [u32],
    /// Panels of b. Each starts with the words of this run.
    pub b: &'a [u32],
    /// Words from a panel of b to the next.
    pub b_stride: usize,
    /// Words along k, a multiple of 16.
    pub k_words: usize,
    /// Panels of a and of b.
    pub panels: [usize; 2],
    pub is_first: bool,
    pub is_last: bool,
}

/// A block of sums that is not yet written to the output, or not completely.
#[derive(Clone, Copy)]
struct Pending<T> {
    sums: *const f32,
    next_row: usize,
    out: OutTile<T>,
}

/// Two blocks of sums: one is filled while the other one is written to the output.
#[repr(C, align(64))]
struct Buffers([[f32; BLOCK_SUMS]; 2]);

/// Multiplies panels for one run along k. `sums` has a block for each pair of panels, or is empty
/// if there is only one run.
///
/// # Safety
/// The machine has the instructions of `T`. `out` can be written, and has the rows and columns of
/// the panels.
pub(crate) unsafe fn multiply_run<T: Tiles, E: OutElement>(
    run: PanelRun,
    sums: &mut [f32],
    out: OutTile<E>,
) {
    // SAFETY: by the caller's promise; vectors are used where the machine has them.
    unsafe { multiply_run_with::<T, E>(run, sums, out, bf16::is_available()) }
}

/// Like `multiply_run`. Rows are written by AVX-512 if `vectors` is set, else by plain code.
///
/// # Safety
/// As for `multiply_run`; with `vectors`, the machine has AVX512-BF16.
unsafe fn multiply_run_with<T: Tiles, E: OutElement>(
    run: PanelRun,
    sums: &mut [f32],
    out: OutTile<E>,
    vectors: bool,
) {
    let [down, across] = run.panels;
    assert!(
        run.k_words.is_multiple_of(TILE_SIDE) && run.a.len() >= down * run.k_words * BLOCK_SIDE
    );
    assert!(run.b.len() + run.b_stride >= across * run.b_stride + run.k_words * BLOCK_SIDE);
    assert!(out.rows.div_ceil(BLOCK_SIDE) == down && out.cols.div_ceil(BLOCK_SIDE) == across);
    assert!(run.is_first && run.is_last || sums.len() >= down * across * BLOCK_SUMS);
    let _ = vectors;
    T::configure();
    // SAFETY: by the caller's promise; the panels and blocks of sums lie in their slices
    // (asserted).
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if vectors {
            with_avx512::<T, E>(run, sums, out);
            return;
        }
        multiply_blocks::<T, E, false>(run, sums, out);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn with_avx512<T: Tiles, E: OutElement>(run: PanelRun, sums: &mut [f32], out: OutTile<E>) {
    // SAFETY: by the caller's promise.
    unsafe { multiply_blocks::<T, E, true>(run, sums, out) }
}

/// The loops of `multiply_run`.
///
/// # Safety
/// As for `multiply_run`, and the slices are long enough.
#[inline(always)]
unsafe fn multiply_blocks<T: Tiles, E: OutElement, const VECTORS: bool>(
    run: PanelRun,
    sums: &mut [f32],
    out: OutTile<E>,
) {
    let mut buffers = std::mem::MaybeUninit::<Buffers>::uninit();
    let buffers = buffers.as_mut_ptr().cast::<f32>();
    let [down, across] = run.panels;
    let mut pending = Pending { sums: buffers, next_row: 0, out: OutTile { rows: 0, ..out } };
    for index in 0..down * across {
        let (left, right) = (index % down, index / down);
        let block_sums = sums.as_mut_ptr().wrapping_add(index * BLOCK_SUMS);
        let block = out.tile([left * BLOCK_SIDE, right * BLOCK_SIDE], [BLOCK_SIDE; 2]);
        // SAFETY: by the caller's promise.
        unsafe {
            if run.is_first {
                zero_sums::<T>();
            } else {
                load_sums::<T>(block_sums);
            }
            multiply_steps::<T, E, VECTORS>(&run, [left, right], block, &mut pending);
            if run.is_last {
                let buffer = buffers.add(index % 2 * BLOCK_SUMS);
                store_sums::<T>(buffer, [TILE_SIDE * BLOCK_SIDE, TILE_SIDE], BLOCK_SIDE);
                pending = Pending { sums: buffer, next_row: 0, out: block };
            } else {
                store_sums::<T>(block_sums, [2 * TILE_WORDS, TILE_WORDS], TILE_SIDE);
            }
        }
    }
    // SAFETY: by the caller's promise.
    unsafe { pending.write_rows::<VECTORS>(BLOCK_SIDE) };
    if out.mode == WriteMode::Stream {
        finish_streaming();
    }
}

/// Adds the products of a run to the tiles of sums, and writes the pending block.
///
/// # Safety
/// As for `multiply_blocks`.
#[inline(always)]
unsafe fn multiply_steps<T: Tiles, E: OutElement, const VECTORS: bool>(
    run: &PanelRun,
    [left, right]: [usize; 2],
    block: OutTile<E>,
    pending: &mut Pending<E>,
) {
    let [down, across] = run.panels;
    let steps = run.k_words / TILE_SIDE;
    let rows_per_step = BLOCK_SIDE.div_ceil(steps.max(1));
    let a = run.a.as_ptr().wrapping_add(left * steps * STEP_WORDS);
    let b = run.b.as_ptr().wrapping_add(right * run.b_stride);
    let lines_per_step = if right + 1 < across {
        (STEP_WORDS / LINE_WORDS).div_ceil(down).min(MAX_LINES_AHEAD)
    } else {
        0
    };
    let next_b = b.wrapping_add(run.b_stride + left * steps * lines_per_step * LINE_WORDS);
    let wants_lines = run.is_last && block.mode != WriteMode::Stream;
    for step in 0..steps {
        let (a, b) = (a.wrapping_add(step * STEP_WORDS), b.wrapping_add(step * STEP_WORDS));
        // SAFETY: by the caller's promise.
        unsafe {
            T::load_stream::<4>(a, TILE_SIDE);
            T::load::<6>(b, BLOCK_SIDE);
            T::load::<7>(b.wrapping_add(TILE_SIDE), BLOCK_SIDE);
            T::dot::<0, 4, 6>();
            T::dot::<1, 4, 7>();
            T::load_stream::<5>(a.wrapping_add(TILE_WORDS), TILE_SIDE);
        }
        for line in 0..lines_per_step {
            prefetch_to_l2(next_b.wrapping_add((step * lines_per_step + line) * LINE_WORDS));
        }
        T::dot::<2, 5, 6>();
        // SAFETY: by the caller's promise.
        unsafe { pending.write_rows::<VECTORS>(rows_per_step) };
        T::dot::<3, 5, 7>();
        if wants_lines {
            block.prefetch_rows(step * rows_per_step, rows_per_step);
        }
    }
    // Without steps, the loop has written nothing.
    // SAFETY: by the caller's promise.
    unsafe { pending.write_rows::<VECTORS>(BLOCK_SIDE) };
}

impl<E: OutElement> Pending<E> {
    /// Writes the next rows, at most `count`.
    ///
    /// # Safety
    /// As for `multiply_blocks`.
    #[inline(always)]
    unsafe fn write_rows<const VECTORS: bool>(&mut self, count: usize) {
        let OutTile { ptr, stride, rows, cols, mode } = self.out;
        for row in self.next_row..rows.min(self.next_row + count) {
            // SAFETY: a row of the output and of a block of sums, which is aligned.
            unsafe {
                let (to, sums) = (ptr.add(row * stride), self.sums.add(row * BLOCK_SIDE));
                #[cfg(target_arch = "x86_64")]
                if VECTORS {
                    use std::arch::x86_64::_mm512_load_ps;
                    let vectors = [_mm512_load_ps(sums), _mm512_load_ps(sums.add(16))];
                    E::write_vectors(to, vectors, cols, mode);
                    continue;
                }
                E::write(to, sums, cols, mode);
            }
        }
        self.next_row += count;
    }
}

impl<E: OutElement> OutTile<E> {
    /// Prefetches some rows for writing.
    #[inline(always)]
    fn prefetch_rows(&self, first: usize, count: usize) {
        for row in first..self.rows.min(first + count) {
            let start = self.ptr.wrapping_add(row * self.stride);
            prefetch_write(start);
            if size_of::<E>() == size_of::<f32>() {
                prefetch_write(start.wrapping_add(TILE_SIDE));
            }
        }
    }
}

#[inline(always)]
fn zero_sums<T: Tiles>() {
    T::zero::<0>();
    T::zero::<1>();
    T::zero::<2>();
    T::zero::<3>();
}

/// # Safety
/// A block of sums, tile after tile, can be read.
#[inline(always)]
unsafe fn load_sums<T: Tiles>(block: *const f32) {
    let block = block.cast::<u32>();
    // SAFETY: by the caller's promise.
    unsafe {
        T::load::<0>(block, TILE_SIDE);
        T::load::<1>(block.add(TILE_WORDS), TILE_SIDE);
        T::load::<2>(block.add(2 * TILE_WORDS), TILE_SIDE);
        T::load::<3>(block.add(3 * TILE_WORDS), TILE_SIDE);
    }
}

/// Stores the 2 x 2 tiles of sums. Tiles below and beside each other are `down` and `right` words
/// apart, rows of a tile `stride` words.
///
/// # Safety
/// A block of sums can be written.
#[inline(always)]
unsafe fn store_sums<T: Tiles>(block: *mut f32, [down, right]: [usize; 2], stride: usize) {
    let block = block.cast::<u32>();
    // SAFETY: by the caller's promise.
    unsafe {
        T::store::<0>(block, stride);
        T::store::<1>(block.add(right), stride);
        T::store::<2>(block.add(down), stride);
        T::store::<3>(block.add(down + right), stride);
    }
}

#[cfg(test)]
mod tests;
