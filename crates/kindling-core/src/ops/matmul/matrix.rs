//! A read-only matrix: a strided view of a slice, whose bounds are checked once.

use std::marker::PhantomData;
use std::ops::Range;

/// A matrix whose element (i, j) is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    start: *const T,
    pub(crate) height: usize,
    pub(crate) width: usize,
    row_stride: usize,
    column_stride: usize,
    borrow: PhantomData<&'a [T]>,
}

// SAFETY: a shared borrow of a slice.
unsafe impl<T: Sync> Sync for Matrix<'_, T> {}

impl<'a, T: Copy> Matrix<'a, T> {
    /// Takes `height` rows of `width` elements, one after the other.
    ///
    /// # Panics
    /// Panics if the slice is shorter.
    pub(crate) fn new(slice: &'a [T], height: usize, width: usize) -> Self {
        assert!(height * width <= slice.len());
        Self {
            start: slice.as_ptr(),
            height,
            width,
            row_stride: width,
            column_stride: 1,
            borrow: PhantomData,
        }
    }

    /// Returns the distance between neighbours in a column, in elements.
    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Returns the distance between neighbours in a row, in elements.
    pub(crate) fn column_stride(&self) -> usize {
        self.column_stride
    }

    /// Returns the address of element (row, column), even if there is no such element.
    pub(crate) fn address(&self, row: usize, column: usize) -> *const T {
        self.start.wrapping_add(row * self.row_stride + column * self.column_stride)
    }

    /// Returns element (row, column).
    ///
    /// # Panics
    /// Panics if there is no such element.
    pub(crate) fn element(&self, row: usize, column: usize) -> T {
        assert!(row < self.height && column < self.width);
        // SAFETY: inside the matrix (asserted).
        unsafe { *self.address(row, column) }
    }

    /// Returns the transpose, of the same memory.
    pub(crate) fn transposed(self) -> Self {
        Self {
            height: self.width,
            width: self.height,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Returns some of the rows.
    ///
    /// # Panics
    /// Panics if there are fewer.
    pub(crate) fn rows(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.height);
        Self { start: self.address(range.start, 0), height: range.len(), ..self }
    }

    /// Returns some of the columns.
    ///
    /// # Panics
    /// Panics if there are fewer.
    pub(crate) fn columns(self, range: Range<usize>) -> Self {
        self.transposed().rows(range).transposed()
    }
}
