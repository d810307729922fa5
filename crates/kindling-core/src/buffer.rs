//! Flat memory of one device, f32 or bf16, and the views ops take of it.
//!
//! Buffers are allocated once per run; an op takes `In` and `Out` views, checks their lengths against its shape once,
//! and hands plain slices to its CPU half or addresses to the kernels of its CUDA half.

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::cuda::DeviceMemory;
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

    fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `words_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `pointer` is valid for `len` initialised words as long as self lives.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr().cast(), self.len * size_of::<f32>()) }
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

#[derive(Debug)]
enum Memory {
    Host(AlignedMemory),
    Cuda(DeviceMemory),
}

/// Owned memory of a device.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
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

    /// As `zeros`, elements of `dtype`. On the CPU, bf16 is for what only products and the ops beside them touch: other
    /// ops take f32.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn zeros_of(device: &Device, len: usize, dtype: Dtype) -> Result<Self> {
        // Whole words. A length that overflows is one that no memory has.
        let bytes = len.saturating_mul(dtype.size()).checked_next_multiple_of(size_of::<f32>());
        let out_of_memory = || Error::OutOfMemory { bytes: (len as u64).saturating_mul(dtype.size() as u64) };
        let bytes = bytes.ok_or_else(out_of_memory)?;
        let memory = match device {
            Device::Cpu(_) => {
                Memory::Host(AlignedMemory::zeroed(bytes / size_of::<f32>()).ok_or_else(out_of_memory)?)
            }
            Device::Cuda(gpu) => Memory::Cuda(gpu.zeros(bytes)?),
        };
        Ok(Self { memory, len, dtype })
    }

    /// A copy of `values` on `device`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`, `ERR_DEVICE`.
    pub fn of(device: &Device, values: &[f32]) -> Result<Self> {
        let mut buffer = Self::zeros(device, values.len())?;
        buffer.write(|memory| memory.copy_from_slice(values))?;
        Ok(buffer)
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
        match (&self.memory, self.dtype) {
            (Memory::Host(_), Dtype::F32) => In::Cpu(self.host()),
            (Memory::Host(memory), Dtype::Bf16) => {
                // SAFETY: the memory holds `len` halves of words, initialised as long as self lives.
                In::CpuBf16(unsafe { std::slice::from_raw_parts(memory.pointer.as_ptr().cast(), self.len) })
            }
            (Memory::Cuda(memory), dtype) => {
                In::Cuda(CudaView { pointer: memory.pointer(), len: self.len, dtype, memory: PhantomData })
            }
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
        match (&mut self.memory, self.dtype) {
            (Memory::Host(_), Dtype::F32) => Out::Cpu(self.host_mut()),
            (Memory::Host(memory), Dtype::Bf16) => {
                let pointer = memory.pointer.as_ptr().cast();
                // SAFETY: as in `view`, and &mut self makes the access unique.
                Out::CpuBf16(unsafe { std::slice::from_raw_parts_mut(pointer, self.len) })
            }
            (Memory::Cuda(memory), dtype) => Out::Cuda(CudaViewMut {
                pointer: memory.pointer(),
                len: self.len,
                dtype,
                memory: PhantomData,
            }),
        }
    }

    /// The words of memory of a buffer on the CPU: the elements of one of f32.
    ///
    /// # Panics
    /// When the buffer is another device's: a mistake in the model.
    pub fn host(&self) -> &[f32] {
        let Memory::Host(memory) = &self.memory else { panic!("{NOT_ON_HOST}") };
        // SAFETY: `pointer` is valid for `len` initialised elements as long as self lives.
        unsafe { std::slice::from_raw_parts(memory.pointer.as_ptr(), memory.len) }
    }

    /// As `host`, writable.
    ///
    /// # Panics
    /// As `host`.
    pub fn host_mut(&mut self) -> &mut [f32] {
        let Memory::Host(memory) = &mut self.memory else { panic!("{NOT_ON_HOST}") };
        // SAFETY: as in `host`, and &mut self makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(memory.pointer.as_ptr(), memory.len) }
    }

    /// The elements of a buffer of f32, copied to the host where they are not; waits for the work that makes them.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn read(&self) -> Result<Cow<'_, [f32]>> {
        match &self.memory {
            Memory::Host(_) => Ok(Cow::Borrowed(self.host())),
            Memory::Cuda(memory) => {
                let mut values = vec![0u8; memory.bytes()];
                memory.download(&mut values)?;
                let words = values.chunks_exact(size_of::<f32>());
                Ok(Cow::Owned(words.map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()))
            }
        }
    }

    /// Replaces the elements of a buffer of f32: `fill` is given memory of the host, all of which it has to write.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`, `ERR_DEVICE`.
    pub fn write(&mut self, fill: impl FnOnce(&mut [f32])) -> Result<()> {
        match &self.memory {
            Memory::Host(_) => fill(self.host_mut()),
            Memory::Cuda(memory) => {
                let bytes = memory.bytes() as u64;
                let words = memory.bytes() / size_of::<f32>();
                let mut values = AlignedMemory::zeroed(words).ok_or(Error::OutOfMemory { bytes })?;
                fill(values.floats_mut());
                memory.upload(values.bytes())?;
            }
        }
        Ok(())
    }
}

const NOT_ON_HOST: &str = "memory of another device was taken for the host's";
const NOT_ON_DEVICE: &str = "memory of the host was taken for a device's";

/// Elements in memory of a CUDA device, to be read.
#[derive(Debug, Clone, Copy)]
pub struct CudaView<'a> {
    pointer: u64,
    len: usize,
    dtype: Dtype,
    memory: PhantomData<&'a ()>,
}

/// Elements in memory of a CUDA device, to be written.
#[derive(Debug)]
pub struct CudaViewMut<'a> {
    pointer: u64,
    len: usize,
    dtype: Dtype,
    memory: PhantomData<&'a mut ()>,
}

/// Where elements `range` of `len` begin.
fn place(pointer: u64, len: usize, dtype: Dtype, range: &std::ops::Range<usize>) -> u64 {
    assert!(range.start <= range.end && range.end <= len, "{range:?} of {len} elements");
    pointer + (range.start * dtype.size()) as u64
}

/// A view an op reads.
#[derive(Debug, Clone, Copy)]
pub enum In<'a> {
    /// Memory of the host.
    Cpu(&'a [f32]),
    /// bf16 in memory of the host.
    CpuBf16(&'a [u16]),
    /// Memory of a CUDA device.
    Cuda(CudaView<'a>),
}

/// A view an op writes.
#[derive(Debug)]
pub enum Out<'a> {
    /// Memory of the host.
    Cpu(&'a mut [f32]),
    /// bf16 in memory of the host.
    CpuBf16(&'a mut [u16]),
    /// Memory of a CUDA device.
    Cuda(CudaViewMut<'a>),
}

impl<'a> In<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
            Self::CpuBf16(s) => s.len(),
            Self::Cuda(view) => view.len,
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
            Self::Cuda(CudaView { pointer, len, dtype, memory }) => In::Cuda(CudaView {
                pointer: place(pointer, len, dtype, &range),
                len: range.len(),
                dtype,
                memory,
            }),
        }
    }

    /// What its elements are.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::Cpu(_) => Dtype::F32,
            Self::CpuBf16(_) => Dtype::Bf16,
            Self::Cuda(view) => view.dtype,
        }
    }

    /// Its address in device memory; the caller's device is a CUDA one.
    ///
    /// # Panics
    /// When it is memory of the host: a mistake in the model.
    pub fn pointer(&self) -> u64 {
        match self {
            Self::Cuda(view) => view.pointer,
            _ => panic!("{NOT_ON_DEVICE}"),
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
            Self::Cuda(_) => panic!("{NOT_ON_HOST}"),
        }
    }
}

impl<'a> Out<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
            Self::CpuBf16(s) => s.len(),
            Self::Cuda(view) => view.len,
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
            Self::Cuda(CudaViewMut { pointer, len, dtype, memory }) => Out::Cuda(CudaViewMut {
                pointer: place(pointer, len, dtype, &range),
                len: range.len(),
                dtype,
                memory,
            }),
        }
    }

    /// The elements before `middle` and those from there on.
    #[must_use]
    pub fn split_at(self, middle: usize) -> (Out<'a>, Out<'a>) {
        match self {
            Self::Cpu(s) => {
                let (first, second) = s.split_at_mut(middle);
                (Out::Cpu(first), Out::Cpu(second))
            }
            Self::CpuBf16(s) => {
                let (first, second) = s.split_at_mut(middle);
                (Out::CpuBf16(first), Out::CpuBf16(second))
            }
            Self::Cuda(CudaViewMut { pointer, len, dtype, memory }) => {
                let part = |range: std::ops::Range<usize>| {
                    let pointer = place(pointer, len, dtype, &range);
                    Out::Cuda(CudaViewMut { pointer, len: range.len(), dtype, memory })
                };
                (part(0..middle), part(middle..len))
            }
        }
    }

    /// What its elements are.
    pub fn dtype(&self) -> Dtype {
        self.read().dtype()
    }

    /// Its address in device memory; the caller's device is a CUDA one.
    ///
    /// # Panics
    /// When it is memory of the host: a mistake in the model.
    pub fn pointer(&self) -> u64 {
        self.read().pointer()
    }

    /// This view again, for a shorter time.
    pub fn again(&mut self) -> Out<'_> {
        match self {
            Self::Cpu(s) => Out::Cpu(s),
            Self::CpuBf16(s) => Out::CpuBf16(s),
            Self::Cuda(view) => Out::Cuda(CudaViewMut { memory: PhantomData, ..*view }),
        }
    }

    /// A view to read of what is written here.
    pub fn read(&self) -> In<'_> {
        match self {
            Self::Cpu(s) => In::Cpu(s),
            Self::CpuBf16(s) => In::CpuBf16(s),
            Self::Cuda(CudaViewMut { pointer, len, dtype, .. }) => {
                In::Cuda(CudaView { pointer: *pointer, len: *len, dtype: *dtype, memory: PhantomData })
            }
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
            Self::Cuda(_) => panic!("{NOT_ON_HOST}"),
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
