//! The one place that calls the `gemm` crate: strided views of slices, checked once, and a product of them.
//!
//! Inside one call everything runs on the calling thread. The crate chooses its instruction set by itself (up to AVX-512,
//! feature `x86-v4`); `KINDLING_ISA` does not reach it.

use std::marker::PhantomData;
use std::ops::Range;

/// A matrix to read: element (i, j) lies at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pointer: *const f32,
    pub(crate) height: usize,
    pub(crate) width: usize,
    row_stride: usize,
    column_stride: usize,
    owner: PhantomData<&'a [f32]>,
}

// SAFETY: it stands for a shared borrow of f32.
unsafe impl Sync for Matrix<'_> {}

impl<'a> Matrix<'a> {
    /// `height` rows of `width` elements, one after the other.
    pub(crate) fn rows(slice: &'a [f32], height: usize, width: usize) -> Self {
        Self::strided(slice, height, width, width)
    }

    /// `height` rows of `width` elements whose starts are `stride` apart.
    pub(crate) fn strided(slice: &'a [f32], height: usize, width: usize, stride: usize) -> Self {
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
        let pointer =
            unsafe { self.pointer.add(if range.is_empty() { 0 } else { range.start * self.row_stride }) };
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

impl<'a> MatrixMut<'a> {
    /// `height` rows of `width` elements, one after the other.
    pub(crate) fn rows(slice: &'a mut [f32], height: usize, width: usize) -> Self {
        Self::strided(slice, height, width, width)
    }

    /// `height` rows of `width` elements whose starts are `stride` apart.
    pub(crate) fn strided(slice: &'a mut [f32], height: usize, width: usize, stride: usize) -> Self {
        assert!(height == 0 || (height - 1) * stride + width <= slice.len());
        assert!(width <= stride || height <= 1);
        Self { pointer: slice.as_mut_ptr(), height, width, row_stride: stride, owner: PhantomData }
    }

    /// A block of a larger matrix other blocks of which other threads write.
    ///
    /// # Safety
    /// Rows of `width` elements, `stride` apart from `pointer` on, are alive and touched by no one else for 'a.
    pub(crate) unsafe fn block(pointer: *mut f32, height: usize, width: usize, stride: usize) -> Self {
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
