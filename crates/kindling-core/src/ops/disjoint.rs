//! The old way to cut outputs; on its way out, in favour of `split`.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice whose parts are written by different pieces at the same time.
pub struct Disjoint<'a, T> {
    pointer: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a unique borrow of a slice of Send elements; `part` puts the duty of disjointness on the caller.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the slice for the time of a job.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No two calls whose results are alive at the same time may overlap.
    ///
    /// # Panics
    /// When the range is outside the slice.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint by the caller's promise")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice (asserted), unique by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    /// The elements of `range`, to read.
    ///
    /// # Safety
    /// No one writes them as long as the result is alive.
    ///
    /// # Panics
    /// When the range is outside the slice.
    pub unsafe fn read(&self, range: Range<usize>) -> &[T]
    where
        T: Sync,
    {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice (asserted), unwritten by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer.add(range.start), range.len()) }
    }

    /// Writes element `index`.
    ///
    /// # Safety
    /// No one else touches that element at the same time.
    ///
    /// # Panics
    /// When it is outside the slice.
    pub unsafe fn set(&self, index: usize, value: T) {
        assert!(index < self.len);
        // SAFETY: inside the slice (asserted), unique by the caller's promise.
        unsafe { *self.pointer.add(index) = value }
    }

    /// Address of element `index`, for a product that writes a strided block.
    ///
    /// # Panics
    /// When it is outside the slice.
    pub fn address(&self, index: usize) -> *mut T {
        assert!(index <= self.len);
        // SAFETY: inside the slice or one past its end.
        unsafe { self.pointer.add(index) }
    }
}
