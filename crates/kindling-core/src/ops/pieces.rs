//! How work is cut: pieces whose bounds depend on sizes only, and the disjoint parts of a buffer they write.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use crate::pool::Pool;

/// `total` units cut in `count` runs of nearly equal length.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    total: usize,
    /// Number of pieces.
    pub count: usize,
}

/// Most pieces a job is cut into: enough to balance sixteen threads, few enough to hand out quickly.
pub(crate) const MOST_PIECES: usize = 32;

impl Pieces {
    /// Cuts `total` units so that each piece has at least `smallest` of them; the number of pieces is 1 or even.
    pub fn new(total: usize, smallest: usize) -> Self {
        Self::at_most(total, smallest, MOST_PIECES)
    }

    /// As `new`, in at most `most` pieces.
    pub fn at_most(total: usize, smallest: usize, most: usize) -> Self {
        let count = (total / smallest.max(1)).clamp(1, most);
        Self { total, count: if count > 1 { count / 2 * 2 } else { 1 } }
    }

    /// Cuts `total` units in `count` runs.
    pub(crate) fn exactly(total: usize, count: usize) -> Self {
        Self { total, count: count.max(1) }
    }

    /// Rows of `width` elements, cut so that a piece has enough of them to be worth a thread.
    pub fn of_rows(rows: usize, width: usize) -> Self {
        const ELEMENTS: usize = 8 * 1024;
        Self::new(rows, ELEMENTS.div_ceil(width.max(1)))
    }

    /// The units of one piece.
    pub fn range(&self, piece: usize) -> Range<usize> {
        self.total * piece / self.count..self.total * (piece + 1) / self.count
    }
}

/// Runs `work` on each row of `out`, `width` wide, with the row's range in it.
pub(crate) fn each_row(
    pool: &Pool,
    out: &mut [f32],
    width: usize,
    work: impl Fn(&mut [f32], Range<usize>) + Sync,
) {
    let pieces = Pieces::of_rows(out.len() / width.max(1), width);
    let out = Disjoint::new(out);
    pool.run(pieces.count, |piece| {
        for row in pieces.range(piece) {
            let range = row * width..(row + 1) * width;
            // SAFETY: pieces write disjoint rows.
            work(unsafe { out.part(range.clone()) }, range);
        }
    });
}

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

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` zeroed f32 that stay with the calling thread, so that a step allocates nothing. May be nested.
pub fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut memory = SCRATCH.with(|s| s.borrow_mut().pop()).unwrap_or_default();
    memory.clear();
    memory.resize(len, 0.0);
    let result = work(&mut memory);
    SCRATCH.with(|s| s.borrow_mut().push(memory));
    result
}

/// As `with_scratch`, on a cache line's edge and with whatever the memory held before: for work that writes before it reads.
pub fn with_dirty_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    const LINE: usize = 64;
    let mut memory = SCRATCH.with(|s| s.borrow_mut().pop()).unwrap_or_default();
    let room = len + LINE / size_of::<f32>();
    if memory.len() < room {
        memory.resize(room, 0.0);
    }
    let start = memory.as_ptr().align_offset(LINE).min(room - len);
    let result = work(&mut memory[start..start + len]);
    SCRATCH.with(|s| s.borrow_mut().push(memory));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_unit_once() {
        for total in [0, 1, 5, 17, 768, 8192, 10_007] {
            for smallest in [1, 16, 100] {
                let pieces = Pieces::new(total, smallest);
                let mut next = 0;
                for piece in 0..pieces.count {
                    assert_eq!(pieces.range(piece).start, next);
                    next = pieces.range(piece).end;
                }
                assert_eq!(next, total);
            }
        }
    }

    #[test]
    fn scratch_is_zero_even_when_nested_and_reused() {
        for _ in 0..3 {
            with_scratch(10, |outer| {
                with_scratch(5, |inner| {
                    assert!(inner.iter().all(|x| *x == 0.0));
                    inner.fill(1.0);
                });
                assert!(outer.iter().all(|x| *x == 0.0));
                outer.fill(2.0);
            });
        }
    }
}
