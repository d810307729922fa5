//! Tables that are read at random places, in huge pages where the system has them: with small ones most reads of a table of
//! megabytes wait for its pages to be found.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A huge page of x86-64 and arm64.
pub const HUGE_PAGE: usize = 2 << 20;

/// Types of which zero bytes are a value.
///
/// # Safety
/// They must be.
pub unsafe trait Zeroable: Copy {}

/// Values of a number that stays, all zero bytes at first.
#[derive(Debug)]
pub struct HugeTable<T> {
    values: NonNull<T>,
    length: usize,
}

// SAFETY: it owns its values, as a box does.
unsafe impl<T: Send> Send for HugeTable<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for HugeTable<T> {}

impl<T: Zeroable> HugeTable<T> {
    /// `length` values, at least one.
    pub fn new(length: usize) -> Self {
        let layout = layout::<T>(length);
        // SAFETY: the layout's size is not 0, as is asserted.
        let Some(values) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // SAFETY: an advice about whole pages of this allocation. Without them it is slower and nothing else.
            unsafe { libc::madvise(values.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: so many bytes were allocated.
        unsafe { values.write_bytes(0, layout.size()) };
        Self { values: values.cast(), length }
    }
}

/// Whole huge pages, where one would be filled.
fn layout<T>(length: usize) -> Layout {
    let plain = Layout::array::<T>(length).unwrap_or_else(|_| unreachable!("tables are megabytes"));
    assert!(plain.size() > 0);
    if plain.size() < HUGE_PAGE {
        return plain;
    }
    let aligned = plain.align_to(HUGE_PAGE).unwrap_or_else(|_| unreachable!("a power of two"));
    aligned.pad_to_align()
}

impl<T> Drop for HugeTable<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; the values are `Copy`, so nothing else is to be dropped.
        unsafe { dealloc(self.values.as_ptr().cast(), layout::<T>(self.length)) };
    }
}

impl<T> Deref for HugeTable<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: so many values are there, of zero bytes or written since.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for HugeTable<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_ptr(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: every pattern of bits is a value.
    unsafe impl Zeroable for [u64; 3] {}

    #[test]
    fn values_are_zero_at_first_and_keep_what_is_written() {
        for length in [1, 100_000] {
            let mut table = HugeTable::<[u64; 3]>::new(length);
            assert!(table.len() == length && table.iter().all(|value| *value == [0; 3]));
            table[length - 1] = [1, 2, 3];
            assert_eq!(table[length - 1], [1, 2, 3]);
        }
    }
}
