//! Host memory: arrays of 32-bit words, aligned to a cache line, or to a huge page if they are
//! large.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pool::Pool;
use crate::{Error, available_memory};

const CACHE_LINE: usize = 64;
/// A huge page of x86-64 and arm64.
const HUGE_PAGE: usize = 2 << 20;
/// Words that one task copies: a huge page.
const COPIED: usize = HUGE_PAGE / size_of::<f32>();

/// An owned array of 32-bit words. One of at least two huge pages is aligned to them and asks the
/// system for huge pages, which saves TLB misses in passes over weights and activations.
#[derive(Debug)]
pub(crate) struct AlignedMemory {
    pointer: NonNull<f32>,
    len: usize,
}

// SAFETY: the memory is owned, and accessed only through & and &mut of its owner.
unsafe impl Send for AlignedMemory {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedMemory {}

impl AlignedMemory {
    /// Allocates `len` zeroed words, or returns `None` if there is not enough memory.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let memory = Self::allocate(len)?;
        // Not alloc_zeroed: the pages are faulted in here, not during a training step.
        // SAFETY: `allocate` returned memory for `len` words, and at least one.
        unsafe { memory.pointer.as_ptr().write_bytes(0, len.max(1)) };
        Some(memory)
    }

    /// Allocates a copy of `source`, or returns `None` if there is not enough memory. All threads
    /// of `pool` copy, since one alone would fault the pages in too slowly.
    pub(crate) fn copied(pool: &Pool, source: &[f32]) -> Option<Self> {
        if source.is_empty() {
            return Self::zeroed(0);
        }
        let memory = Self::allocate(source.len())?;
        let tasks = source.len().div_ceil(COPIED);
        let target = memory.pointer.as_ptr() as usize;
        pool.run(tasks, |task| {
            let start = task * COPIED;
            let part = &source[start..source.len().min(start + COPIED)];
            // SAFETY: the allocation is as long as `source`, and tasks write disjoint parts of it.
            unsafe {
                let target = (target as *mut f32).add(start);
                target.copy_from_nonoverlapping(part.as_ptr(), part.len());
            }
        });
        Some(memory)
    }

    /// Allocates `len` words, at least one, uninitialized: the caller must write all of them first.
    fn allocate(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        available_memory::require(layout.size() as u64).ok()?;
        // SAFETY: the layout is not empty, since it has at least one word.
        let memory = unsafe { std::alloc::alloc(layout) };
        if memory.is_null() {
            return None;
        }
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // Huge pages are only a hint, so the result is ignored.
            // SAFETY: the range is whole pages within the memory just allocated.
            unsafe {
                libc::madvise(
                    memory.cast(),
                    layout.size() / HUGE_PAGE * HUGE_PAGE,
                    libc::MADV_HUGEPAGE,
                )
            };
        }
        #[expect(clippy::cast_ptr_alignment, reason = "the layout is aligned to 64 bytes")]
        let pointer = NonNull::new(memory.cast::<f32>())?;
        Some(Self { pointer, len })
    }

    /// Like `zeroed`, but panics with an `Error::OutOfMemory` if there is not enough memory.
    /// `Error::catch` turns the panic into a returned error.
    fn zeroed_or_panic(len: usize) -> Self {
        Self::zeroed(len).unwrap_or_else(|| panic_out_of_memory::<f32>(len))
    }

    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.max(1).checked_mul(size_of::<f32>())?;
        let alignment = if bytes < 2 * HUGE_PAGE { CACHE_LINE } else { HUGE_PAGE };
        Layout::from_size_align(bytes, alignment).ok()
    }

    /// Returns the number of words.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn floats(&self) -> &[f32] {
        // SAFETY: `pointer` is valid for `len` initialized words while self lives.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `floats`; &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `floats`; every byte of an f32 is a valid u8.
        unsafe {
            std::slice::from_raw_parts(self.pointer.as_ptr().cast(), self.len * size_of::<f32>())
        }
    }

    /// Returns the bits of the first `len` bf16 numbers, two to a word.
    ///
    /// # Panics
    /// Panics if the memory has fewer.
    pub(crate) fn bf16(&self, len: usize) -> &[u16] {
        assert!(len <= 2 * self.len);
        // SAFETY: as in `floats`; half a word is a valid u16, and the assertion checks the length.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr().cast(), len) }
    }

    /// Like `bf16`, to write.
    ///
    /// # Panics
    /// Panics if the memory has fewer.
    pub(crate) fn bf16_mut(&mut self, len: usize) -> &mut [u16] {
        assert!(len <= 2 * self.len);
        // SAFETY: as in `bf16`; &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr().cast(), len) }
    }
}

impl Drop for AlignedMemory {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `allocate` with the same layout.
            unsafe { std::alloc::dealloc(self.pointer.as_ptr().cast(), layout) }
        }
    }
}

/// Reinterprets floats as words of their bits.
pub(crate) fn as_words_mut(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: f32 and u32 have the same size and alignment, and all bit patterns are valid for
    // both.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

/// Reserves capacity for `additional` more elements. If there is not enough memory, panics with an
/// `Error::OutOfMemory`, as `AlignedMemory::zeroed_or_panic` does, where `Vec::reserve` would abort
/// the process.
#[inline]
pub(crate) fn reserve_or_panic<T>(values: &mut Vec<T>, additional: usize) {
    if values.capacity() - values.len() < additional && values.try_reserve(additional).is_err() {
        panic_out_of_memory::<T>(values.len().saturating_add(additional));
    }
}

/// Returns `len` copies of `value`. Panics as `reserve_or_panic` does.
pub(crate) fn filled_or_panic<T: Clone>(value: T, len: usize) -> Vec<T> {
    let mut values = Vec::new();
    reserve_or_panic(&mut values, len);
    values.resize(len, value);
    values
}

#[cold]
pub(crate) fn panic_out_of_memory<T>(len: usize) -> ! {
    let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
    std::panic::panic_any(Error::OutOfMemory { bytes })
}

/// Scratch memory of a device, for one op at a time. It grows to the largest request and stays
/// allocated.
#[derive(Debug, Default)]
pub(crate) struct HostScratch(Mutex<Option<AlignedMemory>>);

impl HostScratch {
    /// Locks the scratch until the guard is dropped.
    pub(crate) fn lock(&self) -> HostScratchGuard<'_> {
        HostScratchGuard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Exclusive use of a `HostScratch`.
pub(crate) struct HostScratchGuard<'a>(MutexGuard<'a, Option<AlignedMemory>>);

impl HostScratchGuard<'_> {
    /// Returns `len` floats with whatever values were there before.
    pub(crate) fn floats(&mut self, len: usize) -> &mut [f32] {
        // Memory that is too small is freed before larger memory is allocated.
        let kept = self.0.take().filter(|memory| memory.len() >= len);
        let memory = self.0.insert(kept.unwrap_or_else(|| AlignedMemory::zeroed_or_panic(len)));
        &mut memory.floats_mut()[..len]
    }

    /// Returns `len` words with whatever values were there before.
    pub(crate) fn words(&mut self, len: usize) -> &mut [u32] {
        as_words_mut(self.floats(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;

    #[test]
    fn vectors_that_find_no_memory_panic_with_the_error_that_callers_return() {
        let grow = || -> Result<()> {
            let mut values = vec![1_u8];
            reserve_or_panic(&mut values, 7);
            assert!(values.capacity() >= 8 && filled_or_panic(3_u16, 4) == [3; 4]);
            reserve_or_panic(&mut values, usize::MAX / 4);
            Ok(())
        };
        let error = Error::catch("the test", grow).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { bytes } if bytes > 1 << 60), "{error}");
        let error = Error::catch("the test", || -> Result<()> { panic!("else") }).unwrap_err();
        assert_eq!(error.to_string(), "internal error: the test panicked; please report it");
        assert!(Error::catch("the test", || Ok(5)).is_ok_and(|value| value == 5));
    }

    #[test]
    fn a_copy_has_every_word_of_its_source() {
        let pool = Pool::new(3);
        for len in [0, 1, 1_000, COPIED, 3 * COPIED + 5] {
            let source: Vec<_> = (0..len).map(|i| i as f32).collect();
            let copy = AlignedMemory::copied(&pool, &source).unwrap();
            assert!(copy.floats() == source, "{len}");
        }
    }
}
