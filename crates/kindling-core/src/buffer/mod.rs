//! Flat arrays of f32 or bf16 in the memory of one device, and the views of them that ops take.
//!
//! Buffers are allocated once per run. An op takes `In` and `Out` views, checks their lengths
//! against its shape once, and passes plain slices to its CPU code or addresses to its CUDA code.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

use crate::cuda::DeviceMemory;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::host_memory::AlignedMemory;
use crate::pool::Pool;
use crate::{Error, Result, available_memory};

mod views;

use views::NOT_ON_HOST;
pub use views::{CudaView, CudaViewMut, In, Out};

#[derive(Debug)]
enum Memory {
    Host(AlignedMemory),
    Cuda(DeviceMemory),
}

/// An owned array in the memory of a device.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    /// Elements.
    len: usize,
    dtype: Dtype,
}

impl Buffer {
    /// Allocates `len` f32 zeros on `device`.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the device does not have enough memory.
    pub fn zeros(device: &Device, len: usize) -> Result<Self> {
        Self::zeros_of(device, len, Dtype::F32)
    }

    /// Like `zeros`, with elements of `dtype`. On the CPU only matrix products and attention accept
    /// bf16; the other ops take f32.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the device does not have enough memory.
    pub fn zeros_of(device: &Device, len: usize, dtype: Dtype) -> Result<Self> {
        // Rounded up to whole words. If the number of bytes overflows, no memory is large enough.
        let bytes = len.saturating_mul(dtype.size()).checked_next_multiple_of(size_of::<f32>());
        let out_of_memory =
            || Error::OutOfMemory { bytes: (len as u64).saturating_mul(dtype.size() as u64) };
        let bytes = bytes.ok_or_else(out_of_memory)?;
        let memory = match device {
            Device::Cpu(_) => Memory::Host(
                AlignedMemory::zeroed(bytes / size_of::<f32>()).ok_or_else(out_of_memory)?,
            ),
            Device::Cuda(gpu) => Memory::Cuda(gpu.zeros(bytes)?),
        };
        Ok(Self { memory, len, dtype })
    }

    /// Copies `values` to `device`.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the device does not have enough memory, `ERR_DEVICE` if the
    /// copy fails.
    pub fn of(device: &Device, values: &[f32]) -> Result<Self> {
        let mut buffer = Self::zeros(device, values.len())?;
        buffer.write(|memory| memory.copy_from_slice(values))?;
        Ok(buffer)
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a read-only view of all elements.
    pub fn view(&self) -> In<'_> {
        match (&self.memory, self.dtype) {
            (Memory::Host(memory), Dtype::F32) => In::Cpu(memory.floats()),
            (Memory::Host(memory), Dtype::Bf16) => In::CpuBf16(memory.bf16(self.len)),
            (Memory::Cuda(memory), dtype) => In::Cuda(CudaView {
                pointer: memory.pointer(),
                len: self.len,
                dtype,
                memory: PhantomData,
            }),
        }
    }

    /// Returns a read-only view of the elements `range`.
    pub fn slice(&self, range: Range<usize>) -> In<'_> {
        self.view().slice(range)
    }

    /// Returns a writable view of the elements `range`.
    pub fn slice_mut(&mut self, range: Range<usize>) -> Out<'_> {
        self.view_mut().slice(range)
    }

    /// Returns a writable view of all elements.
    pub fn view_mut(&mut self) -> Out<'_> {
        match (&mut self.memory, self.dtype) {
            (Memory::Host(memory), Dtype::F32) => Out::Cpu(memory.floats_mut()),
            (Memory::Host(memory), Dtype::Bf16) => Out::CpuBf16(memory.bf16_mut(self.len)),
            (Memory::Cuda(memory), dtype) => Out::Cuda(CudaViewMut {
                pointer: memory.pointer(),
                len: self.len,
                dtype,
                memory: PhantomData,
            }),
        }
    }

    /// Returns the elements of an f32 buffer on the CPU. (For a bf16 buffer these are its words,
    /// pairs of elements.)
    ///
    /// # Panics
    /// Panics if the buffer is on another device: a bug in the caller.
    pub fn host(&self) -> &[f32] {
        let Memory::Host(memory) = &self.memory else { panic!("{NOT_ON_HOST}") };
        memory.floats()
    }

    /// Like `host`, but mutable.
    ///
    /// # Panics
    /// Panics if the buffer is on another device: a bug in the caller.
    pub fn host_mut(&mut self) -> &mut [f32] {
        let Memory::Host(memory) = &mut self.memory else { panic!("{NOT_ON_HOST}") };
        memory.floats_mut()
    }

    /// Returns the elements of an f32 buffer, copied to the host if they are on a GPU. Waits for
    /// queued work.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the copy or queued work fails.
    pub fn read(&self) -> Result<Cow<'_, [f32]>> {
        match &self.memory {
            Memory::Host(_) => Ok(Cow::Borrowed(self.host())),
            Memory::Cuda(memory) => {
                let mut values = vec![0u8; memory.bytes()];
                memory.download(&mut values)?;
                let words = values.chunks_exact(size_of::<f32>());
                Ok(Cow::Owned(
                    words.map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect(),
                ))
            }
        }
    }

    /// Returns the elements `range` of an f32 buffer, as `read` does for all.
    ///
    /// # Errors
    /// As `read`, and `ERR_OUT_OF_MEMORY` if the host does not have enough memory for a copy.
    pub fn read_range(&self, range: Range<usize>) -> Result<Cow<'_, [f32]>> {
        match &self.memory {
            Memory::Host(_) => Ok(Cow::Borrowed(&self.host()[range])),
            Memory::Cuda(memory) => {
                let mut values = zeroed_vec(range.len())?;
                memory.download_floats(&mut values, range.start)?;
                Ok(Cow::Owned(values))
            }
        }
    }

    /// Copies an f32 buffer to a buffer on the host, with the threads of `pool`. Waits for queued
    /// work.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the host does not have enough memory, `ERR_DEVICE` if the
    /// copy or queued work fails.
    pub(crate) fn to_host(&self, pool: &Pool) -> Result<Self> {
        let bytes = (self.len * size_of::<f32>()) as u64;
        let copy = match &self.memory {
            Memory::Host(memory) => AlignedMemory::copied(pool, memory.floats()),
            Memory::Cuda(_) => AlignedMemory::zeroed(self.len),
        };
        let mut copy = copy.ok_or(Error::OutOfMemory { bytes })?;
        if let Memory::Cuda(memory) = &self.memory {
            memory.download_floats(copy.floats_mut(), 0)?;
        }
        Ok(Self { memory: Memory::Host(copy), len: self.len, dtype: Dtype::F32 })
    }

    /// Replaces the elements `range` of an f32 buffer.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the copy fails.
    pub fn write_range(&mut self, range: Range<usize>, values: &[f32]) -> Result<()> {
        match &mut self.memory {
            Memory::Host(memory) => memory.floats_mut()[range].copy_from_slice(values),
            Memory::Cuda(memory) => memory.upload_floats(range.start, values)?,
        }
        Ok(())
    }

    /// Replaces the elements of an f32 buffer. `fill` gets host memory with unspecified contents,
    /// and must write all of it.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the host does not have enough memory for a copy, `ERR_DEVICE`
    /// if the copy fails.
    pub fn write(&mut self, fill: impl FnOnce(&mut [f32])) -> Result<()> {
        match &self.memory {
            Memory::Host(_) => fill(self.host_mut()),
            Memory::Cuda(memory) => {
                let bytes = memory.bytes() as u64;
                let words = memory.bytes() / size_of::<f32>();
                let mut values =
                    AlignedMemory::zeroed(words).ok_or(Error::OutOfMemory { bytes })?;
                fill(values.floats_mut());
                memory.upload(values.bytes())?;
            }
        }
        Ok(())
    }
}

/// Allocates zeros on the host.
///
/// # Errors
/// Returns `ERR_OUT_OF_MEMORY` where `vec!` would abort the process, or the system would kill it.
pub fn zeroed_vec<T: Default + Clone>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    extend_zeroed(&mut values, len)?;
    Ok(values)
}

/// Extends a vector to `len` elements with zeros. Growing it step by step takes linear time.
///
/// # Errors
/// As `zeroed_vec`.
pub(crate) fn extend_zeroed<T: Default + Clone>(values: &mut Vec<T>, len: usize) -> Result<()> {
    if len > values.capacity() {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        available_memory::require(bytes)?;
        let additional = len - values.len();
        values.try_reserve(additional).map_err(|_| Error::OutOfMemory { bytes })?;
    }
    values.resize(len, T::default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_memory_is_an_error_rather_than_an_abort() {
        let dev = Device::cpu(1);
        // The last length is more than any machine has, but within the address space.
        for len in [1 << 60, usize::MAX, 1 << 44] {
            assert_eq!(Buffer::zeros(&dev, len).unwrap_err().code(), "ERR_OUT_OF_MEMORY");
        }
        assert_eq!(Buffer::zeros(&dev, 0).unwrap().len(), 0);
        for len in [1 << 60, usize::MAX, 1 << 44] {
            assert_eq!(zeroed_vec::<f32>(len).unwrap_err().code(), "ERR_OUT_OF_MEMORY");
        }
        let panic = std::panic::catch_unwind(|| {
            crate::host_memory::HostScratch::default().lock().floats(1 << 44).len()
        });
        let error = panic.unwrap_err().downcast::<Error>().unwrap();
        assert_eq!(error.code(), "ERR_OUT_OF_MEMORY");
    }
}
