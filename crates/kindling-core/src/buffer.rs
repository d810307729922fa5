//! Flat memory of one device, f32 or bf16, and the views ops take of it.
//!
//! Buffers are allocated once per run; an op takes `In` and `Out` views, checks their lengths against its shape once,
//! and hands plain slices to its CPU half.

use crate::device::{Device, Dtype};
use crate::{Error, Result};

/// A cache line.
const ALIGNMENT: usize = 64;
/// A huge page of x86-64 and arm64; large memory starts on one's edge and asks for them.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed words of 32 bits aligned to a cache line.
#[derive(Debug)]
pub(crate) struct AlignedMemory {
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

    /// As `zeroed`; ends the process as any other allocation of Rust does where there is no memory.
    pub(crate) fn needed(len: usize) -> Self {
        Self::zeroed(len).unwrap_or_else(|| {
            std::alloc::handle_alloc_error(Self::layout(len).unwrap_or(std::alloc::Layout::new::<u32>()))
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

/// Owned memory of a device.
#[derive(Debug)]
pub struct Buffer {
    memory: AlignedMemory,
    /// Number of elements.
    len: usize,
    dtype: Dtype,
}

impl Buffer {
    /// `len` zeros on `device`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn zeros(device: &Device, len: usize) -> Result<Self> {
        Self::zeros_of(device, len, Dtype::F32)
    }

    /// As `zeros`, elements of `dtype`. Bf16 is for what only products and the ops beside them touch: other ops take f32.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn zeros_of(device: &Device, len: usize, dtype: Dtype) -> Result<Self> {
        let words = if dtype == Dtype::Bf16 { len.div_ceil(2) } else { len };
        let memory = match device {
            Device::Cpu(_) => AlignedMemory::zeroed(words),
        };
        let bytes = (words as u64).saturating_mul(size_of::<f32>() as u64);
        memory.map(|memory| Self { memory, len, dtype }).ok_or(Error::OutOfMemory { bytes })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A view to read all of it.
    pub fn view(&self) -> In<'_> {
        match self.dtype {
            Dtype::F32 => In::Cpu(self.host()),
            // SAFETY: the memory holds `len` halves of words, initialised as long as self lives.
            Dtype::Bf16 => In::CpuBf16(unsafe {
                std::slice::from_raw_parts(self.memory.pointer.as_ptr().cast(), self.len)
            }),
        }
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
        match self.dtype {
            Dtype::F32 => Out::Cpu(self.host_mut()),
            // SAFETY: as in `view`, and &mut self makes the access unique.
            Dtype::Bf16 => Out::CpuBf16(unsafe {
                std::slice::from_raw_parts_mut(self.memory.pointer.as_ptr().cast(), self.len)
            }),
        }
    }

    /// The words of memory, on the host: the elements of a buffer of f32 (CPU buffers only need no copy).
    pub fn host(&self) -> &[f32] {
        // SAFETY: `pointer` is valid for `len` initialised elements as long as self lives.
        unsafe { std::slice::from_raw_parts(self.memory.pointer.as_ptr(), self.memory.len) }
    }

    /// As `host`, writable.
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
    /// bf16 in memory of the host.
    CpuBf16(&'a [u16]),
}

/// A view an op writes.
#[derive(Debug)]
pub enum Out<'a> {
    /// Memory of the host.
    Cpu(&'a mut [f32]),
    /// bf16 in memory of the host.
    CpuBf16(&'a mut [u16]),
}

impl<'a> In<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
            Self::CpuBf16(s) => s.len(),
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
            Self::CpuBf16(s) => In::CpuBf16(&s[range]),
        }
    }

    /// The host slice of f32; the caller's device is the CPU.
    ///
    /// # Panics
    /// When the elements are bf16 and the op takes none: a mistake in the model.
    pub fn cpu(self) -> &'a [f32] {
        match self {
            Self::Cpu(s) => s,
            Self::CpuBf16(_) => panic!("an op of f32 was given bf16"),
        }
    }
}

impl<'a> Out<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
            Self::CpuBf16(s) => s.len(),
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
            Self::CpuBf16(s) => Out::CpuBf16(&mut s[range]),
        }
    }

    /// This view again, for a shorter time.
    pub fn again(&mut self) -> Out<'_> {
        match self {
            Self::Cpu(s) => Out::Cpu(s),
            Self::CpuBf16(s) => Out::CpuBf16(s),
        }
    }

    /// A view to read of what is written here.
    pub fn read(&self) -> In<'_> {
        match self {
            Self::Cpu(s) => In::Cpu(s),
            Self::CpuBf16(s) => In::CpuBf16(s),
        }
    }

    /// The host slice of f32; the caller's device is the CPU.
    ///
    /// # Panics
    /// When the elements are bf16 and the op takes none: a mistake in the model.
    pub fn cpu(self) -> &'a mut [f32] {
        match self {
            Self::Cpu(s) => s,
            Self::CpuBf16(_) => panic!("an op of f32 was given bf16"),
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
