//! Shape of the model: a decoder-only Transformer of Llama's family.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Parameters and positions beyond which products of sizes are not trusted to fit: 2^44 numbers are 64 TiB.
const MOST_ELEMENTS: u128 = 1 << 44;
const MOST_POSITIONS: usize = 1 << 24;

/// Sizes of the model. No field has a default here; defaults live in the one schema of options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads; head size is `d_model / num_heads`.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Longest context.
    pub max_seq_length: usize,
    /// Base of the rotary angles.
    pub theta: f64,
    /// The output layer is the embedding matrix.
    pub tie_embeddings: bool,
    /// Query, key and value projections have a bias.
    pub qkv_bias: bool,
}

impl ModelConfig {
    /// Width of one head.
    pub fn head_size(&self) -> usize {
        self.d_model / self.num_heads
    }

    /// Rows of the fused query/key/value matrix.
    pub fn qkv_width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_size()
    }

    /// Elements of the matrices, tied or not, in numbers that cannot overflow.
    fn matrix_elements(&self) -> u128 {
        let [v, c, f, l] =
            [self.vocab_size, self.d_model, self.d_ff, self.num_layers].map(|size| size as u128);
        2 * v * c + l * (4 * c * c + 3 * c * f)
    }

    /// Says whether the model can be built.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` naming the field, its value and what it must be.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::InvalidConfig(message));
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("num_heads", self.num_heads),
            ("num_kv_heads", self.num_kv_heads),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("max_seq_length", self.max_seq_length),
        ] {
            if value == 0 {
                return fail(format!("{name} must be at least 1"));
            }
        }
        if !self.d_model.is_multiple_of(self.num_heads) {
            return fail(format!(
                "d_model {} is not divisible by num_heads {}; choose a multiple",
                self.d_model, self.num_heads
            ));
        }
        if !self.head_size().is_multiple_of(2) {
            return fail(format!(
                "head size {} (d_model / num_heads) is odd; rotary positions need an even one",
                self.head_size()
            ));
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return fail(format!(
                "num_heads {} is not divisible by num_kv_heads {}",
                self.num_heads, self.num_kv_heads
            ));
        }
        if self.matrix_elements() > MOST_ELEMENTS || self.max_seq_length > MOST_POSITIONS {
            return fail(format!(
                "the model is larger than any memory: {} parameters, max_seq_length {}; lower its sizes",
                self.matrix_elements(),
                self.max_seq_length
            ));
        }
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return fail(format!("theta {} must be a positive number", self.theta));
        }
        Ok(())
    }
}
