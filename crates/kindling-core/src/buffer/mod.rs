//! Flat memory of one device, f32 or bf16, and the views ops take of it.
//!
//! Buffers are allocated once per run; an op takes `In` and `Out` views, checks their lengths against its shape once,
//! and hands plain slices to its CPU half or addresses to the kernels of its CUDA half.

use std::borrow::Cow;
use std::marker::PhantomData;

use crate::cuda::DeviceMemory;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::{Error, Result};

mod memory;
mod views;

pub(crate) use memory::AlignedMemory;
use views::NOT_ON_HOST;
pub use views::{CudaView, CudaViewMut, In, Out};

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
                In::CpuBf16(unsafe {
                    std::slice::from_raw_parts(memory.pointer.as_ptr().cast(), self.len)
                })
            }
            (Memory::Cuda(memory), dtype) => In::Cuda(CudaView {
                pointer: memory.pointer(),
                len: self.len,
                dtype,
                memory: PhantomData,
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
        memory.floats()
    }

    /// As `host`, writable.
    ///
    /// # Panics
    /// As `host`.
    pub fn host_mut(&mut self) -> &mut [f32] {
        let Memory::Host(memory) = &mut self.memory else { panic!("{NOT_ON_HOST}") };
        memory.floats_mut()
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
                Ok(Cow::Owned(
                    words.map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect(),
                ))
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
                let mut values =
                    AlignedMemory::zeroed(words).ok_or(Error::OutOfMemory { bytes })?;
                fill(values.floats_mut());
                memory.upload(values.bytes())?;
            }
        }
        Ok(())
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
