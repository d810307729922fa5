//! Views that ops take of memory, to read and to write: slices of the host, or addresses of a device.

use std::marker::PhantomData;

use crate::dtype::Dtype;

pub(super) const NOT_ON_HOST: &str = "memory of another device was taken for the host's";
const NOT_ON_DEVICE: &str = "memory of the host was taken for a device's";

/// Elements in memory of a CUDA device, to be read.
#[derive(Debug, Clone, Copy)]
pub struct CudaView<'a> {
    pub(super) pointer: u64,
    pub(super) len: usize,
    pub(super) dtype: Dtype,
    pub(super) memory: PhantomData<&'a ()>,
}

/// Elements in memory of a CUDA device, to be written.
#[derive(Debug)]
pub struct CudaViewMut<'a> {
    pub(super) pointer: u64,
    pub(super) len: usize,
    pub(super) dtype: Dtype,
    pub(super) memory: PhantomData<&'a mut ()>,
}

impl CudaView<'_> {
    /// Describes `len` elements at a device address.
    pub fn new(pointer: u64, len: usize, dtype: Dtype) -> Self {
        Self { pointer, len, dtype, memory: PhantomData }
    }
}

impl CudaViewMut<'_> {
    /// Describes `len` elements at a device address.
    pub fn new(pointer: u64, len: usize, dtype: Dtype) -> Self {
        Self { pointer, len, dtype, memory: PhantomData }
    }
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
            Self::Cuda(CudaViewMut { pointer, len, dtype, .. }) => In::Cuda(CudaView {
                pointer: *pointer,
                len: *len,
                dtype: *dtype,
                memory: PhantomData,
            }),
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
