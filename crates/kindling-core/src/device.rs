//! The device that ops run on. An op matches on it once and calls its CPU or CUDA implementation.

use std::sync::Arc;

use crate::cpu::{Cpu, MatmulBackend};
use crate::cuda::{self, Arithmetic, Cuda, Properties};
use crate::dtype::Dtype;
use crate::pool::available_threads;
use crate::profile::{Profile, Span};
use crate::simd::Isa;
use crate::{Error, Result};

/// A device that holds buffers and runs ops. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Device {
    Cpu(Arc<Cpu>),
    Cuda(Arc<Cuda>),
}

impl Device {
    /// Runs `work`, which queues nearly the same work in most calls, so that a CUDA device may
    /// queue all of it at once (see `Cuda::recorded`).
    ///
    /// # Errors
    /// Returns the error of `work`, or `ERR_DEVICE`.
    pub fn recorded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Self::Cpu(_) => work(),
            Self::Cuda(gpu) => gpu.recorded(work),
        }
    }

    /// Returns the CPU with products in f32 and `threads` threads; 0 means one per core the process
    /// may use.
    pub fn cpu(threads: usize) -> Self {
        Self::cpu_of(threads, Dtype::F32)
    }

    /// Like `cpu`, with matrix products in `dtype`.
    pub fn cpu_of(threads: usize, dtype: Dtype) -> Self {
        let backend = MatmulBackend::detect(dtype);
        Self::Cpu(Arc::new(Cpu::new(threads_or_default(threads), Isa::detect(), backend)))
    }

    /// Opens the device named `cpu`, `cuda`, `cuda:N` or `auto` (CUDA if there is a usable GPU,
    /// else the CPU).
    ///
    /// `threads` is as in `cpu`. If `tf32` is set, a device that has TensorFloat-32 may round the
    /// operands of f32 products to it.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE_UNAVAILABLE` if the name asks for CUDA and there is none, and
    /// `ERR_INVALID_ARGUMENT` for any other name.
    pub fn from_name(name: &str, threads: usize, dtype: Dtype, tf32: bool) -> Result<Self> {
        let ordinal = match name {
            "cpu" => return Ok(Self::cpu_of(threads, dtype)),
            "auto" if cuda::device_count() == 0 || cuda::problem().is_some() => {
                return Ok(Self::cpu_of(threads, dtype));
            }
            "auto" | "cuda" => 0,
            other => other
                .strip_prefix("cuda:")
                .and_then(|n| n.parse::<u16>().ok())
                .ok_or_else(|| {
                    Error::argument(format!("unknown device \"{other}\"; use cpu, cuda or cuda:N"))
                })?
                .into(),
        };
        let threads = threads_or_default(threads);
        Ok(Self::Cuda(Arc::new(Cuda::open(ordinal, Arithmetic { dtype, tf32 }, threads)?)))
    }

    /// Returns the dtype to which operands of matrix products are rounded.
    pub fn matmul_dtype(&self) -> Dtype {
        match self {
            Self::Cpu(cpu) => cpu.matmul.dtype(),
            Self::Cuda(gpu) => gpu.arithmetic.dtype,
        }
    }

    /// Returns the dtype of activations between products: q|k|v, the heads' outputs, outputs of
    /// norms and layers. It is f32 on the CPU, whose products round operands as they pack them.
    pub fn activation_dtype(&self) -> Dtype {
        match self {
            Self::Cpu(_) => Dtype::F32,
            Self::Cuda(gpu) => gpu.arithmetic.dtype,
        }
    }

    /// Returns the CPU, for work that runs on the host whatever the device.
    pub(crate) fn host(&self) -> &Cpu {
        match self {
            Self::Cpu(cpu) => cpu,
            Self::Cuda(gpu) => &gpu.host,
        }
    }

    /// Returns the properties of a GPU, or `None` for the CPU.
    pub fn properties(&self) -> Option<&Properties> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(gpu) => Some(gpu.properties()),
        }
    }

    /// Returns the peak of GPU memory in use in bytes, or `None` for the CPU.
    pub fn peak_device_bytes(&self) -> Option<u64> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(gpu) => Some(gpu.peak_bytes()),
        }
    }

    /// Waits for queued work to finish.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if some of it failed.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Cuda(gpu) => gpu.synchronize(),
        }
    }

    pub fn profile(&self) -> &Profile {
        match self {
            Self::Cpu(cpu) => &cpu.profile,
            Self::Cuda(gpu) => &gpu.profile,
        }
    }

    /// Starts a span that counts towards `op` until it is dropped, if a profile is being recorded.
    pub fn span(&self, op: &'static str) -> Span<'_> {
        self.profile().span(op)
    }

    /// Returns `cpu` or `cuda`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

fn threads_or_default(threads: usize) -> usize {
    if threads == 0 { available_threads() } else { threads }
}
