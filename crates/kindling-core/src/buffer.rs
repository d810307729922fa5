//! Flat f32 memory of one device, and the views ops take of it.
//!
//! Buffers are allocated once per run; an op takes `In` and `Out` views, checks their lengths against its shape once,
//! and hands plain slices to its CPU half.

use crate::device::Device;
use crate::{Error, Result};

/// A cache line.
const ALIGNMENT: usize = 64;
/// A huge page of x86-64 and arm64; large memory starts on one's edge and asks for them.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory aligned to a cache line.
#[derive(Debug)]
struct AlignedMemory {
    pointer: std::ptr::NonNull<f32>,
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

    fn zeroed(len: usize) -> Option<Self> {
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
                libc::madvise(memory.cast(), layout.size() / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE)
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

/// Owned f32 memory of a device.
#[derive(Debug)]
pub struct Buffer {
    memory: AlignedMemory,
}

impl Buffer {
    /// `len` zeros on `device`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn zeros(device: &Device, len: usize) -> Result<Self> {
        let memory = match device {
            Device::Cpu(_) => AlignedMemory::zeroed(len),
        };
        let bytes = (len as u64).saturating_mul(size_of::<f32>() as u64);
        memory.map(|memory| Self { memory }).ok_or(Error::OutOfMemory { bytes })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.memory.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A view to read all of it.
    pub fn view(&self) -> In<'_> {
        In::Cpu(self.host())
    }

    /// A view to read elements `range`.
    pub fn slice(&self, range: std::ops::Range<usize>) -> In<'_> {
        self.view().slice(range)
    }

    /// A view to write elements `range`.
    pub fn slice_mut(&mut self, range: std::ops::Range<usize>) -> Out<'_> {
        self.view_mut().slice(range)
    }

    /// A view to write all of it.
    pub fn view_mut(&mut self) -> Out<'_> {
        Out::Cpu(self.host_mut())
    }

    /// The elements, on the host (CPU buffers only need no copy).
    pub fn host(&self) -> &[f32] {
        // SAFETY: `pointer` is valid for `len` initialised elements as long as self lives.
        unsafe { std::slice::from_raw_parts(self.memory.pointer.as_ptr(), self.memory.len) }
    }

    /// The elements, writable on the host.
    pub fn host_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `host`, and &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.memory.pointer.as_ptr(), self.memory.len) }
    }
}

/// A view an op reads.
#[derive(Debug, Clone, Copy)]
pub enum In<'a> {
    /// Memory of the host.
    Cpu(&'a [f32]),
}

/// A view an op writes.
#[derive(Debug)]
pub enum Out<'a> {
    /// Memory of the host.
    Cpu(&'a mut [f32]),
}

impl<'a> In<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
        }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements `range` of this view.
    #[must_use]
    pub fn slice(self, range: std::ops::Range<usize>) -> In<'a> {
        match self {
            Self::Cpu(s) => In::Cpu(&s[range]),
        }
    }

    /// The host slice; the caller's device is the CPU.
    pub fn cpu(self) -> &'a [f32] {
        match self {
            Self::Cpu(s) => s,
        }
    }
}

impl<'a> Out<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
        }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements `range` of this view, which is used up.
    #[must_use]
    pub fn slice(self, range: std::ops::Range<usize>) -> Out<'a> {
        match self {
            Self::Cpu(s) => Out::Cpu(&mut s[range]),
        }
    }

    /// This view again, for a shorter time.
    pub fn again(&mut self) -> Out<'_> {
        match self {
            Self::Cpu(s) => Out::Cpu(s),
        }
    }

    /// A view to read of what is written here.
    pub fn read(&self) -> In<'_> {
        match self {
            Self::Cpu(s) => In::Cpu(s),
        }
    }

    /// The host slice; the caller's device is the CPU.
    pub fn cpu(self) -> &'a mut [f32] {
        match self {
            Self::Cpu(s) => s,
        }
    }
}

impl<'a> From<&'a [f32]> for In<'a> {
    fn from(s: &'a [f32]) -> Self {
        Self::Cpu(s)
    }
}

impl<'a> From<&'a mut [f32]> for Out<'a> {
    fn from(s: &'a mut [f32]) -> Self {
        Self::Cpu(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_had_is_an_error_and_no_abort() {
        let dev = Device::cpu(1);
        for len in [1 << 60, usize::MAX] {
            assert_eq!(Buffer::zeros(&dev, len).unwrap_err().code(), "ERR_OUT_OF_MEMORY");
        }
        assert_eq!(Buffer::zeros(&dev, 0).unwrap().len(), 0);
    }
}
