//! Where the arithmetic runs. An op matches on this once and calls its CPU or CUDA half.

use std::sync::{Arc, Mutex};

use crate::cuda::{self, Arithmetic, Cuda, Properties};
use crate::ops::matmul::packed::{Kernel, Packed};
use crate::pool::Pool;
use crate::profile::{Profile, Span};
use crate::simd::Isa;
use crate::{Error, Result};

/// The processor: the engine's own threads and the instruction set chosen at run time.
#[derive(Debug)]
pub struct Cpu {
    /// Threads owned by the engine.
    pub pool: Pool,
    /// Instruction set of the inner loops.
    pub isa: Isa,
    /// Arithmetic of the matrix products.
    pub products: Products,
    /// Memory of packed products.
    pub(crate) packed: Packed,
    /// Memory of a turned part of a weight.
    pub(crate) turned: Mutex<Vec<f32>>,
    /// Where the time goes, while somebody asks.
    pub profile: Profile,
}

impl Cpu {
    /// A processor of its own threads.
    pub fn new(threads: usize, isa: Isa, products: Products) -> Self {
        let (packed, profile) = (Packed::default(), Profile::default());
        Self { pool: Pool::new(threads), isa, products, packed, turned: Mutex::default(), profile }
    }
}

/// Arithmetic of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// f32 by the `gemm` crate, with what instructions it finds.
    F32,
    /// By a kernel of our own, whose operands are f32 or bf16; sums in f32.
    Packed(Kernel),
}

impl Products {
    /// What operands are rounded to.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Packed(kernel) => kernel.dtype(),
        }
    }
}

/// What a user asks of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// f32.
    F32,
    /// bf16 operands with f32 sums; f32 where the processor has no instructions for it.
    Bf16,
}

impl Dtype {
    /// The dtype of a name: `f32` or `bf16`.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for another name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(Error::argument(format!("unknown dtype \"{other}\"; use f32 or bf16"))),
        }
    }

    /// Bytes of an element of what is kept in it.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn products(self) -> Products {
        let kernel = match self {
            Self::F32 => Kernel::detect_f32(),
            Self::Bf16 => Kernel::detect().or_else(Kernel::detect_f32),
        };
        kernel.map_or(Products::F32, Products::Packed)
    }
}

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
        Self::Cpu(Arc::new(Cpu::new(threads, Isa::detect(), dtype.products())))
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
    pub fn operands(&self) -> Dtype {
        match self {
            Self::Cpu(cpu) => cpu.products.dtype(),
            Self::Cuda(gpu) => gpu.arithmetic.dtype,
        }
    }

    /// What the ops between two products keep their results in: q|k|v, heads, outputs of norms and of layers. Always f32 on
    /// the CPU, whose products round their operands as they read them.
    pub fn branches(&self) -> Dtype {
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
