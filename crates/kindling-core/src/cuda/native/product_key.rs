//! What the algorithm of a product depends on, and the file that stores the choices of a run.

use std::collections::BTreeMap;

use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t;
use serde::{Deserialize, Serialize};

use crate::cuda::Product;
use crate::dtype::Dtype;

/// Minimum alignment of device memory; a larger one makes no difference to the library.
const MAX_ALIGNMENT: u64 = 256;

/// What a plan depends on: a product without its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub sizes: [usize; 3],
    pub leading: [usize; 3],
    pub transposed: [bool; 2],
    pub operands: Dtype,
    pub results: Dtype,
    pub tf32: bool,
    pub accumulate: bool,
    /// Largest power of two, up to 256, that divides the addresses of a, b and out.
    pub alignments: [u32; 3],
}

impl Key {
    pub fn of(p: &Product) -> Self {
        let alignment = |pointer: u64| {
            u32::try_from(MAX_ALIGNMENT >> 8 << pointer.trailing_zeros().min(8)).unwrap_or(1)
        };
        Self {
            sizes: [p.m, p.k, p.n],
            leading: [p.a.leading, p.b.leading, p.out_leading],
            transposed: [p.a.transposed, p.b.transposed],
            operands: p.operands,
            results: p.results,
            tf32: p.tf32 && p.operands == Dtype::F32,
            accumulate: p.accumulate,
            alignments: [p.a.pointer, p.b.pointer, p.out].map(alignment),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |dtype| if dtype == Dtype::F32 { "f32" } else { "bf16" };
        let [m, k, n] = self.sizes;
        write!(f, "{} {m}x{k}x{n} to {}", name(self.operands), name(self.results))?;
        let [a, b] = self.transposed.map(u8::from);
        write!(f, " transposed {a}{b} leading {:?} aligned {:?}", self.leading, self.alignments)?;
        if self.accumulate {
            write!(f, " added")?;
        }
        if self.tf32 { write!(f, " tf32") } else { Ok(()) }
    }
}

/// Algorithms by shape, as stored beside a run. They apply to the same device and library only.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored {
    device: String,
    version: usize,
    /// The opaque words of each algorithm in hexadecimal.
    algorithms: BTreeMap<String, String>,
}

impl Stored {
    /// Returns the text of the file.
    pub fn text(
        device: &str,
        version: usize,
        algorithms: BTreeMap<String, cublasLtMatmulAlgo_t>,
    ) -> Option<String> {
        let hex = |algorithm: cublasLtMatmulAlgo_t| {
            algorithm.data.map(|word| format!("{word:016x}")).concat()
        };
        let algorithms = algorithms.into_iter().map(|(key, value)| (key, hex(value))).collect();
        serde_json::to_string_pretty(&Self { device: device.to_owned(), version, algorithms }).ok()
    }

    /// Returns the algorithms in the file, or `None` if it is of another device or library.
    pub fn algorithms_for(
        device: &str,
        version: usize,
        text: &str,
    ) -> Option<BTreeMap<String, cublasLtMatmulAlgo_t>> {
        let stored: Self = serde_json::from_str(text).ok()?;
        if stored.device != device || stored.version != version {
            return None;
        }
        let words = |hex: String| {
            let mut data = [0; 8];
            for (place, word) in data.iter_mut().enumerate() {
                let digits = hex.get(16 * place..16 * place + 16)?;
                *word = u64::from_str_radix(digits, 16).ok()?;
            }
            Some(cublasLtMatmulAlgo_t { data })
        };
        let algorithms = stored.algorithms.into_iter();
        Some(algorithms.filter_map(|(key, hex)| Some((key, words(hex)?))).collect())
    }
}
