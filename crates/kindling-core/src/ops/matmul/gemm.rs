//! The one place that calls the `gemm` crate: strided views of slices, checked once, and a product of them.
//!
//! Inside one call of `gemm` everything runs on the calling thread. The crate chooses its instruction set by itself (up to AVX-512,
//! feature `x86-v4`); `KINDLING_ISA` does not reach it.

use std::marker::PhantomData;
use std::ops::Range;

use crate::ops::{Disjoint, Pieces};
use crate::pool::Pool;

/// A matrix to read: element (i, j) lies at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pointer: *const T,
    pub(crate) height: usize,
    pub(crate) width: usize,
    row_stride: usize,
    column_stride: usize,
    owner: PhantomData<&'a [T]>,
}

// SAFETY: it stands for a shared borrow of numbers.
unsafe impl<T: Sync> Sync for Matrix<'_, T> {}

impl<'a, T: Copy> Matrix<'a, T> {
    /// `height` rows of `width` elements, one after the other.
    pub(crate) fn rows(slice: &'a [T], height: usize, width: usize) -> Self {
        Self::strided(slice, height, width, width)
    }

    /// `height` rows of `width` elements whose starts are `stride` apart.
    pub(crate) fn strided(slice: &'a [T], height: usize, width: usize, stride: usize) -> Self {
        assert!(height == 0 || (height - 1) * stride + width <= slice.len());
        Self {
            pointer: slice.as_ptr(),
            height,
            width,
            row_stride: stride,
            column_stride: 1,
            owner: PhantomData,
        }
    }

    /// Elements from one row to the next.
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Elements from one column to the next.
    pub(crate) fn column_stride(&self) -> usize {
        self.column_stride
    }

    /// Where element (row, column) lies, or would lie.
    pub(crate) fn address(&self, row: usize, column: usize) -> *const T {
        self.pointer.wrapping_add(row * self.row_stride + column * self.column_stride)
    }

    /// Element (row, column).
    pub(crate) fn element(&self, row: usize, column: usize) -> T {
        assert!(row < self.height && column < self.width);
        // SAFETY: inside the matrix (asserted).
        unsafe { *self.address(row, column) }
    }

    /// The transpose.
    pub(crate) fn transposed(self) -> Self {
        Self {
            height: self.width,
            width: self.height,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Some of its rows.
    pub(crate) fn lines(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.height);
        // SAFETY: inside the matrix (asserted); an empty range stays at or before its end.
        let pointer = unsafe {
            self.pointer.add(if range.is_empty() { 0 } else { range.start * self.row_stride })
        };
        Self { pointer, height: range.len(), ..self }
    }

    /// Some of its columns.
    pub(crate) fn columns(self, range: Range<usize>) -> Self {
        self.transposed().lines(range).transposed()
    }
}

/// A matrix to write.
pub(crate) struct MatrixMut<'a> {
    pointer: *mut f32,
    height: usize,
    width: usize,
    row_stride: usize,
    owner: PhantomData<&'a mut [f32]>,
}

impl MatrixMut<'_> {
    /// A block of a larger matrix other blocks of which other threads write.
    ///
    /// # Safety
    /// Rows of `width` elements, `stride` apart from `pointer` on, are alive and touched by no one else for 'a.
    pub(crate) unsafe fn block(
        pointer: *mut f32,
        height: usize,
        width: usize,
        stride: usize,
    ) -> Self {
        Self { pointer, height, width, row_stride: stride, owner: PhantomData }
    }
}

/// out = a b, or out += a b where `accumulate`.
#[expect(clippy::needless_pass_by_value, reason = "the writable view is used up")]
pub(crate) fn gemm(out: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, accumulate: bool) {
    assert!(out.height == a.height && out.width == b.width && a.width == b.height);
    // SAFETY: the views lie inside their slices (checked where they were made); `out` is borrowed mutably, so it does not
    // overlap a or b.
    unsafe {
        gemm::gemm(
            out.height,
            out.width,
            a.width,
            out.pointer,
            1,
            out.row_stride as isize,
            accumulate,
            a.pointer,
            a.column_stride as isize,
            a.row_stride as isize,
            b.pointer,
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Most pieces one product is cut into.
const PIECES: usize = 16;
/// Least height and width of a piece: below it packing costs more than a thread gives.
const SIDE: usize = 32;
/// Least work of a piece, in multiply-adds.
const WORK: usize = 1 << 18;

/// What the crate's AVX-512 kernel makes at once: so many rows by vectors of so many columns, `BLOCK` columns at most. A rest
/// costs as much as a whole one.
const ROWS: usize = 6;
const COLUMNS: usize = 16;
const BLOCK: usize = 4 * COLUMNS;

/// How a product of (height, depth) by (depth, width) is cut: pieces as square as possible, since each packs its rows of a
/// and its columns of b again, but no narrower than a block while there are rows to cut. Gives the runs of `ROWS` and of
/// `COLUMNS`.
fn grid(height: usize, depth: usize, width: usize) -> (Pieces, Pieces) {
    let most = (height * width * depth / WORK).clamp(1, PIECES);
    let (mut down, mut across) = (1, 1);
    while 2 * down * across <= most {
        let (tall, wide) = (height / down, width / across);
        if tall.max(wide) < 2 * SIDE {
            break;
        }
        let keep_wide = wide < 2 * BLOCK && tall >= 4 * ROWS;
        if tall > wide || keep_wide { down *= 2 } else { across *= 2 }
    }
    (
        Pieces::at_most(height.div_ceil(ROWS), 1, down),
        Pieces::at_most(width.div_ceil(COLUMNS), 1, across),
    )
}

/// What a piece of runs of `unit` has of `total`.
fn part(pieces: Pieces, piece: usize, unit: usize, total: usize) -> Range<usize> {
    let units = pieces.range(piece);
    units.start * unit..total.min(units.end * unit)
}

/// `out` (`a.height` rows of `b.width`) = a b, or += where `accumulate`, cut over the pool's threads.
pub(crate) fn parallel_gemm(
    pool: &Pool,
    out: &mut [f32],
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
) {
    assert!(out.len() == a.height * b.width);
    parallel_gemm_into(pool, out, b.width, 0, a, b, accumulate);
}

/// As `parallel_gemm`, into the columns from `first` on of an `out` whose rows are `stride` long.
pub(crate) fn parallel_gemm_into(
    pool: &Pool,
    out: &mut [f32],
    stride: usize,
    first: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
) {
    assert!(out.len() >= a.height * stride && first + b.width <= stride);
    let (down, across) = grid(a.height, a.width, b.width);
    let out = Disjoint::new(out);
    pool.run(down.count * across.count, |piece| {
        let rows = part(down, piece / across.count, ROWS, a.height);
        let columns = part(across, piece % across.count, COLUMNS, b.width);
        let address = out.address(rows.start * stride + first + columns.start);
        // SAFETY: the rows and columns of a piece lie inside `out` and belong to it alone.
        let block = unsafe { MatrixMut::block(address, rows.len(), columns.len(), stride) };
        gemm(block, a.lines(rows), b.columns(columns), accumulate);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_cut_as_square_as_it_can_be_and_not_below_what_a_thread_is_worth() {
        let sizes = |height, depth, width| {
            let (down, across) = grid(height, depth, width);
            (down.count, across.count)
        };
        assert_eq!(sizes(629, 512, 10_000), (1, 16));
        assert_eq!(sizes(629, 10_000, 512), (4, 4));
        assert_eq!(sizes(10_000, 629, 512), (16, 1));
        assert_eq!(sizes(128, 768, 344), (4, 4));
        assert_eq!(sizes(128, 768, 128), (8, 2));
        assert_eq!(sizes(7, 5, 3), (1, 1));
        assert_eq!(sizes(0, 5, 3), (1, 1));
    }

    #[test]
    fn the_pieces_of_a_product_hold_each_row_and_column_once() {
        for total in [0usize, 1, 5, 6, 7, 33, 128, 344, 688, 777] {
            for (unit, count) in [(ROWS, 1), (ROWS, 8), (COLUMNS, 2), (COLUMNS, 16)] {
                let pieces = Pieces::at_most(total.div_ceil(unit), 1, count);
                let mut next = 0;
                for piece in 0..pieces.count {
                    let part = part(pieces, piece, unit, total);
                    assert!(
                        part.start == next && (part.end == total || part.end.is_multiple_of(unit))
                    );
                    next = part.end;
                }
                assert_eq!(next, total);
            }
        }
    }
}
