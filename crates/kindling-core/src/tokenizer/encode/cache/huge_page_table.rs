//! Tables that are read at random places, in huge pages where the system has them: with small ones most reads of a table of
//! megabytes wait for its pages to be found.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapRaw};

/// A huge page of x86-64 and arm64.
const HUGE_PAGE: usize = 2 << 20;

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
        let Some(values) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
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

/// Types of which zero bytes are a value, and that threads may share.
///
/// # Safety
/// They are, and nothing but atomics in them changes.
pub unsafe trait SharedZeroable: Sync {}

/// `1 << BITS` values that threads share, all zero bytes at first. Memory is taken from the system as values are used.
#[derive(Debug)]
pub struct SharedTable<T, const BITS: u32> {
    memory: MmapRaw,
    /// Where the table begins.
    offset: usize,
    values: PhantomData<T>,
}

impl<T: SharedZeroable, const BITS: u32> SharedTable<T, BITS> {
    /// None where the system has no memory for it.
    pub fn new() -> Option<Self> {
        let memory = MmapRaw::from(MmapMut::map_anon((size_of::<T>() << BITS) + HUGE_PAGE).ok()?);
        // Without huge pages it is slower and nothing else.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let offset = memory.as_ptr().align_offset(HUGE_PAGE);
        Some(Self { memory, offset, values: PhantomData })
    }

    /// The value that the highest bits of a hash say.
    #[inline(always)]
    pub fn get(&self, hash: u64) -> &T {
        const { assert!(align_of::<T>() <= HUGE_PAGE && BITS > 0 && BITS < 64) };
        let place = (hash >> (64 - BITS)) as usize;
        // SAFETY: the mapping has `1 << BITS` values from `offset`, and `place` is below that.
        let value = unsafe { self.memory.as_ptr().add(self.offset + place * size_of::<T>()) };
        // SAFETY: the table begins at a huge page's edge, so its values are aligned; zero bytes are a value, and what
        // changes of it are atomics.
        unsafe { &*value.cast() }
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
