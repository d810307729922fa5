//! Small products of f32 that read both operands as they lie: out += a^T b, as of the gradient of a
//! weight.
//!
//! a: (k, m); b: (k, n); out: (m, n). For each k, the kernel wants neighbours along m and along n,
//! and they are neighbours in memory. Packing would take a tenth to a third of such a product.

use super::geometry::{AVX512_ROWS, PANEL_COLUMNS};
use super::kernel_avx512::{RunSums, Strip, multiply_f32};
use crate::ops::matmul::matrix::Matrix;
use crate::ops::{BlocksMut, Tasks, split_grid};
use crate::pool::Pool;
use crate::simd::out_tile::{OutTile, WriteMode};

/// Elements along k after which sums are added to the output, so that the panels of a run stay in
/// L2.
const RUN: usize = 1024;
/// Fewest panels of a and of b in a task, and most tasks each way.
const MIN_PANELS: usize = 2;
const MAX_TASKS: [usize; 2] = [16, 2];
/// Rows a multiple of this far apart share few places in a cache.
const BAD_PITCH: usize = 2048;

/// Returns whether `add_transposed_product` is the fastest way for the operands of a small product.
pub(crate) fn suits(a: Matrix, b: Matrix) -> bool {
    let suits = |matrix: Matrix| {
        let pitch = matrix.row_stride() * size_of::<f32>();
        matrix.column_stride() == 1 && !pitch.is_multiple_of(BAD_PITCH)
    };
    suits(a) && suits(b)
}

/// Computes out += a^T b. The machine has AVX-512.
///
/// # Panics
/// Panics if the sizes do not match, or if the rows of a or of b are not contiguous.
pub(crate) fn add_transposed_product(pool: &Pool, out: &mut [f32], a: Matrix, b: Matrix) {
    let (k, m, n) = (a.height, a.width, b.width);
    assert!(b.height == k && out.len() == m * n);
    assert!(a.column_stride() == 1 && b.column_stride() == 1);
    if m == 0 || n == 0 {
        return;
    }
    let [down, across] = [(m, AVX512_ROWS, MAX_TASKS[0]), (n, PANEL_COLUMNS, MAX_TASKS[1])]
        .map(|(side, panel, most)| Tasks::at_most(side.div_ceil(panel), MIN_PANELS, most));
    let out = BlocksMut::new(out, n).in_units(AVX512_ROWS, PANEL_COLUMNS);
    split_grid(pool, down, across, out, |down, across, mut out| {
        let (stride, rows, cols) = (out.stride(), out.rows(), out.columns());
        let mode = WriteMode::Accumulate;
        let out = OutTile { ptr: out.as_mut_ptr(), stride, rows, cols, mode };
        for start in (0..k).step_by(RUN) {
            let depth = RUN.min(k - start);
            let strip = |matrix: Matrix, column: usize| Strip {
                start: matrix.address(start, column).cast(),
                step: matrix.row_stride(),
            };
            let sums = RunSums { block: std::ptr::null_mut(), is_first: true, is_last: true };
            for (col, right) in across.clone().enumerate() {
                for (row, left) in down.clone().enumerate() {
                    let panels = [strip(a, left * AVX512_ROWS), strip(b, right * PANEL_COLUMNS)];
                    let place = [row * AVX512_ROWS, col * PANEL_COLUMNS];
                    let tile = out.tile(place, [AVX512_ROWS, PANEL_COLUMNS]);
                    // SAFETY: the machine has AVX-512; the tile belongs to the task; a and b have
                    // its rows and columns for each of `depth`.
                    unsafe { multiply_f32(depth, panels, sums, tile) };
                }
            }
        }
    });
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::random::{Purpose, uniform};
    use crate::simd::Isa;

    /// Values that end where readable memory ends.
    struct Guarded {
        pages: *mut libc::c_void,
        len: usize,
        start: usize,
    }

    const PAGE: usize = 4096;

    impl Guarded {
        fn new(values: &[f32]) -> Self {
            let bytes = size_of_val(values).next_multiple_of(PAGE);
            let (len, start) = (values.len(), bytes / size_of::<f32>() - values.len());
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: new memory, of which the last page is made inaccessible.
            let pages = unsafe {
                let pages = libc::mmap(std::ptr::null_mut(), bytes + PAGE, access, flags, -1, 0);
                assert!(pages != libc::MAP_FAILED);
                assert!(libc::mprotect(pages.byte_add(bytes), PAGE, libc::PROT_NONE) == 0);
                pages.cast::<f32>().add(start).copy_from_nonoverlapping(values.as_ptr(), len);
                pages
            };
            Self { pages, len, start }
        }

        fn values(&self) -> &[f32] {
            // SAFETY: written in `new`, and mapped until self is dropped.
            unsafe {
                std::slice::from_raw_parts(self.pages.cast::<f32>().add(self.start), self.len)
            }
        }
    }

    impl Drop for Guarded {
        fn drop(&mut self) {
            let bytes = (self.len * size_of::<f32>()).next_multiple_of(PAGE) + PAGE;
            // SAFETY: mapped in `new` with this size.
            unsafe { libc::munmap(self.pages, bytes) };
        }
    }

    fn random(len: usize, major: u64) -> Vec<f32> {
        let value = |i| 2.0 * uniform(3, Purpose::Benchmark, major, i as u32) - 1.0;
        (0..len).map(|i| value(i) as f32).collect()
    }

    #[test]
    fn sums_match_f64_and_nothing_past_the_operands_is_read() {
        if !Isa::has_avx512() {
            return;
        }
        let edges = (1..=15).flat_map(|m| [1, 15, 16, 17, 31, 33].map(|n| (9, m, n)));
        let others = [(0, 3, 4), (3, 0, 4), (768, 128, 65), (2100, 30, 70), (300, 344, 128)];
        for (k, m, n) in edges.chain(others) {
            let (a, b, old) = (random(k * m, 1), random(k * n, 2), random(m * n, 3));
            let (a, b) = (Guarded::new(&a), Guarded::new(&b));
            let (a, b) = (Matrix::new(a.values(), k, m), Matrix::new(b.values(), k, n));
            let run = |threads| {
                let mut out = old.clone();
                add_transposed_product(&Pool::new(threads), &mut out, a, b);
                out
            };
            let out = run(1);
            for (at, (out, old)) in out.iter().zip(&old).enumerate() {
                let term = |p| f64::from(a.element(p, at / n)) * f64::from(b.element(p, at % n));
                let expected = f64::from(*old) + (0..k).map(term).sum::<f64>();
                let error = (f64::from(*out) - expected).abs();
                assert!(error < 1e-5 * (k as f64).sqrt().max(1.0), "{k} {m} {n}: {out} {expected}");
            }
            assert!(run(3) == out, "{k} {m} {n}: other bits by three threads");
        }
    }

    #[test]
    fn rows_far_apart_by_a_multiple_of_half_a_page_are_left_to_others() {
        let values = vec![0.0; 4096];
        let matrix = |width: usize| Matrix::new(&values, 4, width);
        assert!(suits(matrix(128), matrix(688)));
        assert!(!suits(matrix(128), matrix(512)) && !suits(matrix(1024), matrix(128)));
        assert!(!suits(matrix(128).transposed(), matrix(128)));
    }
}
