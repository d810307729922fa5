//! Host memory: zeroed 32-bit words, aligned to a cache line, or to a huge page if they are many.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pool::Pool;
use crate::{Error, available_memory};

const CACHE_LINE: usize = 64;
/// A huge page of x86-64 and arm64.
const HUGE_PAGE: usize = 2 << 20;
/// Words that one task copies.
const COPIED: usize = HUGE_PAGE / size_of::<f32>();

/// Zeroed 32-bit words. Those of at least two huge pages start on one and ask the system for them,
/// which saves TLB misses in passes over weights and activations.
#[derive(Debug)]
pub(crate) struct AlignedMemory {
    pointer: NonNull<f32>,
    len: usize,
}

// SAFETY: the memory is owned, and reached only through & and &mut of the owner.
unsafe impl Send for AlignedMemory {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedMemory {}

impl AlignedMemory {
    /// Allocates `len` words, or returns `None` if there is not enough memory.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let memory = Self::allocate(len)?;
        // Not alloc_zeroed: the first touch, which faults the pages in, happens here, not in a
        // step.
        // SAFETY: `allocate` returned room for at least `len` words, and at least one.
        unsafe { memory.pointer.as_ptr().write_bytes(0, len.max(1)) };
        Some(memory)
    }

    /// Allocates a copy of `source`, or returns `None` if there is not enough memory. All threads of
    /// `pool` copy: one would fault the pages in too slowly.
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
            // SAFETY: the allocation has room for all of `source`; tasks write disjoint parts of it.
            unsafe {
                let target = (target as *mut f32).add(start);
                target.copy_from_nonoverlapping(part.as_ptr(), part.len());
            }
        });
        Some(memory)
    }

    /// Allocates `len` words, at least one, of undefined content: the caller writes all of them
    /// before anything else.
    fn allocate(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        available_memory::require(layout.size() as u64).ok()?;
        // SAFETY: the layout is not empty: it has at least one word.
        let memory = unsafe { std::alloc::alloc(layout) };
        if memory.is_null() {
            return None;
        }
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // A kernel that refuses costs nothing, so the result is ignored.
            // SAFETY: whole pages inside the memory just allocated.
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

    /// Like `zeroed`, but panics with an `Error::OutOfMemory` if there is not enough memory. Whoever
    /// catches the panic returns the error.
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
        // SAFETY: `pointer` is valid for `len` initialised words while self lives.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `floats`; &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `floats`; any byte of an f32 is a u8.
        unsafe {
            std::slice::from_raw_parts(self.pointer.as_ptr().cast(), self.len * size_of::<f32>())
        }
    }

    /// Returns the first `len` bf16, two to a word, as their bits.
    ///
    /// # Panics
    /// Panics if the memory has fewer.
    pub(crate) fn bf16(&self, len: usize) -> &[u16] {
        assert!(len <= 2 * self.len);
        // SAFETY: as in `floats`; half a word is a u16, and there are enough (asserted).
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
            // SAFETY: allocated in `zeroed` with the same layout.
            unsafe { std::alloc::dealloc(self.pointer.as_ptr().cast(), layout) }
        }
    }
}

/// Reinterprets floats as the words of their bits.
pub(crate) fn as_words_mut(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: the types have the same size and alignment, and any bits are valid for both.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

/// Makes room for `additional` more elements. Like `AlignedMemory::zeroed_or_panic`, panics with an
/// `Error::OutOfMemory` where `Vec` itself would end the process.
#[inline]
pub(crate) fn reserve_or_panic<T>(values: &mut Vec<T>, additional: usize) {
    if values.capacity() - values.len() < additional && values.try_reserve(additional).is_err() {
        panic_out_of_memory::<T>(values.len().saturating_add(additional));
    }
}

/// Returns `len` copies of `value`; panics as `reserve_or_panic`.
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

/// Scratch memory of a device, for one op at a time. It grows to the largest request and is kept.
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
    /// Returns `len` floats that hold whatever was there before.
    pub(crate) fn floats(&mut self, len: usize) -> &mut [f32] {
        // Memory that is too small is freed before its successor is allocated.
        let kept = self.0.take().filter(|memory| memory.len() >= len);
        let memory = self.0.insert(kept.unwrap_or_else(|| AlignedMemory::zeroed_or_panic(len)));
        &mut memory.floats_mut()[..len]
    }

    /// Returns `len` words that hold whatever was there before.
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
