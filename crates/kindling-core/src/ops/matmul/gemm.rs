//! Products by the `gemm` crate, cut into tasks for the pool. No other file calls the crate.
//!
//! A call of the crate runs on the calling thread. The crate selects its instruction set itself (up
//! to AVX-512, feature `x86-v4`); `KINDLING_ISA` does not apply to it.

use super::matrix::Matrix;
use crate::ops::{BlockMut, BlocksMut, Tasks, split_grid};
use crate::pool::Pool;

/// Maximum number of tasks of a product: few, since each packs its rows of a and columns of b
/// again.
const MAX_TASKS: usize = 16;
/// A task whose height and width are both below twice this is not cut: packing would cost more than
/// another thread gains.
const MIN_SIDE: usize = 32;
/// Minimum work of a task, in multiply-adds.
const MIN_WORK: usize = 1 << 18;

/// Tile of the crate's AVX-512 kernel: `UNIT_ROWS` rows by up to `TILE_COLUMNS` columns, in vectors
/// of `UNIT_COLUMNS`. A partial tile costs as much as a whole one, so tasks consist of whole ones.
const UNIT_ROWS: usize = 6;
const UNIT_COLUMNS: usize = 16;
const TILE_COLUMNS: usize = 4 * UNIT_COLUMNS;

/// Computes out = a b, or out += a b if `accumulate` is set. `out` has `a.height` rows of `b.width`
/// elements.
pub(crate) fn product(
    pool: &Pool,
    out: &mut [f32],
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
) {
    assert!(out.len() == a.height * b.width);
    product_into(pool, BlocksMut::new(out, b.width), a, b, accumulate);
}

/// Like `product`, into some columns of a wider matrix.
pub(crate) fn product_into(
    pool: &Pool,
    out: BlocksMut<'_, f32>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
) {
    if a.height == 0 || b.width == 0 {
        return;
    }
    let (down, across) = cut(a.height, a.width, b.width);
    let out = out.in_units(UNIT_ROWS, UNIT_COLUMNS);
    split_grid(pool, down, across, out, |down, across, mut block| {
        let (top, left) = (down.start * UNIT_ROWS, across.start * UNIT_COLUMNS);
        let a = a.rows(top..top + block.rows());
        let b = b.columns(left..left + block.columns());
        gemm(&mut block, a, b, accumulate);
    });
}

/// Cuts a product of (height, depth) by (depth, width) into tasks, in units of `UNIT_ROWS` down and
/// of `UNIT_COLUMNS` across.
///
/// Tasks are as square as possible, since each packs its rows of a and its columns of b, but no
/// narrower than a tile while there are rows to cut instead.
fn cut(height: usize, depth: usize, width: usize) -> (Tasks, Tasks) {
    let max_tasks = (height * width * depth / MIN_WORK).clamp(1, MAX_TASKS);
    let (mut down, mut across) = (1, 1);
    while 2 * down * across <= max_tasks {
        let (task_height, task_width) = (height / down, width / across);
        if task_height.max(task_width) < 2 * MIN_SIDE {
            break;
        }
        let keep_width = task_width < 2 * TILE_COLUMNS && task_height >= 4 * UNIT_ROWS;
        if task_height > task_width || keep_width { down *= 2 } else { across *= 2 }
    }
    (
        Tasks::at_most(height.div_ceil(UNIT_ROWS), 1, down),
        Tasks::at_most(width.div_ceil(UNIT_COLUMNS), 1, across),
    )
}

/// Calls the crate: out = a b, or out += a b.
fn gemm(out: &mut BlockMut<'_, f32>, a: Matrix<'_>, b: Matrix<'_>, accumulate: bool) {
    assert!(out.rows() == a.height && out.columns() == b.width && a.width == b.height);
    // SAFETY: the views were checked to lie inside their slices when they were made. `out` is
    // borrowed mutably, so it does not overlap a or b.
    unsafe {
        gemm::gemm(
            out.rows(),
            out.columns(),
            a.width,
            out.as_mut_ptr(),
            1,
            out.stride() as isize,
            accumulate,
            a.address(0, 0),
            a.column_stride() as isize,
            a.row_stride() as isize,
            b.address(0, 0),
            b.column_stride() as isize,
            b.row_stride() as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_square_and_no_smaller_than_a_thread_is_worth() {
        let counts = |height, depth, width| {
            let (down, across) = cut(height, depth, width);
            (down.count, across.count)
        };
        assert_eq!(counts(629, 512, 10_000), (1, 16));
        assert_eq!(counts(629, 10_000, 512), (4, 4));
        assert_eq!(counts(10_000, 629, 512), (16, 1));
        assert_eq!(counts(128, 768, 344), (4, 4));
        assert_eq!(counts(128, 768, 128), (8, 2));
        assert_eq!(counts(7, 5, 3), (1, 1));
        assert_eq!(counts(0, 5, 3), (1, 1));
    }

    #[test]
    fn tasks_cover_each_element_once_at_sizes_that_units_do_not_divide() {
        let pool = Pool::new(3);
        for (m, k, n) in [(1, 1, 1), (5, 3, 17), (131, 67, 129), (777, 40, 33), (33, 40, 777)] {
            let (a, b) = (vec![1.0; m * k], vec![1.0; k * n]);
            let mut out = vec![1.0; m * n];
            let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            product(&pool, &mut out, a, b, true);
            assert!(out.iter().all(|value| *value == 1.0 + k as f32), "{m} {k} {n}");
        }
    }
}
