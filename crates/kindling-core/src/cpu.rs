//! The CPU as a device: the engine's threads, the instruction set, and the matmul backend.

use std::sync::Mutex;

use crate::dtype::Dtype;
use crate::ops::matmul::packed::{Kernel, Packed};
use crate::pool::Pool;
use crate::profile::Profile;
use crate::simd::Isa;

/// The processor: the engine's own threads and the instruction set chosen at run time.
#[derive(Debug)]
pub struct Cpu {
    /// Threads owned by the engine.
    pub pool: Pool,
    /// Instruction set of the inner loops.
    pub isa: Isa,
    /// Arithmetic of the matrix products.
    pub matmul: MatmulBackend,
    /// Memory of packed products.
    pub(crate) packed: Packed,
    /// Memory of a turned part of a weight.
    pub(crate) turned: Mutex<Vec<f32>>,
    /// Where the time goes, while somebody asks.
    pub profile: Profile,
}

impl Cpu {
    /// A processor of its own threads.
    pub fn new(threads: usize, isa: Isa, matmul: MatmulBackend) -> Self {
        let (packed, profile) = (Packed::default(), Profile::default());
        Self { pool: Pool::new(threads), isa, matmul, packed, turned: Mutex::default(), profile }
    }
}

/// Arithmetic of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatmulBackend {
    /// f32 by the `gemm` crate, with what instructions it finds.
    F32,
    /// By a kernel of our own, whose operands are f32 or bf16; sums in f32.
    Packed(Kernel),
}

impl MatmulBackend {
    /// Selects the fastest backend of this machine for operands of `dtype`. bf16 falls back to f32 where
    /// the CPU has no bf16 instructions.
    pub fn detect(dtype: Dtype) -> Self {
        let kernel = match dtype {
            Dtype::F32 => Kernel::detect_f32(),
            Dtype::Bf16 => Kernel::detect().or_else(Kernel::detect_f32),
        };
        kernel.map_or(Self::F32, Self::Packed)
    }

    /// Dtype that operands are rounded to.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Packed(kernel) => kernel.dtype(),
        }
    }
}
