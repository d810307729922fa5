//! Matrices in device memory, stored column by column, and their elements as f32.

use kindling_core::cuda::Driver;
use kindling_kernel_emulator::{Bf16, Element};

use crate::state::device;

/// Element type of a matrix, from its `cudaDataType`.
#[derive(Clone, Copy)]
pub enum Elements {
    F32,
    Bf16,
}

impl Elements {
    pub fn of(kind: u32) -> Option<Self> {
        match kind {
            0 => Some(Self::F32),
            14 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    pub fn read(self, pointer: u64, len: usize) -> Result<Vec<f32>, String> {
        let mut bytes = vec![0; len * self.size()];
        device().download(&mut bytes, pointer).map_err(|e| e.to_string())?;
        Ok(match self {
            Self::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Self::Bf16 => bytes
                .chunks_exact(2)
                .map(|b| Bf16(u16::from_ne_bytes([b[0], b[1]])).to_f32())
                .collect(),
        })
    }

    pub fn write(self, pointer: u64, values: &[f32]) -> Result<(), String> {
        let bytes: Vec<u8> = match self {
            Self::F32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|v| Bf16::from_f32(*v).0.to_ne_bytes()).collect(),
        };
        device().upload(pointer, &bytes).map_err(|e| e.to_string())
    }
}

/// An operand (rows, columns), stored as it is or, if `transposed`, as its transpose.
#[derive(Clone, Copy)]
pub struct Factor {
    pub pointer: u64,
    pub elements: Elements,
    pub transposed: bool,
    pub rows: usize,
    pub columns: usize,
    pub leading: usize,
}

impl Factor {
    /// Returns the elements in row-major order.
    pub fn values(self, round: impl Fn(f32) -> f32) -> Result<Vec<f32>, String> {
        let (height, width) =
            if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) };
        let lies = self.elements.read(self.pointer, spanned(height, width, self.leading))?;
        let at = |row: usize, column: usize| {
            if self.transposed { column + row * self.leading } else { row + column * self.leading }
        };
        Ok((0..self.rows * self.columns)
            .map(|i| round(lies[at(i / self.columns, i % self.columns)]))
            .collect())
    }
}

/// Returns the number of elements from the first one of a matrix to the last.
pub fn spanned(height: usize, width: usize, leading: usize) -> usize {
    if height == 0 || width == 0 { 0 } else { leading * (width - 1) + height }
}

/// Rounds to `TensorFloat-32`, which keeps 10 of f32's 23 mantissa bits.
pub fn tf32(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0x1000) & !0x1FFF)
}
