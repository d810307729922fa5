//! Read-only and writable views of buffers, which ops take: slices of host memory, or device
//! addresses.

use std::marker::PhantomData;

use crate::dtype::Dtype;

pub(super) const NOT_ON_HOST: &str = "device memory was used as host memory";
const NOT_ON_DEVICE: &str = "host memory was used as device memory";
const NOT_F32: &str = "bf16 memory was passed to an op that takes f32";

/// A read-only view of elements in the memory of a CUDA device.
#[derive(Debug, Clone, Copy)]
pub struct CudaView<'a> {
    pub(super) pointer: u64,
    pub(super) len: usize,
    pub(super) dtype: Dtype,
    pub(super) memory: PhantomData<&'a ()>,
}

/// A writable view of elements in the memory of a CUDA device.
#[derive(Debug)]
pub struct CudaViewMut<'a> {
    pub(super) pointer: u64,
    pub(super) len: usize,
    pub(super) dtype: Dtype,
    pub(super) memory: PhantomData<&'a mut ()>,
}

impl CudaView<'_> {
    /// Creates a view of `len` elements at a device address.
    pub fn new(pointer: u64, len: usize, dtype: Dtype) -> Self {
        Self { pointer, len, dtype, memory: PhantomData }
    }
}

impl CudaViewMut<'_> {
    /// Creates a view of `len` elements at a device address.
    pub fn new(pointer: u64, len: usize, dtype: Dtype) -> Self {
        Self { pointer, len, dtype, memory: PhantomData }
    }
}

/// Returns the device address of element `range.start`. Panics unless `range` lies within `len`
/// elements.
fn address(pointer: u64, len: usize, dtype: Dtype, range: &std::ops::Range<usize>) -> u64 {
    assert!(range.start <= range.end && range.end <= len, "{range:?} of {len} elements");
    pointer + (range.start * dtype.size()) as u64
}

/// A view that an op reads.
#[derive(Debug, Clone, Copy)]
pub enum In<'a> {
    Cpu(&'a [f32]),
    /// bf16, as bits.
    CpuBf16(&'a [u16]),
    Cuda(CudaView<'a>),
}

/// A view that an op writes.
#[derive(Debug)]
pub enum Out<'a> {
    Cpu(&'a mut [f32]),
    /// bf16, as bits.
    CpuBf16(&'a mut [u16]),
    Cuda(CudaViewMut<'a>),
}

impl<'a> In<'a> {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
            Self::CpuBf16(s) => s.len(),
            Self::Cuda(view) => view.len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a view of the elements `range`.
    #[must_use]
    pub fn slice(self, range: std::ops::Range<usize>) -> In<'a> {
        match self {
            Self::Cpu(s) => In::Cpu(&s[range]),
            Self::CpuBf16(s) => In::CpuBf16(&s[range]),
            Self::Cuda(CudaView { pointer, len, dtype, memory }) => In::Cuda(CudaView {
                pointer: address(pointer, len, dtype, &range),
                len: range.len(),
                dtype,
                memory,
            }),
        }
    }

    pub fn dtype(&self) -> Dtype {
        match self {
            Self::Cpu(_) => Dtype::F32,
            Self::CpuBf16(_) => Dtype::Bf16,
            Self::Cuda(view) => view.dtype,
        }
    }

    /// Returns the device address.
    ///
    /// # Panics
    /// Panics if the view is of host memory, which is a bug in the caller.
    pub fn pointer(&self) -> u64 {
        match self {
            Self::Cuda(view) => view.pointer,
            _ => panic!("{NOT_ON_DEVICE}"),
        }
    }

    /// Returns the slice of f32 in host memory.
    ///
    /// # Panics
    /// Panics if the view is of device memory or bf16: a bug in the caller.
    pub fn cpu(self) -> &'a [f32] {
        match self {
            Self::Cpu(s) => s,
            Self::CpuBf16(_) => panic!("{NOT_F32}"),
            Self::Cuda(_) => panic!("{NOT_ON_HOST}"),
        }
    }
}

impl<'a> Out<'a> {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Cpu(s) => s.len(),
            Self::CpuBf16(s) => s.len(),
            Self::Cuda(view) => view.len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Narrows the view to the elements `range`.
    #[must_use]
    pub fn slice(self, range: std::ops::Range<usize>) -> Out<'a> {
        match self {
            Self::Cpu(s) => Out::Cpu(&mut s[range]),
            Self::CpuBf16(s) => Out::CpuBf16(&mut s[range]),
            Self::Cuda(CudaViewMut { pointer, len, dtype, memory }) => Out::Cuda(CudaViewMut {
                pointer: address(pointer, len, dtype, &range),
                len: range.len(),
                dtype,
                memory,
            }),
        }
    }

    /// Splits the view in two; the second part starts at element `middle`.
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
                    let pointer = address(pointer, len, dtype, &range);
                    Out::Cuda(CudaViewMut { pointer, len: range.len(), dtype, memory })
                };
                (part(0..middle), part(middle..len))
            }
        }
    }

    pub fn dtype(&self) -> Dtype {
        self.read().dtype()
    }

    /// Returns the device address.
    ///
    /// # Panics
    /// Panics if the view is of host memory, which is a bug in the caller.
    pub fn pointer(&self) -> u64 {
        self.read().pointer()
    }

    /// Reborrows the view for a shorter lifetime.
    pub fn reborrow(&mut self) -> Out<'_> {
        match self {
            Self::Cpu(s) => Out::Cpu(s),
            Self::CpuBf16(s) => Out::CpuBf16(s),
            Self::Cuda(view) => Out::Cuda(CudaViewMut { memory: PhantomData, ..*view }),
        }
    }

    /// Returns a read-only view of the same elements.
    pub fn read(&self) -> In<'_> {
        match self {
            Self::Cpu(s) => In::Cpu(s),
            Self::CpuBf16(s) => In::CpuBf16(s),
            Self::Cuda(CudaViewMut { pointer, len, dtype, .. }) => In::Cuda(CudaView {
                pointer: *pointer,
                len: *len,
                dtype: *dtype,
                memory: PhantomData,
            }),
        }
    }

    /// Returns the slice of f32 in host memory.
    ///
    /// # Panics
    /// Panics if the view is of device memory or bf16: a bug in the caller.
    pub fn cpu(self) -> &'a mut [f32] {
        match self {
            Self::Cpu(s) => s,
            Self::CpuBf16(_) => panic!("{NOT_F32}"),
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
