//! An operand of a packed product: bf16, or f32 that is rounded as it is packed if the kernel takes
//! bf16.

use std::ops::Range;

use crate::buffer::In;
use crate::ops::matmul::matrix::Matrix;
use crate::simd::prefetch_run;

#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    F32(Matrix<'a>),
    Bf16(Matrix<'a, u16>),
}

impl<'a> Operand<'a> {
    /// Takes `height` rows of `width` elements, one after the other.
    pub(crate) fn new(elements: In<'a>, height: usize, width: usize) -> Self {
        match elements {
            In::CpuBf16(slice) => Self::Bf16(Matrix::new(slice, height, width)),
            elements => Self::F32(Matrix::new(elements.cpu(), height, width)),
        }
    }

    /// Returns the transpose, of the same memory.
    pub(crate) fn transposed(self) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.transposed()),
            Self::Bf16(matrix) => Self::Bf16(matrix.transposed()),
        }
    }

    /// Returns some of the rows.
    pub(super) fn rows(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.rows(range)),
            Self::Bf16(matrix) => Self::Bf16(matrix.rows(range)),
        }
    }

    /// Returns some of the columns.
    pub(super) fn columns(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.columns(range)),
            Self::Bf16(matrix) => Self::Bf16(matrix.columns(range)),
        }
    }

    /// Returns whether the elements of a row are contiguous.
    pub(super) fn has_contiguous_rows(&self) -> bool {
        match self {
            Self::F32(matrix) => matrix.column_stride() == 1,
            Self::Bf16(matrix) => matrix.column_stride() == 1,
        }
    }

    /// Prefetches some rows and columns to L2, in the order of memory. Packing reads them in
    /// another order, which the hardware prefetcher does not predict.
    pub(super) fn prefetch(&self, rows: Range<usize>, columns: Range<usize>) {
        match self {
            Self::F32(matrix) => prefetch(matrix, rows, columns),
            Self::Bf16(matrix) => prefetch(matrix, rows, columns),
        }
    }

    /// Returns the height and the width.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Self::F32(matrix) => (matrix.height, matrix.width),
            Self::Bf16(matrix) => (matrix.height, matrix.width),
        }
    }
}

fn prefetch<T: Copy>(matrix: &Matrix<T>, rows: Range<usize>, columns: Range<usize>) {
    let rows = rows.start..rows.end.min(matrix.height);
    let columns = columns.start..columns.end.min(matrix.width);
    if matrix.column_stride() == 1 {
        rows.for_each(|row| prefetch_run(matrix.address(row, columns.start), columns.len()));
    } else if matrix.row_stride() == 1 {
        columns.for_each(|column| prefetch_run(matrix.address(rows.start, column), rows.len()));
    }
}
