//! Element types of matrix products and of the activations between them.

use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    F32,
    /// The upper 16 bits of an f32. Products of bf16 are summed in f32.
    Bf16,
}

impl Dtype {
    /// Parses `f32` or `bf16`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(Error::argument(format!("unknown dtype \"{other}\"; use f32 or bf16"))),
        }
    }

    /// Returns the size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}
