//! An operand of a product: f32, which is rounded as it is packed, or bf16.

use std::ops::Range;

use crate::buffer::In;
use crate::ops::matmul::gemm::Matrix;
use crate::simd::fetch_line;

/// A matrix of either kind.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    F32(Matrix<'a>),
    Bf16(Matrix<'a, u16>),
}

impl<'a> Operand<'a> {
    /// `height` rows of `width` elements, one after the other.
    pub(crate) fn rows(elements: In<'a>, height: usize, width: usize) -> Self {
        match elements {
            In::CpuBf16(slice) => Self::Bf16(Matrix::rows(slice, height, width)),
            elements => Self::F32(Matrix::rows(elements.cpu(), height, width)),
        }
    }

    /// The transpose.
    pub(crate) fn transposed(self) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.transposed()),
            Self::Bf16(matrix) => Self::Bf16(matrix.transposed()),
        }
    }

    /// The matrix of f32.
    ///
    /// # Panics
    /// When it is of bf16: only devices with such products have any.
    pub(crate) fn f32(self) -> Matrix<'a> {
        match self {
            Self::F32(matrix) => matrix,
            Self::Bf16(_) => panic!("a product of f32 was given bf16"),
        }
    }

    /// Some of its columns.
    pub(super) fn columns(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.columns(range)),
            Self::Bf16(matrix) => Self::Bf16(matrix.columns(range)),
        }
    }

    /// Whether a row's elements lie next to each other.
    pub(super) fn is_along(&self) -> bool {
        match self {
            Self::F32(matrix) => matrix.column_stride() == 1,
            Self::Bf16(matrix) => matrix.column_stride() == 1,
        }
    }

    /// Fetches some rows and columns to L2 in the order in which they lie in memory: packing goes through them in another one,
    /// which the processor does not foresee.
    pub(super) fn fetch(&self, rows: Range<usize>, columns: Range<usize>) {
        match self {
            Self::F32(matrix) => fetch(matrix, rows, columns),
            Self::Bf16(matrix) => fetch(matrix, rows, columns),
        }
    }

    /// Rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Self::F32(matrix) => (matrix.height, matrix.width),
            Self::Bf16(matrix) => (matrix.height, matrix.width),
        }
    }
}

fn fetch<T: Copy>(matrix: &Matrix<T>, rows: Range<usize>, columns: Range<usize>) {
    let rows = rows.start..rows.end.min(matrix.height);
    let columns = columns.start..columns.end.min(matrix.width);
    if matrix.column_stride() == 1 {
        rows.for_each(|row| fetch_line(matrix.address(row, columns.start), columns.len()));
    } else if matrix.row_stride() == 1 {
        columns.for_each(|column| fetch_line(matrix.address(rows.start, column), rows.len()));
    }
}
