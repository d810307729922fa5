//! Tables in huge pages, where the system has them. They are accessed at random, and with small
//! pages most accesses to a table of several megabytes would miss the TLB.

use std::alloc::{Layout, alloc, dealloc};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapRaw};

use crate::host_memory::panic_out_of_memory;

/// Size of a huge page on x86-64 and arm64, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Types for which zero bytes are a valid value.
///
/// # Safety
/// Zero bytes must be a valid value of the type.
pub unsafe trait Zeroable: Copy {}

/// A fixed number of values. Their bytes are initially zero.
#[derive(Debug)]
pub struct HugePageTable<T> {
    values: NonNull<T>,
    length: usize,
}

// SAFETY: the table owns its values, as a `Box` does.
unsafe impl<T: Send> Send for HugePageTable<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for HugePageTable<T> {}

impl<T: Zeroable> HugePageTable<T> {
    /// Allocates `length` > 0 values.
    ///
    /// # Panics
    /// Panics with an `Error::OutOfMemory`, like `reserve_or_panic`.
    pub fn new(length: usize) -> Self {
        let layout = layout::<T>(length);
        // SAFETY: `layout` asserts that the size is not 0.
        let Some(values) = NonNull::new(unsafe { alloc(layout) }) else {
            panic_out_of_memory::<T>(length)
        };
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // SAFETY: advice about whole pages of this allocation. If it fails, the table is only
            // slower.
            unsafe { libc::madvise(values.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the allocation has `layout.size()` bytes.
        unsafe { values.write_bytes(0, layout.size()) };
        Self { values: values.cast(), length }
    }
}

/// Returns the layout of `length` values, which is whole huge pages if they fill at least one.
fn layout<T>(length: usize) -> Layout {
    let plain = Layout::array::<T>(length).unwrap_or_else(|_| unreachable!("tables are megabytes"));
    assert!(plain.size() > 0);
    if plain.size() < HUGE_PAGE {
        return plain;
    }
    let aligned = plain.align_to(HUGE_PAGE).unwrap_or_else(|_| unreachable!("a power of two"));
    aligned.pad_to_align()
}

impl<T> Drop for HugePageTable<T> {
    fn drop(&mut self) {
        // SAFETY: `new` allocated the memory with this layout. The values are `Copy`, so they need
        // not be dropped.
        unsafe { dealloc(self.values.as_ptr().cast(), layout::<T>(self.length)) };
    }
}

impl<T> Deref for HugePageTable<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the allocation holds `length` values, zeroed by `new` or written since.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for HugePageTable<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the table is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_ptr(), self.length) }
    }
}

/// Types for which zero bytes are a valid value and which threads can share.
///
/// # Safety
/// Zero bytes must be a valid value of the type, and only atomics in it may change.
pub unsafe trait SharedZeroable: Sync {}

/// `1 << BITS` values that threads share. Their bytes are initially zero. The system provides the
/// memory page by page, as values are accessed.
#[derive(Debug)]
pub struct SharedHugePageTable<T, const BITS: u32> {
    memory: MmapRaw,
    /// Offset of the first value.
    offset: usize,
    values: PhantomData<T>,
}

impl<T: SharedZeroable, const BITS: u32> SharedHugePageTable<T, BITS> {
    /// Maps the memory; returns `None` if there is not enough.
    pub fn new() -> Option<Self> {
        let memory = MmapRaw::from(MmapMut::map_anon((size_of::<T>() << BITS) + HUGE_PAGE).ok()?);
        // If this fails, the table is only slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let offset = memory.as_ptr().align_offset(HUGE_PAGE);
        Some(Self { memory, offset, values: PhantomData })
    }

    /// Returns the value at the index in the highest bits of `hash`.
    #[inline(always)]
    pub fn get(&self, hash: u64) -> &T {
        const { assert!(align_of::<T>() <= HUGE_PAGE && BITS > 0 && BITS < 64) };
        let index = (hash >> (64 - BITS)) as usize;
        // SAFETY: the mapping has `1 << BITS` values from `offset` on, and `index` is below that.
        let value = unsafe { self.memory.as_ptr().add(self.offset + index * size_of::<T>()) };
        // SAFETY: the table starts at a huge page, so its values are aligned; zero bytes are a
        // valid value, and only atomics change.
        unsafe { &*value.cast() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: integers, for which zeros are valid.
    unsafe impl Zeroable for [u64; 3] {}

    #[test]
    fn values_are_initially_zero_and_keep_their_writes() {
        for length in [1, 100_000] {
            let mut table = HugePageTable::<[u64; 3]>::new(length);
            assert!(table.len() == length && table.iter().all(|value| *value == [0; 3]));
            table[length - 1] = [1, 2, 3];
            assert_eq!(table[length - 1], [1, 2, 3]);
        }
    }
}
