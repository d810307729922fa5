//! Memory of the host: zeroed words that begin on a cache line, or on a huge page where they are many.

/// A cache line.
const ALIGNMENT: usize = 64;
/// A huge page of x86-64 and arm64; large memory starts on one's edge and asks for them.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed words of 32 bits aligned to a cache line.
#[derive(Debug)]
pub(crate) struct AlignedMemory {
    pub(super) pointer: std::ptr::NonNull<f32>,
    len: usize,
}

// SAFETY: the memory is owned and only reached through & and &mut of the owner.
unsafe impl Send for AlignedMemory {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedMemory {}

impl AlignedMemory {
    fn layout(len: usize) -> Option<std::alloc::Layout> {
        let bytes = len.max(1).checked_mul(size_of::<f32>())?;
        let alignment = if bytes < 2 * HUGE_PAGE { ALIGNMENT } else { HUGE_PAGE };
        std::alloc::Layout::from_size_align(bytes, alignment).ok()
    }

    /// As `zeroed`; ends the process as any other allocation of Rust does where there is no memory.
    pub(crate) fn needed(len: usize) -> Self {
        Self::zeroed(len).unwrap_or_else(|| {
            std::alloc::handle_alloc_error(
                Self::layout(len).unwrap_or(std::alloc::Layout::new::<u32>()),
            )
        })
    }

    /// Number of words.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The words.
    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: `pointer` is valid for `len` initialised words as long as self lives; &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr().cast(), self.len) }
    }

    pub(super) fn floats(&self) -> &[f32] {
        // SAFETY: `pointer` is valid for `len` initialised words as long as self lives.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `words_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `pointer` is valid for `len` initialised words as long as self lives.
        unsafe {
            std::slice::from_raw_parts(self.pointer.as_ptr().cast(), self.len * size_of::<f32>())
        }
    }

    pub(super) fn zeroed(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        // SAFETY: the layout is not empty (at least one element).
        let memory = unsafe { std::alloc::alloc(layout) };
        if memory.is_null() {
            return None;
        }
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // Fewer misses of the address cache in passes over it; a kernel that refuses costs nothing.
            // SAFETY: whole pages inside the memory just allocated.
            unsafe {
                libc::madvise(
                    memory.cast(),
                    layout.size() / HUGE_PAGE * HUGE_PAGE,
                    libc::MADV_HUGEPAGE,
                )
            };
        }
        // The first touch happens here, not in a step.
        // SAFETY: `layout.size()` bytes were allocated.
        unsafe { memory.write_bytes(0, layout.size()) };
        #[expect(clippy::cast_ptr_alignment, reason = "the layout asks for 64 bytes")]
        let pointer = std::ptr::NonNull::new(memory.cast::<f32>())?;
        Some(Self { pointer, len })
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
