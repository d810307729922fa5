//! Element types of matrix products and of the activations between them.

use crate::{Error, Result};

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
}
