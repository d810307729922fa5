//! Where the arithmetic runs. An op matches on this once and calls its CPU or CUDA half.

use std::sync::Arc;

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
    /// Where the time goes, while somebody asks.
    pub profile: Profile,
}

/// A device that holds buffers and runs ops. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Device {
    /// The processor.
    Cpu(Arc<Cpu>),
}

impl Device {
    /// The processor with `threads` threads (0: as many cores as the process may use).
    pub fn cpu(threads: usize) -> Self {
        let threads = if threads == 0 { crate::pool::available_threads() } else { threads };
        Self::Cpu(Arc::new(Cpu { pool: Pool::new(threads), isa: Isa::detect(), profile: Profile::default() }))
    }

    /// The device of a name: `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// `ERR_DEVICE_UNAVAILABLE` when cuda is asked for and absent, `ERR_INVALID_ARGUMENT` for another name.
    pub fn from_name(name: &str, threads: usize) -> Result<Self> {
        match name {
            "cpu" => Ok(Self::cpu(threads)),
            cuda if cuda == "cuda"
                || cuda.strip_prefix("cuda:").is_some_and(|n| n.parse::<u32>().is_ok()) =>
            {
                Err(Error::DeviceUnavailable("this build has no CUDA support; use --device cpu".to_owned()))
            }
            other => Err(Error::argument(format!("unknown device \"{other}\"; use cpu, cuda or cuda:N"))),
        }
    }

    /// The record of its ops.
    pub fn profile(&self) -> &Profile {
        match self {
            Self::Cpu(cpu) => &cpu.profile,
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
        }
    }
}
