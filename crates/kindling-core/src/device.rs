//! Where the arithmetic runs. An op matches on this once and calls its CPU or CUDA half.

use std::sync::Arc;

use crate::cpu::{Cpu, MatmulBackend};
use crate::cuda::{self, Arithmetic, Cuda, Properties};
use crate::dtype::Dtype;
use crate::profile::{Profile, Span};
use crate::simd::Isa;
use crate::{Error, Result};

/// A device that holds buffers and runs ops. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Device {
    /// The processor.
    Cpu(Arc<Cpu>),
    /// A GPU by CUDA.
    Cuda(Arc<Cuda>),
}

impl Device {
    /// The processor with `threads` threads (0: as many cores as the process may use), in f32.
    pub fn cpu(threads: usize) -> Self {
        Self::cpu_of(threads, Dtype::F32)
    }

    /// As `cpu`, with products in `dtype`.
    pub fn cpu_of(threads: usize, dtype: Dtype) -> Self {
        let threads = if threads == 0 { crate::pool::available_threads() } else { threads };
        Self::Cpu(Arc::new(Cpu::new(threads, Isa::detect(), MatmulBackend::detect(dtype))))
    }

    /// The device of a name: `cpu`, `cuda` or `cuda:N`; `auto` is cuda where there is one, else cpu. `threads` as in `cpu`.
    /// `tf32`: products of f32 may be rounded to `TensorFloat-32` on a device that has it.
    ///
    /// # Errors
    /// `ERR_DEVICE_UNAVAILABLE` when cuda is asked for and absent, `ERR_INVALID_ARGUMENT` for another name.
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
        let threads = if threads == 0 { crate::pool::available_threads() } else { threads };
        Ok(Self::Cuda(Arc::new(Cuda::open(ordinal, Arithmetic { dtype, tf32 }, threads)?)))
    }

    /// What operands of products are rounded to.
    pub fn matmul_dtype(&self) -> Dtype {
        match self {
            Self::Cpu(cpu) => cpu.matmul.dtype(),
            Self::Cuda(gpu) => gpu.arithmetic.dtype,
        }
    }

    /// What the ops between two products keep their results in: q|k|v, heads, outputs of norms and of layers. Always f32 on
    /// the CPU, whose products round their operands as they read them.
    pub fn activation_dtype(&self) -> Dtype {
        match self {
            Self::Cpu(_) => Dtype::F32,
            Self::Cuda(gpu) => gpu.arithmetic.dtype,
        }
    }

    /// The processor, for what is computed on the host whatever the device.
    pub(crate) fn host(&self) -> &Cpu {
        match self {
            Self::Cpu(cpu) => cpu,
            Self::Cuda(gpu) => &gpu.host,
        }
    }

    /// What a device of its own is; none for the processor.
    pub fn properties(&self) -> Option<&Properties> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(gpu) => Some(gpu.properties()),
        }
    }

    /// The most memory of a device of its own that was in use at once, in bytes; none for the processor.
    pub fn peak_device_bytes(&self) -> Option<u64> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(gpu) => Some(gpu.peak_bytes()),
        }
    }

    /// Waits for the work that is queued.
    ///
    /// # Errors
    /// `ERR_DEVICE` where some of it failed.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Cuda(gpu) => gpu.synchronize(),
        }
    }

    /// The record of its ops.
    pub fn profile(&self) -> &Profile {
        match self {
            Self::Cpu(cpu) => &cpu.profile,
            Self::Cuda(gpu) => &gpu.profile,
        }
    }

    /// Counts the time until the span is dropped to `op`, while a profile is taken.
    pub fn span(&self, op: &'static str) -> Span<'_> {
        self.profile().span(op)
    }

    /// Its name, as `from_name` takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}
